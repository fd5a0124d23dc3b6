"""The dial: what the model says when the selected features are ablated, scaled or set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from circuit_toolkit.arguments import number, one_of
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.runs import intervene_each
from circuit_toolkit.models import Model, run
from circuit_toolkit.panels.explorer.reading import MOST, Reading
from circuit_toolkit.sites import Site

SETS = 20  # random ones
Unit = tuple[Site, int, int]  # site, token, feature


@dataclass(frozen=True)
class Dial:
    """What is done to the selection: nothing, ablate, times a factor, or set to a value."""

    how: Literal["off", "ablate", "scale", "set"] = "off"
    value: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no dial."""
        one_of(self.how, "how", "off", "ablate", "scale", "set")
        low, high = (0, 4) if self.how == "scale" else (-1e6, 1e6)
        number(self.value, "value", low, high)

    def change(self, site: Site, features: Sequence[int], token: int) -> Change:
        """Return the change of features at a token."""
        how, value = ("put", self.value) if self.how == "set" else ("scale", self.value)
        value = 0.0 if self.how == "ablate" else float(value)
        return Change(site, how, value, np.array(features, int), positions=token)


def units_of(circuit: Circuit, ids: Sequence[str], reading: Reading) -> list[Unit]:
    """Return the features behind selected nodes, at their tokens of a prompt."""
    row, places = {name: i for i, name in enumerate(circuit.ids())}, reading.places()
    n = len(reading.tokens)
    found = []
    for name in [each for one in ids for each in circuit.groups.get(one, [one])]:
        node = circuit.nodes[row[name]]
        at = str(node["position"])
        where = int(at) if at.isdecimal() else places.get(at, None if at else -1)
        if node["kind"] == "feature" and where is not None:
            found.append((Site.parse(node["site"]), where % n, int(node["index"])))
    return list(dict.fromkeys(found))


def changes_of(units: Sequence[Unit], dial: Dial) -> list[Change]:
    """Return the changes that a dial makes, one for each site and token."""
    together: dict[tuple[Site, int], list[int]] = {}
    for site, token, index in units if dial.how != "off" else ():
        together.setdefault((site, token), []).append(index)
    return [dial.change(site, features, token) for (site, token), features in together.items()]


def effect(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    reading: Reading,
    units: Sequence[Unit],
    dial: Dial,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the prompt with the changes, and with the same of random features at the same places."""
    sets = [
        changes_of(each, dial) for each in random_sets(model, dictionaries, reading, units, seed)
    ]
    wanted = [changes_of(units, dial), *sets]
    found = intervene_each(model, reading.task, wanted, dictionaries=dictionaries, progress=False)
    logits = found[0].logits[0].float().cpu()
    values = [float(reading.task.score(each.logits.float().cpu(), [0])[0]) for each in found]
    best, chance = logits.topk(MOST), logits.softmax(-1)
    return {
        "before": reading.top,
        "after": [
            {
                "word": model.word(token),
                "logit": round(logit, 2),
                "p": round(float(chance[token]), 4),
            }
            for logit, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ],
        "target": [round(reading.value, 3), round(values[0], 3)],
        "random": [round(value, 3) for value in sorted(values[1:])],
        "n": len(units),
    }


def random_sets(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    reading: Reading,
    units: Sequence[Unit],
    seed: int = 0,
) -> list[list[Unit]]:
    """Draw other features that are active at the same sites and tokens, as many, in each set.

    Where fewer others are active than are selected there is no set of equal size: none is drawn.
    """
    sites = sorted({site for site, _, _ in units})
    values = run(model, model.tokenize([reading.text]), sites)
    others: dict[tuple[Site, int], np.ndarray] = {}
    counts: dict[tuple[Site, int], int] = {}
    for site, token, _ in units:
        counts[site, token] = counts.get((site, token), 0) + 1
    for site, token in counts:
        active = dictionaries[site].encode(values[site][0, token]).nonzero()[:, 0].cpu().numpy()
        taken = [index for s, t, index in units if (s, t) == (site, token)]
        others[site, token] = np.setdiff1d(active, taken)
    if any(len(others[place]) < count for place, count in counts.items()):
        return []
    rng = np.random.default_rng(seed)
    return [
        [
            (site, token, int(index))
            for (site, token), count in counts.items()
            for index in rng.choice(others[site, token], count, replace=False)
        ]
        for _ in range(SETS)
    ]
