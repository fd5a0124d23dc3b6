"""The attribution graph of a prompt: its engine, pruning, targets and sums."""

from circuit_toolkit.attribution.graph.prompt_graph import attribution_graph

__all__ = ["attribution_graph"]
