"""Supernodes: nodes of a circuit that are read as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import described, expect_known, is_a, refuse_surrogates
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Groups = dict[str, list[str]]  # name -> ids of its nodes, in the order of the nodes


def checked_groups(groups: Any, ids: Sequence[str], kinds: Sequence[str]) -> Groups:
    """Return supernodes with their nodes in order; refuse what is no grouping of these nodes."""
    if not isinstance(groups, Mapping):
        raise InputError(f"groups must be a dict of names to ids, got {described(groups)}.")
    row = {name: i for i, name in enumerate(ids)}
    group_of: dict[str, str] = {}
    found: Groups = {}
    for name, nodes in groups.items():
        members = _members(name, nodes)
        refuse_surrogates(name, "The name of a supernode")
        for each in members:
            if each not in row:
                raise InputError(
                    f"There is no node {each!r} for supernode {name!r}. See circuit.ids()."
                )
            if kinds[row[each]] == TARGET:
                raise InputError(f"{each} is a target, which no supernode can hold: leave it out.")
            if each in group_of:
                raise InputError(
                    f"{each} is in supernode {group_of[each]!r} already, and cannot be in {name!r} "
                    f"too. Call circuit.ungroup({group_of[each]!r}) first, or leave it out."
                )
            group_of[each] = name
        if name in row:
            raise InputError(f"A node is called {name!r}: give the supernode another name.")
        found[name] = sorted(members, key=row.__getitem__)
    return found


def grouped(groups: Groups, name: Any, nodes: Any) -> Groups:
    """Return supernodes and one more."""
    _check_name(name)
    if name in groups:
        raise InputError(
            f"There is a supernode {name!r} already. Call circuit.ungroup({name!r}) first, or pass "
            "another name."
        )
    return groups | {name: nodes}


def ungrouped(groups: Groups, name: Any) -> Groups:
    """Return supernodes without one."""
    expect_known(name, groups, f"There is no supernode {name!r}")
    return {each: nodes for each, nodes in groups.items() if each != name}


def kept_groups(groups: Groups, kept: Iterable[str]) -> Groups:
    """Return supernodes of the nodes that are kept; one that lost all its nodes goes."""
    there = set(kept)
    left = {name: [each for each in nodes if each in there] for name, nodes in groups.items()}
    return {name: nodes for name, nodes in left.items() if nodes}


def group_of_each(groups: Groups, ids: Sequence[str]) -> list[str]:
    """Return the name of each node's supernode, or an empty text."""
    name_of = {each: name for name, nodes in groups.items() for each in nodes}
    return [name_of.get(each, "") for each in ids]


def supernode_edges(groups: Groups, ids: Sequence[str], edges: np.ndarray) -> pd.DataFrame:
    """Return edges between supernodes and the nodes in none, summed, largest first."""
    import pandas as pd

    ends = [name or each for name, each in zip(group_of_each(groups, ids), ids, strict=True)]
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for source, target, weight in edges[["source", "target", "weight"]].tolist():
        if ends[source] != ends[target]:
            sums[ends[source], ends[target]] += weight
    rows = sorted(((*pair, weight) for pair, weight in sums.items()), key=lambda row: -abs(row[2]))
    return pd.DataFrame(rows, columns=pd.Index(["source", "target", "weight"]))


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"A supernode's name must be a text, got {described(name)}.")


def _members(name: Any, nodes: Any) -> list[str]:
    _check_name(name)
    if isinstance(nodes, str) or is_a(nodes, "Circuit") or not isinstance(nodes, Iterable):
        raise InputError(
            f"The nodes of supernode {name!r} must be a list of ids, got {described(nodes)}. "
            "See circuit.ids()."
        )
    members = list(nodes)
    for each in members:
        if not isinstance(each, str):
            raise InputError(
                f"Supernode {name!r} takes ids of nodes, got {described(each)}. See circuit.ids()."
            )
    if not members:
        raise InputError(f"Supernode {name!r} has no nodes. Pass ids, as circuit.ids() has them.")
    return [str(each) for each in dict.fromkeys(members)]
