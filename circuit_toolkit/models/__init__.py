"""Models: loaded, laid out as sites, read and written through nnsight."""

from circuit_toolkit.models.architectures import ARCHITECTURES, Architecture
from circuit_toolkit.models.model import Batch, Model, load_model
from circuit_toolkit.models.tracing import LOGITS, run

__all__ = ["ARCHITECTURES", "LOGITS", "Architecture", "Batch", "Model", "load_model", "run"]
