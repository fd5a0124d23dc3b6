"""FeatureCard: all that is known of one feature, on one card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, unembedding_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.dictionaries.names import FeatureName, feature_at
from circuit_toolkit.display import draw
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.examples import FeatureExamples, feature_examples
from circuit_toolkit.features.virtual import virtual_weights
from circuit_toolkit.files.documents import write_text
from circuit_toolkit.models import Model
from circuit_toolkit.models.special_tokens import is_said
from circuit_toolkit.sites import Site

Labels = Mapping[Site, Sequence[str]]


@dataclass(frozen=True, eq=False)
class FeatureCard:
    """All that is known of one feature; a part that is None or empty is not shown.

    Parameters
    ----------
    name : str
        Site and number, as circuits name features: `blocks.3.ln2.hook_normalized/17`.
    kind : str
        `sae` or `transcoder`.
    label : str
        What it is called, if it has a name.
    examples : FeatureExamples
        Where it fires, how strongly and how often.
    logits : dict, optional
        `promoted` and `suppressed`: `{"id", "token", "value"}` by its direct path to the logits,
        the mean over all tokens taken off; norms' factors as 1.
    weight_lens : dict, optional
        What weights alone say, see `FeatureDescriptions.of`; with what each token of the
        description does alone, as `solo`.
    circuit_lens : dict, optional
        How it comes to fire, see `FeatureCircuits.to_dict`.
    upstream, downstream : tuple of dict
        Neighbours by virtual weight: `{"feature", "weight", "label"}`, the strongest first.
    edges : tuple of dict
        Edges of a circuit: `{"feature", "weight", "label", "direction"}`, which is `in` or `out`.
    settings : dict
        Model, dictionary and prompts, the method of the circuit, and as `neuronpedia` the address
        of the feature's page there, where it is known.
    """

    name: str
    kind: str
    label: str
    examples: FeatureExamples
    logits: dict[str, Any] | None = None
    weight_lens: dict[str, Any] | None = None
    circuit_lens: dict[str, Any] | None = None
    upstream: tuple[dict[str, Any], ...] = ()
    downstream: tuple[dict[str, Any], ...] = ()
    edges: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain JSON.

        Returns
        -------
        dict
        """
        lists = {name: list(getattr(self, name)) for name in ("upstream", "downstream", "edges")}
        return dict(vars(self)) | lists | {"examples": self.examples.to_dict()}

    def __repr__(self) -> str:
        """Name, label and density."""
        said = f", {self.label!r}" if self.label else ""
        return f"FeatureCard({self.name!r}{said}, fires on {self.examples.density:.2%} of tokens)"

    def to_html(self, path: str | Path | None = None) -> str | Path:
        """Write the card as one HTML page that needs no network.

        Parameters
        ----------
        path : str or Path, optional
            Where to write it, whole or not at all.

        Returns
        -------
        str or Path
            The page, or with `path` the file.
        """
        page = draw(self, "page")
        return page if path is None else write_text(path, page)

    def _repr_html_(self) -> str:
        return draw(self, "html")


def feature_card(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    feature: FeatureName,
    acts: Activations | ActivationStore,
    *,
    descriptions: Any = None,
    circuits: Any = None,
    circuit: Circuit | None = None,
    labels: Labels | None = None,
    n_examples: int = 8,
    n_neighbours: int = 8,
) -> FeatureCard:
    """Put together what is known of a feature.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        That of the feature, and those whose features may be its neighbours: pass those of some
        layers to leave out the others.
    feature : str or (Site, int)
        For example `blocks.3.ln2.hook_normalized/17`, `mlp_in 3/17` or `(Site("mlp_in", 3), 17)`.
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    descriptions : FeatureDescriptions or dict, optional
        What `WeightLens` says of all features, or of this one.
    circuits : FeatureCircuits or dict, optional
        What `CircuitLens` says of this feature.
    circuit : Circuit, optional
        One in which the feature may be a node.
    labels : dict of Site to sequence of str, optional
        Names of features, such as `feature_labels(acts)`; by default those of the descriptions.
    n_examples : int
        So many of the strongest texts.
    n_neighbours : int
        So many neighbours in each direction.

    Returns
    -------
    FeatureCard

    Raises
    ------
    InputError
        If the feature does not exist, its site was not captured, the activations are not of every
        token, the analysis is of another feature, or a number is negative.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> acts = ct.capture(model, transcoders, ["the boys near the cabinet"], progress=False)
    >>> feature_card(model, transcoders, "mlp_in 0/17", acts)
    FeatureCard('blocks.0.ln2.hook_normalized/17', fires on ... of tokens)
    """
    dictionaries = as_dictionaries(model, dictionaries)
    n_neighbours = whole(n_neighbours, "n_neighbours", 0)
    for value, what, kind in (
        (descriptions, "descriptions", "FeatureDescriptions"),
        (circuits, "circuits", "FeatureCircuits"),
    ):
        if value is not None and not isinstance(value, Mapping):
            expect(value, what, kind)
    if circuit is not None:
        expect(circuit, "circuit", "Circuit")
    site, index = feature_at(feature, dictionaries)
    dictionary = dictionaries[site]
    name = f"{site}/{index}"
    names: Labels = labels or {}
    if labels is None and hasattr(descriptions, "labels"):
        names = descriptions.labels()
    lens = descriptions
    if hasattr(descriptions, "of"):  # of all features, or those of some sites
        lens = descriptions.of(site, index) if site in descriptions.labels() else None
    if lens and hasattr(descriptions, "described"):
        alone = descriptions.described[site].tokens[[index]]  # (1, V)
        solo = dict(zip(alone.indices.tolist(), alone.data.tolist(), strict=True))
        told = [{**each, "solo": solo[each["id"]]} for each in lens["description"]]
        lens = {**lens, "description": told}
    analysis = circuits.to_dict() if hasattr(circuits, "to_dict") else circuits
    _check_same(lens, site, index, "descriptions")
    _check_same(analysis, site, index, "circuits")
    return FeatureCard(
        name,
        dictionary.kind,
        _label_of(names, site, index),
        feature_examples(acts, site, index, n=n_examples),
        _logit_effects(model, dictionary, index),
        lens,
        _without_start(analysis, model),
        *_neighbours(model, dictionaries, site, index, names, n_neighbours),
        _edges_of(circuit, name),
        {
            "model": model.name,
            "dictionary": dictionary.name,
            "neuronpedia": dictionary.neuronpedia_url(index),
            "n_features": dictionary.n_features,
            "task": acts.settings.get("task"),
            "n_prompts": acts.n_prompts,
            "circuit": circuit.settings.get("method") if circuit is not None else None,
        },
    )


def _without_start(analysis: Mapping[str, Any] | None, model: Model) -> dict[str, Any] | None:
    """Take the beginning of a sequence as silent in examples of clusters, as in other texts."""
    if analysis is None:
        return None
    start = "" if model.bos_id is None else model.word(model.bos_id)

    def shown(example: Mapping[str, Any]) -> dict[str, Any]:
        values = list(example["values"])
        if example["tokens"][0] == start and example["position"]:
            values[0] = 0.0
        return {**example, "values": values}

    clusters = [
        {**each, "examples": [*map(shown, each.get("examples") or ())]}
        for each in analysis.get("clusters") or ()
    ]
    return {**analysis, "clusters": clusters}


def _check_same(part: Mapping[str, Any] | None, site: Site, index: int, what: str) -> None:
    """Refuse an analysis of another feature; it says which as a name, or as site and index."""
    said = (part or {}).get("feature")
    if isinstance(said, Mapping):
        said = f"{said.get('site')}/{said.get('index')}"
    if said and feature_at(said) != (site, index):
        raise InputError(f"{what} is of {said}, the card of {site}/{index}.")


def _label_of(labels: Labels, site: Site, index: int) -> str:
    return str(labels[site][index]) if site in labels else ""


@torch.no_grad()
def _logit_effects(
    model: Model, dictionary: Dictionary, index: int, n: int = 10
) -> dict[str, Any] | None:
    """Tokens that one unit promotes and suppresses.

    None where it does not reach the stream, or the weights of the model are not here.
    """
    if model.remote:
        return None
    try:
        row = decoder_rows(model, dictionary)[index]
    except InputError:
        return None
    effects = unembedding_rows(model) @ row.to(model.device)  # (V,)
    effects = effects - effects.mean()  # what moves all logits alike changes nothing
    said = torch.from_numpy(np.flatnonzero(is_said(model))).to(effects.device)
    effects = effects[said]

    def tokens(best: Any) -> list[dict[str, Any]]:
        ids, values = said[best.indices].tolist(), best.values.tolist()
        return [
            {"id": i, "token": model.word(i), "value": value}
            for i, value in zip(ids, values, strict=True)
        ]

    n = min(n, len(effects))
    ends = effects.topk(n), effects.topk(n, largest=False)
    return {"promoted": tokens(ends[0]), "suppressed": tokens(ends[1])}


def _neighbours(
    model: Model, near: Mapping[Site, Dictionary], site: Site, index: int, labels: Labels, n: int
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Strongest features by direct virtual weight, before and after."""
    if n < 1:
        return (), ()
    found = []
    ends: tuple[tuple[Literal["source", "target"], str], ...]
    ends = ("source", "targets"), ("target", "sources")
    for end, other in ends:
        one: Any = {other: {site: [index]}}
        try:
            weights = virtual_weights(model, near, top=n, progress=False, **one).top(n)
        except InputError:  # it does not read the stream, or does not write to it
            found.append(())
            continue
        rows = zip(weights.names(end), weights.rows["weight"].tolist(), strict=True)
        named = [(feature_at(name), name, weight) for name, weight in rows]
        found.append(
            tuple(
                {"feature": name, "weight": weight, "label": _label_of(labels, *place)}
                for place, name, weight in named
            )
        )
    return found[0], found[1]


def _edges_of(circuit: Circuit | None, name: str) -> tuple[dict[str, Any], ...]:
    """Edges of a circuit at a feature, at any position, those of the highest score first."""
    found = []
    for row in [] if circuit is None else circuit.edge_table().to_dict("records"):
        ends = {end: row[end].partition("@")[0] for end in ("source", "target")}
        if name in ends.values():
            way, other = ("in", "source") if ends["target"] == name else ("out", "target")
            edge = {"feature": row[other], "weight": row["weight"], "label": row[f"{other}_label"]}
            found.append(edge | {"direction": way})
    return tuple(found)
