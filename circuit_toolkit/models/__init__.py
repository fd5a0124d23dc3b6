"""Models: loaded, laid out as sites, read and written through nnsight."""

from circuit_toolkit.models.architectures import ARCHITECTURES, Architecture
from circuit_toolkit.models.conventions import RAW, Conventions, Shift, shift
from circuit_toolkit.models.hub import out_of_reach
from circuit_toolkit.models.loading import load_model
from circuit_toolkit.models.model import Batch, Model, token_mask
from circuit_toolkit.models.tracing import LOGITS, run

__all__ = [
    "ARCHITECTURES",
    "LOGITS",
    "RAW",
    "Architecture",
    "Batch",
    "Conventions",
    "Model",
    "Shift",
    "load_model",
    "out_of_reach",
    "run",
    "shift",
    "token_mask",
]
