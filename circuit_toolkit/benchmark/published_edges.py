"""What reads what in the circuits that others found by hand: rules, as ACDC states them.

Conmy et al., 2023, arXiv 2304.14997, code in ArthurConmy/Automatic-Circuit-Discovery, which makes
graphs of q, k and v of the circuits of Wang et al., Hanna et al., and Heimersheim and Janiak.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import numpy as np

Heads = tuple[tuple[int, int], ...]  # (layer, head)


class Component(NamedTuple):
    """Where an edge begins or ends."""

    kind: str
    layer: int = -1
    head: int = -1

    def __str__(self) -> str:
        """Write it as `9.6`, `mlp 3`, `input` or `output`."""
        return {"head": f"{self.layer}.{self.head}", "mlp": f"mlp {self.layer}"}.get(
            self.kind, self.kind
        )

    @property
    def order(self) -> float:
        """Sorts components as they are computed: in a block the heads, then the MLP."""
        own = {"input": -1.0, "head": float(self.layer), "mlp": self.layer + 0.5}
        return own.get(self.kind, np.inf)


class Edge(NamedTuple):
    """What one component reads of another."""

    source: Component
    target: Component
    reads: str = ""

    def __str__(self) -> str:
        """Write it as `4.11 -> 5.5 k`."""
        return f"{self.source} -> {self.target} {self.reads}".rstrip()


INPUT, OUTPUT = Component("input"), Component("output")


def _edges(
    sources: Iterable[Component], targets: Iterable[Component], reads: str = ""
) -> list[Edge]:
    """Edges from all sources to all targets that are computed later, one for each letter."""
    return [
        Edge(source, target, letter)
        for source, target in product(sources, list(targets))
        for letter in reads or ("",)
        if source.order < target.order
    ]


def _components(heads: Iterable[tuple[int, int]]) -> list[Component]:
    return [Component("head", layer, head) for layer, head in heads]


def _mlps(layers: Iterable[int]) -> list[Component]:
    return [Component("mlp", layer) for layer in layers]


def _unique(*groups: list[Edge]) -> tuple[Edge, ...]:
    """Every edge once, in order of computation."""
    edges = {edge for group in groups for edge in group}
    return tuple(sorted(edges, key=lambda e: (e.source.order, e.target.order, *e)))


# Indirect objects in GPT-2 small.
PREVIOUS: Heads = ((2, 2), (4, 11))
DUPLICATE: Heads = ((0, 1), (0, 10), (3, 0))
INDUCTION: Heads = ((5, 5), (5, 8), (5, 9), (6, 9))
S_INHIBITION: Heads = ((7, 3), (7, 9), (8, 6), (8, 10))
NAME_MOVERS: Heads = ((9, 6), (9, 9), (10, 0))
NEGATIVE_MOVERS: Heads = ((10, 7), (11, 10))
BACKUP_MOVERS: Heads = ((9, 0), (9, 7), (10, 1), (10, 2), (10, 6), (10, 10), (11, 2), (11, 9))
# Greater-than in GPT-2 small.
EARLY: Heads = ((0, 1), (0, 3), (0, 5))
LATE: Heads = ((5, 5), (6, 1), (6, 9), (7, 10), (8, 11), (9, 1))
EARLY_MLPS, LATE_MLPS = (0, 1, 2, 3), (8, 9, 10, 11)
# Docstrings in the attention-only model of four layers.
ARGUMENT_MOVERS: Heads = ((3, 0), (3, 6))


def ioi_edges() -> tuple[Edge, ...]:
    """Generate the edges that ACDC takes as the truth for indirect objects, from its rules."""
    previous, duplicate = _components(PREVIOUS), _components(DUPLICATE)
    induction, inhibition = _components(INDUCTION), _components(S_INHIBITION)
    movers = _components(NAME_MOVERS + NEGATIVE_MOVERS + BACKUP_MOVERS)
    every = previous + duplicate + induction + inhibition + movers
    mlps = _mlps(range(12))
    return _unique(
        _edges([INPUT], previous + duplicate, "qkv"),
        _edges([INPUT], inhibition, "q"),
        _edges([INPUT], movers, "kv"),
        _edges(previous, induction, "kv"),
        _edges(induction + duplicate, inhibition, "kv"),
        _edges(inhibition, movers, "q"),
        _edges(movers, [OUTPUT]),
        _edges([INPUT, *mlps, *every], mlps),
        _edges(mlps, every, "qkv"),
        _edges([INPUT, *mlps], [OUTPUT]),
    )


def greater_than_edges() -> tuple[Edge, ...]:
    """Generate the edges that ACDC takes as the truth for greater-than, from its rules."""
    early, late = _components(EARLY), _components(LATE)
    head_0_1 = [Component("head", 0, 1)]
    early_mlps, late_mlps, below_9 = _mlps(EARLY_MLPS), _mlps(LATE_MLPS), _mlps(range(9))
    return _unique(
        _edges([INPUT], early, "qkv"),
        _edges([INPUT], early_mlps),
        _edges(head_0_1, early_mlps),
        _edges(early + early_mlps, late, "qkv"),
        _edges(late, late_mlps),
        _edges(late + late_mlps, [OUTPUT]),
        _edges(early_mlps, early_mlps),
        _edges(late_mlps, late_mlps),
        _edges(below_9, below_9),
        _edges(below_9, late, "q"),
    )


def docstring_edges() -> tuple[Edge, ...]:
    """Return the edges that ACDC takes as the truth for docstrings, which S. Heimersheim listed."""
    early, induction = _components([(0, 5)]), _components([(1, 4)])
    keys, second = _components([(1, 2)]), _components([(2, 0)])
    movers = _components(ARGUMENT_MOVERS)
    return _unique(
        _edges([INPUT], early, "v"),
        _edges([INPUT, *early], induction, "v"),
        _edges([INPUT, *early], keys + second, "qk"),
        _edges(induction, second, "v"),
        _edges(induction, movers, "q"),
        _edges(keys + second, movers, "k"),
        _edges([INPUT, *early], movers, "v"),
        _edges(movers, [OUTPUT]),
    )
