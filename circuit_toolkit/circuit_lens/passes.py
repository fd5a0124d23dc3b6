"""One batch of activating examples: a run, a frozen pass, and what stands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import ActiveFeatures, FrozenModel
from circuit_toolkit.attribution.frozen.run import FrozenWeights, frozen_run
from circuit_toolkit.attribution.frozen.sums import direct, origins
from circuit_toolkit.circuit_lens.activating_examples import ActivatingExamples
from circuit_toolkit.circuit_lens.feature import AnalysedFeature
from circuit_toolkit.circuit_lens.outliers import (
    ContributionOutliers,
    feature_outliers,
    head_outliers,
)
from circuit_toolkit.circuit_lens.outputs import influence, logit_contributions
from circuit_toolkit.circuit_lens.settings import FLOOR, LensSettings
from circuit_toolkit.errors import MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

ELEMENTS = ("example", "layer", "head", "feature", "offset", "contribution", "z")
OUTPUTS = ("example", "step", "token", "contribution", "z")
SAME = 0.05  # share of the largest activation that another batch and its precision may make


@dataclass(frozen=True, eq=False)
class LensPass:
    """What is kept of a batch of B examples."""

    columns: pd.DataFrame
    elements: pd.DataFrame
    outputs: pd.DataFrame
    words: list[list[str]]
    values: list[np.ndarray]


@torch.no_grad()
def run_pass(
    model: Model,
    weights: FrozenWeights,
    feature: AnalysedFeature,
    examples: ActivatingExamples,
    ids: list[list[int]],
    numbers: np.ndarray,
    lens: LensSettings,
) -> LensPass:
    """Run a batch of examples once."""
    batch = model.tokenize(ids)
    site, last = feature.dictionary.site, Site("resid_post", model.n_layers - 1)
    read = {site, feature.stream, *([last] if lens.n_outputs else [])}
    frozen, values = frozen_run(model, batch, weights, read)
    padding = (batch.mask == 0).sum(1)
    at = padding + torch.as_tensor(examples.position, device=padding.device)
    rows = torch.arange(len(at), device=at.device)
    acts = feature.dictionary.encode(values[site])[..., feature.index].to(values[site])  # (B, T)
    now = acts[rows, at]
    _refuse_others(feature, examples, now.cpu().numpy())
    said = torch.as_tensor(examples.activation).to(now)
    x = values[feature.stream]
    reading = feature.reading(model, x, at)
    here, everywhere = direct(frozen, reading), origins(frozen, reading)
    seen = batch.mask.bool() & (torch.arange(batch.ids.shape[1], device=at.device) <= at[:, None])
    heads, features = here.heads, here.features
    if lens.mode == "published":
        raw = feature.raw.to(acts).expand(len(at), -1)
        heads = [each.heads(raw, at, raw=True)[0] for each in frozen.attention[: len(heads)]]
    if lens.upstream == "anywhere":
        features = {n: _over_tokens(each, at) for n, each in everywhere.features.items()}
    elements = _elements(
        [head_outliers(each, seen, FLOOR) for each in heads],
        {n: feature_outliers(each, len(at), FLOOR) for n, each in features.items()},
        at,
    )
    outputs = table_of(OUTPUTS)
    if lens.n_outputs:
        written = now[:, None] * feature.writes.to(now)
        outputs = _outputs(
            model, frozen, values[last], written, at, feature, batch.ids, lens.n_outputs
        )
    return LensPass(
        table_of(
            ("pre_activation", "error", "origins_error"),
            (x[rows, at] * reading.row).sum(1) + reading.constant,
            (here.total - now).abs() / said,
            (everywhere.total - now).abs() / said,
        ),
        elements.assign(example=numbers[elements["example"].to_numpy(int)]),
        outputs.assign(example=numbers[outputs["example"].to_numpy(int)]),
        model.words(batch),
        [row[start:].cpu().numpy() for row, start in zip(acts, padding.tolist(), strict=True)],
    )


def _refuse_others(feature: AnalysedFeature, examples: ActivatingExamples, now: np.ndarray) -> None:
    """Refuse activations that are not what the model gives."""
    off = np.abs(now - examples.activation)
    worst = int(off.argmax())
    if off[worst] > SAME * examples.activation.max():
        raise MismatchError(
            f"{feature.name} is {now[worst]:.3g} at token {examples.position[worst]} of prompt "
            f"{examples.prompt[worst]}, where acts say {examples.activation[worst]:.3g}: they are "
            "of another model or of other prompts, or its precision is too low. Capture again, "
            "leave acts out, or load the model in float32."
        )


def _over_tokens(active: ActiveFeatures, at: Tensor) -> ActiveFeatures:
    """Sum what each feature contributes to an example over all tokens up to it."""
    before = active.place <= at[active.row]
    rows = torch.stack([active.row, active.feature])[:, before]
    pairs, which = rows.unique(dim=1, return_inverse=True)
    value = active.value.new_zeros(pairs.shape[1]).index_add(0, which, active.value[before])
    return ActiveFeatures(pairs[0], at[pairs[0]], pairs[1], value)


def _elements(
    heads: list[ContributionOutliers], features: Mapping[int, ContributionOutliers], at: Tensor
) -> pd.DataFrame:
    """Put what stands out in all layers into one table, by layer; heads first."""
    import pandas as pd

    tables = []
    for is_head, layers in ((True, dict(enumerate(heads))), (False, features)):
        for layer, each in layers.items():
            none, offset = torch.full_like(each.index, -1), each.source - at[each.row]
            names = (each.index, none) if is_head else (none, each.index)
            of_layer = torch.full_like(each.index, layer)
            tables.append(
                table_of(ELEMENTS, each.row, of_layer, *names, offset, each.value, each.z)
            )
    # nothing is in front of the first block
    return pd.concat(tables, ignore_index=True) if tables else table_of(ELEMENTS)


def _outputs(
    model: Model,
    frozen: FrozenModel,
    last: Tensor,
    written: Tensor,
    at: Tensor,
    feature: AnalysedFeature,
    ids: Tensor,
    n: int,
) -> pd.DataFrame:
    """Return what the examples add to the tokens that follow; prompts end at the right."""
    places = at[:, None] + torch.arange(n, device=at.device)  # (B, n)
    end = ids.shape[1] - 1
    known = places < end
    follows = ids.gather(1, (places + 1).clamp(max=end))
    layer, mid = feature.writes_at
    places = places.clamp(max=end)
    added = logit_contributions(model, frozen, last, written, at, places, layer, mid=mid)
    return table_of(OUTPUTS, *influence(added, follows, known))


def table_of(names: tuple[str, ...], *columns: Tensor) -> pd.DataFrame:
    """Return a table of columns; an empty one where there are none."""
    import pandas as pd

    if not columns:
        return pd.DataFrame(columns=names)
    cells = {name: x.cpu().numpy() for name, x in zip(names, columns, strict=True)}
    return pd.DataFrame(cells)
