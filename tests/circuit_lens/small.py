"""Small models of every family with random transcoders, and one batch of them held frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import circuit_toolkit as ct
from circuit_toolkit.attribution.frozen.linear import FrozenModel
from circuit_toolkit.attribution.frozen.run import (
    frozen_run,
    frozen_weights,
    upstream_of,
)
from circuit_toolkit.attribution.frozen.sums import Reading
from circuit_toolkit.circuit_lens.feature import AnalysedFeature, find_feature
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.dictionary import under
from circuit_toolkit.models import Batch, Conventions, Model
from circuit_toolkit.sites import Site
from tests.dictionaries.published import about, family_model, write
from tests.families import PROMPTS

PROCESSED = Conventions(fold_ln=True, center_writing_weights=True, fold_value_biases=True)
# By layer: what the transcoder is and what it reads; the feature that is asked about is the last.
PLAIN = {0: ("jumprelu_transcoder", "mlp_in"), 2: ("jumprelu_transcoder", "mlp_in")}
SKIPS = {
    0: ("jumprelu_skip_transcoder", "mlp_in"),
    1: ("skip_transcoder", "mlp_norm"),
    2: ("transcoder", "mlp_norm"),
}


def transcoders_of(
    model: Model, folder: Path, kinds: Mapping[int, tuple[str, str]], processed: bool = False
) -> dict[Site, Dictionary]:
    for layer, (architecture, kind) in kinds.items():
        metadata = about(model, str(Site(kind, layer)), str(Site("mlp_out", layer)))
        write(folder / str(layer), architecture, model.width, metadata)
    found = ct.load_dictionaries(model, folder, kind="transcoder")
    if processed:
        found = {site: under(model, each, PROCESSED) for site, each in found.items()}
    return found


@dataclass(frozen=True, eq=False)
class Held:
    """A batch held frozen, and a feature that fires in every prompt of it."""

    model: Model
    dictionaries: Mapping[Site, Dictionary]
    target: AnalysedFeature
    batch: Batch
    at: Tensor  # (B,)
    frozen: FrozenModel
    values: Mapping[Site, Tensor]
    reading: Reading
    activation: Tensor  # (B,)


def held(
    model: Model, dictionaries: Mapping[Site, Dictionary], prompts: Any, site: Site | None = None
) -> Held:
    """Hold a batch; the feature is that with the largest smallest maximum over prompts."""
    site = site or max(dictionaries)
    batch = model.tokenize(prompts)
    weights = frozen_weights(model, upstream_of(dictionaries), model.n_layers, model.n_layers)
    stream = find_feature(model, dictionaries, (site, 0)).stream
    last = Site("resid_post", model.n_layers - 1)
    frozen, values = frozen_run(model, batch, weights, {site, stream, last})
    acts = dictionaries[site].encode(values[site]) * batch.mask[..., None]  # (B, T, F)
    feature = int(acts.amax(1).amin(0).argmax())
    at = acts[..., feature].argmax(1)
    activation = acts[torch.arange(len(at)), at, feature]
    assert (activation > 0).all()
    target = find_feature(model, dictionaries, (site, feature))
    reading = target.reading(model, values[stream], at)
    return Held(model, dictionaries, target, batch, at, frozen, values, reading, activation)


def family_case(
    family: str, folder: Path, kinds: Mapping[int, tuple[str, str]], processed: bool = False
) -> Held:
    model = family_model(family)
    return held(model, transcoders_of(model, folder, kinds, processed), PROMPTS)
