"""Names of the features of a circuit: no two of them the same."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from circuit_toolkit.circuit.tables import short

# What is added to a name that several features have: the first of these that tells them apart.
_ENDS = ("@", "L", "@L", "#", "@#", "L#", "@L#", "s@#")


def told_apart(nodes: np.ndarray) -> np.ndarray:
    """Return nodes (n,) whose features have different labels; features without one stay so.

    To a label that several have, the position is added (`to @s2`), else the layer (`to L3`), else
    the index (`to #17`), or as many of these as are needed.
    """
    nodes, found = nodes.copy(), defaultdict(list)
    for row in np.flatnonzero(nodes["kind"] == "feature").tolist():
        if nodes["label"][row]:
            found[nodes["label"][row]].append(row)
    taken = set(found)
    for label, rows in found.items():
        if len(rows) < 2:
            continue
        for ends in _ENDS:
            names = [f"{label} {_end(nodes, row, ends)}" for row in rows]
            if len({*names} - taken) == len(rows):
                break
        nodes["label"][rows] = names
        taken |= {*names}
    return nodes


def _end(nodes: np.ndarray, row: int, kinds: str) -> str:
    """Return what is added to the name of a node."""
    position, index = (nodes[name][row] for name in ("position", "index"))
    site = short(nodes["site"][row])
    ends = {"@": f"@{position}", "L": f"L{site.rpartition(' ')[2]}", "#": f"#{index}", "s": site}
    return " ".join(ends[kind] for kind in kinds)
