"""What ablates a circuit, or everything but it, as `evaluate` does: changes, or edges."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import expect, expect_known, one_of
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import edge_mask
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change, mean_ablation, put, resample
from circuit_toolkit.models import Model
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.sites import Site

Ablate = Literal["others", "circuit"]


def ablating(
    circuit: Circuit, model: Model, acts: Activations | None, ablate: Ablate
) -> list[Change] | Tensor:
    """Return the changes that ablate a circuit or all others; of components a mask of edges.

    With activations these go to their means; without, to what the corrupted prompts have.
    """
    expect(circuit, "circuit", "Circuit")
    one_of(ablate, "ablate", "others", "circuit")
    others = ablate == "others"
    if acts is not None:
        expect(acts, "acts", "Activations")
    if circuit.settings.get("level") == "components":
        if acts is not None:
            raise InputError(
                "Edges between components carry what they carry on corrupted prompts: pass task=, "
                "not acts=."
            )
        graph = graph_of(model)
        own = edge_mask(circuit, graph)
        return graph.allowed & ~own if others else own
    units = circuit.features()
    if not units:
        raise InputError("The circuit is empty: it has neither features nor heads nor edges.")
    if {site.kind for site in units} == {"head_out"}:
        heads = {(site.layer, int(head)) for site, each in units.items() for head in each}
        if acts is None:
            return resampled_heads(model, heads, complement=others)
        return _mean_heads(model, acts, heads, complement=others)
    if acts is None:
        raise InputError(
            "Features outside a circuit are set to means: pass acts=, the activations that "
            "evaluate takes, as capture(model, dictionaries, task) gives them."
        )
    return mean_ablation(_at_sites_of(circuit, acts), units, complement=others)


def resampled_heads(
    model: Model, heads: Collection[tuple[int, ...]], *, complement: bool
) -> list[Change]:
    """Let heads, or all but those, carry what they have on the corrupted prompts."""
    return [
        resample(Site("head_out", layer), heads=units)
        for layer, units in _by_layer(model, heads, complement=complement).items()
    ]


def _mean_heads(
    model: Model, acts: Activations, heads: Collection[tuple[int, ...]], *, complement: bool
) -> list[Change]:
    """Set heads, or all but those, to the means of what they write."""
    positions = acts.settings.get("positions", "all")
    if not isinstance(positions, str):
        raise InputError(
            "Means of heads hold at one choice of positions, such as 'all': capture these alone."
        )
    means, changes = acts.means(), []
    for layer, units in _by_layer(model, heads, complement=complement).items():
        site = Site("head_out", layer)
        expect_known(site, means, f"{site} was not captured")
        mean = means[site].reshape(model.n_heads, -1)[units]  # (heads, D)
        where = "all" if positions == "mean" else positions  # a mean over tokens holds for each
        changes.append(put(site, mean, heads=units, positions=where))
    return changes


def _by_layer(
    model: Model, heads: Collection[tuple[int, ...]], *, complement: bool
) -> dict[int, list[int]]:
    every = set(np.ndindex(model.n_layers, model.n_heads))
    if not set(heads) <= every:
        raise InputError(f"{model.name} has no head {sorted(set(heads) - every)[0]}.")
    found: dict[int, list[int]] = {}
    for layer, head in sorted(every - set(heads) if complement else heads):
        found.setdefault(layer, []).append(head)
    return found


def _at_sites_of(circuit: Circuit, acts: Activations) -> Activations:
    """Leave out what was captured elsewhere, which a circuit says nothing of."""
    sites = [Site.parse(name) for name in circuit.settings.get("sites") or circuit.features()]
    for site in sites:
        expect_known(site, acts.sites, f"{site} was not captured")
    return replace(acts, features={site: acts.features[site] for site in sites})
