"""The circuits that others found by hand, as data: what a discovered circuit is compared with.

Three tasks, each with the lists that are in use, which differ: a score against one of them is a
score against that list. Sources: Wang et al., 2022, arXiv 2211.00593 (indirect objects); Hanna et
al., 2023, arXiv 2305.00586 (greater-than); Heimersheim and Janiak, 2023, "A circuit for Python
docstrings in a 4-layer attention-only transformer"; heads and edges as ACDC tests against them
(Conmy et al., 2023, arXiv 2304.14997, code in ArthurConmy/Automatic-Circuit-Discovery); and the
lists in the code of O'Neill and Bui, 2024, arXiv 2405.12522.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from circuit_toolkit.benchmark.published_edges import (
    ARGUMENT_MOVERS,
    BACKUP_MOVERS,
    DUPLICATE,
    EARLY,
    EARLY_MLPS,
    INDUCTION,
    LATE,
    LATE_MLPS,
    NAME_MOVERS,
    NEGATIVE_MOVERS,
    PREVIOUS,
    S_INHIBITION,
    Edge,
    Heads,
    docstring_edges,
    greater_than_edges,
    ioi_edges,
)
from circuit_toolkit.errors import InputError


class Role(NamedTuple):
    """Heads that do the same in a circuit."""

    name: str
    heads: Heads
    position: str = ""


@dataclass(frozen=True)
class CanonicalCircuit:
    """A circuit as its source lists it."""

    task: str
    variant: str
    models: tuple[str, ...]
    n_layers: int
    n_heads: int
    source: str
    roles: tuple[Role, ...]
    mlps: tuple[int, ...] = ()
    edges: tuple[Edge, ...] = ()

    @cached_property
    def heads(self) -> Heads:
        """All heads, in order of computation."""
        return tuple(sorted(head for role in self.roles for head in role.heads))

    def mask(self) -> np.ndarray:
        """Describe of every head of the model whether it is in the circuit."""
        mask = np.zeros((self.n_layers, self.n_heads), dtype=bool)
        mask[tuple(np.transpose(self.heads))] = True
        return mask

    def head_edges(self) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
        """Pairs of heads of which the later reads the earlier, whatever it reads it for."""
        between = [edge for edge in self.edges if edge.source.kind == edge.target.kind == "head"]
        ends = {((e.source.layer, e.source.head), (e.target.layer, e.target.head)) for e in between}
        return tuple(sorted(ends))


_GPT2 = ("gpt2", "gpt2-small", "openai-community/gpt2")
_ATTENTION_ONLY = ("attn-only-4l", "NeelNanda/Attn_Only_4L512W_C4_Code")
_IOI_ROLES = (
    Role("previous token", PREVIOUS, "S1+1"),
    Role("duplicate token", DUPLICATE, "S2"),
    Role("induction", INDUCTION, "S2"),
    Role("S-inhibition", S_INHIBITION, "end"),
    Role("name mover", NAME_MOVERS, "end"),
    Role("negative mover", NEGATIVE_MOVERS, "end"),
)
_SPAN_ROLES = (Role("early", EARLY), Role("late", LATE))
_ARGUMENT_MOVER = Role("argument mover", ARGUMENT_MOVERS, "end")


CANONICAL: Mapping[str, Mapping[str, CanonicalCircuit]] = {
    circuits[0].task: {circuit.variant: circuit for circuit in circuits}
    for circuits in (
        (
            CanonicalCircuit(
                "ioi",
                "acdc",
                _GPT2,
                12,
                12,
                "Wang et al., 2022, as ACDC and AutoCircuit have it: 26 heads, and MLPs whole.",
                (*_IOI_ROLES, Role("backup mover", BACKUP_MOVERS, "end")),
                edges=ioi_edges(),
            ),
            CanonicalCircuit(
                "ioi",
                "oneill",
                _GPT2,
                12,
                12,
                "Code of O'Neill and Bui, 2024: 11.3 in place of 9.0; heads alone.",
                (*_IOI_ROLES, Role("backup mover", (*BACKUP_MOVERS[1:], (11, 3)), "end")),
            ),
        ),
        (
            CanonicalCircuit(
                "greater_than",
                "acdc",
                _GPT2,
                12,
                12,
                "Hanna et al., 2023, as ACDC has it: 9 heads, and MLPs 0 to 3 and 8 to 11.",
                _SPAN_ROLES,
                mlps=(*EARLY_MLPS, *LATE_MLPS),
                edges=greater_than_edges(),
            ),
            CanonicalCircuit(
                "greater_than",
                "oneill",
                _GPT2,
                12,
                12,
                "Code of O'Neill and Bui, 2024: the heads of ACDC; heads alone.",
                _SPAN_ROLES,
            ),
            CanonicalCircuit(
                "greater_than",
                "hanna",
                _GPT2,
                12,
                12,
                "Code of Hanna et al., 2023: 5.1 and 8.8 besides; heads alone.",
                (_SPAN_ROLES[0], Role("late", (*LATE, (5, 1), (8, 8)))),
            ),
        ),
        (
            CanonicalCircuit(
                "docstring",
                "acdc",
                _ATTENTION_ONLY,
                4,
                8,
                "Heimersheim and Janiak, 2023, as ACDC has it: 6 heads.",
                (Role("feeds the movers", ((0, 5), (1, 2), (1, 4), (2, 0))), _ARGUMENT_MOVER),
                edges=docstring_edges(),
            ),
            CanonicalCircuit(
                "docstring",
                "oneill",
                _ATTENTION_ONLY,
                4,
                8,
                "Code of O'Neill and Bui, 2024: 1.0 in place of 1.2; heads alone.",
                (Role("feeds the movers", ((0, 5), (1, 0), (1, 4), (2, 0))), _ARGUMENT_MOVER),
            ),
            CanonicalCircuit(
                "docstring",
                "blog",
                _ATTENTION_ONLY,
                4,
                8,
                "A list after the post of Heimersheim and Janiak, 2023: the heads of ACDC, 0.2 and "
                "0.4, and as extras 0.1, 1.0 and 2.3; heads alone.",
                (
                    Role("feeds the movers", ((0, 5), (1, 2), (1, 4), (2, 0))),
                    _ARGUMENT_MOVER,
                    Role("besides", ((0, 2), (0, 4))),
                    Role("extra", ((0, 1), (1, 0), (2, 3))),
                ),
            ),
        ),
    )
}
"""Task, then variant; `acdc` is the list that most comparisons use, and the one with edges."""


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
