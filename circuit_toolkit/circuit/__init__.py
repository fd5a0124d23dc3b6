"""The circuit: nodes, edges, targets, settings, evidence, supernodes; its file and its exports."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Circuit": "circuit",
        "EDGE": "tables",
        "KINDS": "tables",
        "NODE": "tables",
        "TARGET": "tables",
        "new_edges": "tables",
        "new_nodes": "tables",
    },
)
