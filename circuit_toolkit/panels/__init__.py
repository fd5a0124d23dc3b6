"""Panels: widgets for the notebook; they hold no mathematics."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "GraphWidget": "graph_widget",
        "explore": "explorer.opening",
        "explore_features": "features",
        "explore_heads": "heads",
    },
)
