"""Models: loaded, laid out as sites, read and written through nnsight."""

from circuit_toolkit.models.architectures import ARCHITECTURES, Architecture
from circuit_toolkit.models.model import Batch, Model, load_model
from circuit_toolkit.models.tracing import run

__all__ = ["ARCHITECTURES", "Architecture", "Batch", "Model", "load_model", "run"]
