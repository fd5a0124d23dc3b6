"""Head codes: which attention heads belong to a task's circuit, by a small sparse autoencoder."""

from circuit_toolkit.head_codes.fit import HeadCodesFit
from circuit_toolkit.head_codes.head_codes import HeadCodes

__all__ = ["HeadCodes", "HeadCodesFit"]
