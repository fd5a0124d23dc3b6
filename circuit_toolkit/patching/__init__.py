"""Patching: exact effects of nodes, edges and paths, by running the model with them changed."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "PathEffect": "paths",
        "activation_patching": "effects",
        "edge_patching": "effects",
        "path_patching": "paths",
    },
)
