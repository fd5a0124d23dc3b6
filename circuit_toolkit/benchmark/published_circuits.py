"""The circuits that others found by hand, as data: what a discovered circuit is compared with.

Three tasks, each with the lists that are in use, which differ: a score against one of them is a
score against that list. Sources: Wang et al., 2022, arXiv 2211.00593 (indirect objects); Hanna et
al., 2023, arXiv 2305.00586 (greater-than); Heimersheim and Janiak, 2023, "A circuit for Python
docstrings in a 4-layer attention-only transformer"; heads and edges as ACDC tests against them
(Conmy et al., 2023, arXiv 2304.14997, code in ArthurConmy/Automatic-Circuit-Discovery); and the
lists in the code of O'Neill and Bui, 2024, arXiv 2405.12522.

The lists are data, `published_circuits.json`; the edges are what ACDC's rules give, which the tests
write out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from circuit_toolkit.errors import InputError

Heads = tuple[tuple[int, int], ...]  # (layer, head)


class Role(NamedTuple):
    """Heads that do the same in a circuit."""

    name: str
    heads: Heads
    position: str = ""


@dataclass(frozen=True)
class CanonicalCircuit:
    """A circuit as its source lists it; an edge is written `4.11 -> 5.5 k`, `input -> mlp 0`."""

    task: str
    variant: str
    models: tuple[str, ...]
    n_layers: int
    n_heads: int
    source: str
    roles: tuple[Role, ...]
    mlps: tuple[int, ...] = ()
    edges: tuple[str, ...] = ()

    @cached_property
    def heads(self) -> Heads:
        """All heads, in order of computation."""
        return tuple(sorted(head for role in self.roles for head in role.heads))

    def mask(self) -> np.ndarray:
        """Whether each head of the model is in the circuit, shape (L, H)."""
        mask = np.zeros((self.n_layers, self.n_heads), dtype=bool)
        mask[tuple(np.transpose(self.heads))] = True
        return mask

    def head_edges(self) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
        """Pairs of heads of which the later reads the earlier, whatever it reads it for."""
        between = (re.fullmatch(r"(\d+\.\d+) -> (\d+\.\d+) .", edge) for edge in self.edges)
        return tuple(sorted({(_head(each[1]), _head(each[2])) for each in between if each}))


def _head(name: str) -> tuple[int, int]:
    layer, head = name.split(".")
    return int(layer), int(head)


def _read(row: dict[str, Any]) -> CanonicalCircuit:
    lists: dict[str, Any] = {name: tuple(row[name]) for name in ("models", "mlps", "edges")}
    lists["roles"] = tuple(
        Role(role["name"], tuple(map(_head, role["heads"].split())), role["position"])
        for role in row["roles"]
    )
    return CanonicalCircuit(**row | lists)


CANONICAL: dict[str, dict[str, CanonicalCircuit]] = {}
"""Task, then variant; `acdc` is the list that most comparisons use, and the one with edges."""
for _row in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")):
    CANONICAL.setdefault(_row["task"], {})[_row["variant"]] = _read(_row)


def canonical_circuit(task: str, variant: str = "acdc") -> CanonicalCircuit:
    """Look up a circuit that others found.

    Parameters
    ----------
    task : str
        `ioi`, `greater_than` or `docstring`.
    variant : str
        Whose list: `acdc`, `oneill`; for greater-than also `hanna`, for docstrings `blog`.

    Returns
    -------
    CanonicalCircuit

    Raises
    ------
    InputError
        If there is no such list.
    """
    if task not in CANONICAL or variant not in CANONICAL[task]:
        known = "; ".join(f"{name}: {', '.join(lists)}" for name, lists in CANONICAL.items())
        raise InputError(f"No canonical circuit {variant!r} of {task!r}. There are {known}.")
    return CANONICAL[task][variant]
