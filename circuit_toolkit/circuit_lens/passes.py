"""One batch of firings: a run, a frozen pass, and what stands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.circuit_lens.contributions import direct, origins
from circuit_toolkit.circuit_lens.firings import Firings
from circuit_toolkit.circuit_lens.frozen import Fired, FrozenModel
from circuit_toolkit.circuit_lens.frozen_run import FrozenWeights, frozen_run
from circuit_toolkit.circuit_lens.outliers import (
    Outliers,
    feature_outliers,
    head_outliers,
)
from circuit_toolkit.circuit_lens.outputs import influence, logit_contributions
from circuit_toolkit.circuit_lens.target import Target
from circuit_toolkit.errors import MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

FLOOR = 1.0  # z-score from which contributions are kept, and so the lowest threshold
SAME = 0.05  # share of the largest activation that another batch and its precision may make


@dataclass(frozen=True, eq=False)
class Pass:
    """What is kept of a batch of B firings."""

    firing: np.ndarray
    columns: dict[str, np.ndarray]
    elements: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    words: list[list[str]]
    values: list[np.ndarray]


@torch.no_grad()
def run_pass(
    model: Model,
    weights: FrozenWeights,
    target: Target,
    firings: Firings,
    ids: list[list[int]],
    numbers: np.ndarray,
    *,
    mode: str,
    upstream: str,
    n_outputs: int,
) -> Pass:
    """Run a batch of firings once."""
    batch = model.tokenize(ids)
    site, last = target.dictionary.site, Site("resid_post", model.n_layers - 1)
    read = {site, target.stream, *([last] if n_outputs else [])}
    frozen, values = frozen_run(model, batch, weights, read)
    padding = (batch.mask == 0).sum(1)
    at = padding + torch.as_tensor(firings.position, device=padding.device)
    rows = torch.arange(len(at), device=at.device)
    acts = target.dictionary.encode(values[site])[..., target.index].to(values[site])  # (B, T)
    now = acts[rows, at]
    _refuse_others(target, firings, now.cpu().numpy())
    said = torch.as_tensor(firings.activation).to(now)
    reading = target.reading(model, values[target.stream], at)
    here, everywhere = direct(frozen, reading), origins(frozen, reading)
    x = values[target.stream][rows, at]
    columns = {
        "pre_activation": (x * reading.row).sum(1) + reading.constant,
        "error": (here.total - now).abs() / said,
        "origins_error": (everywhere.total - now).abs() / said,
    }
    seen = batch.mask.bool() & (torch.arange(batch.ids.shape[1], device=at.device) <= at[:, None])
    heads = here.heads
    if mode == "published":
        raw = target.raw.to(acts).expand(len(at), -1)
        heads = [each.heads(raw, at, raw=True)[0] for each in frozen.attention[: len(heads)]]
    features = here.features
    if upstream == "anywhere":
        features = {n: _over_tokens(each, at) for n, each in everywhere.features.items()}
    elements = _elements(
        [head_outliers(each, seen, FLOOR) for each in heads],
        {n: feature_outliers(each, len(at), FLOOR) for n, each in features.items()},
        at,
    )
    outputs = {}
    if n_outputs:
        written = now[:, None] * target.writes.to(now)
        outputs = _outputs(model, frozen, values[last], written, at, target, batch.ids, n_outputs)
    return Pass(
        numbers,
        _on_cpu(columns),
        {**_on_cpu(elements), "firing": numbers[elements["firing"].cpu().numpy()]},
        {**_on_cpu(outputs), "firing": numbers[outputs["firing"].cpu().numpy()]} if outputs else {},
        model.words(batch),
        [row[start:].cpu().numpy() for row, start in zip(acts, padding.tolist(), strict=True)],
    )


def _refuse_others(target: Target, firings: Firings, now: np.ndarray) -> None:
    """Refuse activations that are not what the model gives."""
    off = np.abs(now - firings.activation)
    worst = int(off.argmax())
    if off[worst] > SAME * firings.activation.max():
        raise MismatchError(
            f"{target.name} is {now[worst]:.3g} at token {firings.position[worst]} of prompt "
            f"{firings.prompt[worst]}, where acts say {firings.activation[worst]:.3g}: they are of "
            "another model or of other prompts, or its precision is too low. Capture again, leave "
            "acts out, or load the model in float32."
        )


def _over_tokens(fired: Fired, at: Tensor) -> Fired:
    """Sum what each feature contributes to a firing over all tokens up to it."""
    before = fired.place <= at[fired.row]
    rows = torch.stack([fired.row, fired.feature])[:, before]
    pairs, which = rows.unique(dim=1, return_inverse=True)
    value = fired.value.new_zeros(pairs.shape[1]).index_add(0, which, fired.value[before])
    return Fired(pairs[0], at[pairs[0]], pairs[1], value)


def _elements(
    heads: list[Outliers], features: Mapping[int, Outliers], at: Tensor
) -> dict[str, Tensor]:
    """Put what stands out in all layers into one table, by layer; heads first."""
    parts = [("head", layer, each) for layer, each in enumerate(heads)]
    parts += [("feature", layer, each) for layer, each in features.items()]
    names = ("firing", "layer", "head", "feature", "offset", "contribution", "z")
    columns = {name: [at.new_empty(0)] for name in names}  # nothing is in front of the first block
    for kind, layer, each in parts:
        none = torch.full_like(each.index, -1)
        for name, column in {
            "firing": each.row,
            "layer": torch.full_like(each.index, layer),
            "head": each.index if kind == "head" else none,
            "feature": each.index if kind == "feature" else none,
            "offset": each.source - at[each.row],
            "contribution": each.value,
            "z": each.z,
        }.items():
            columns[name].append(column)
    return {name: torch.cat(each) for name, each in columns.items()}


def _outputs(
    model: Model,
    frozen: FrozenModel,
    last: Tensor,
    written: Tensor,
    at: Tensor,
    target: Target,
    ids: Tensor,
    n: int,
) -> dict[str, Tensor]:
    """Return what the firings add to the tokens that follow; prompts end at the right."""
    places = at[:, None] + torch.arange(n, device=at.device)  # (B, n)
    end = ids.shape[1] - 1
    known = places < end
    follows = ids.gather(1, (places + 1).clamp(max=end))
    layer, mid = target.writes_at
    places = places.clamp(max=end)
    added = logit_contributions(model, frozen, last, written, at, places, layer, mid=mid)
    each = influence(added, follows, known)
    return {
        "firing": each.row,
        "step": each.step,
        "token": each.token,
        "contribution": each.value,
        "z": each.z,
    }


def _on_cpu(columns: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: column.cpu().numpy() for name, column in columns.items()}
