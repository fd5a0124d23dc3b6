"""What a graph explains: logits of tokens, or directions of the unembedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.arguments import described, number
from circuit_toolkit.attribution.frozen.sums import Reading
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.models.logits import plain_logits
from circuit_toolkit.models.weights import factor_of, norm_gain, norm_weight
from circuit_toolkit.tasks import Task

SHARE, MOST = 0.95, 10  # of probability that the logits of a graph reach, and how many at most


@dataclass(frozen=True, eq=False)
class Target:
    """A weighted sum of logits: of one token, or of several."""

    label: str
    tokens: list[int]
    factors: list[float]

    @property
    def is_token(self) -> bool:
        """Whether it is the logit of one token."""
        return len(self.tokens) == 1 and self.factors == [1.0]

    @property
    def index(self) -> int:
        """Number of the token in the vocabulary; 0 of a direction."""
        return self.tokens[0] if self.is_token else 0


Targets = str | int | Mapping[Any, float] | Sequence[Any] | None


def as_targets(model: Model, given: Targets, logits: Tensor) -> list[Target]:
    """Return the targets that were asked for; by default the likeliest tokens, of (V,) logits."""
    if given is None:
        p, tokens = logits.softmax(0).topk(min(MOST, len(logits)))
        n = int((p.cumsum(0) < SHARE).sum()) + 1
        return [_token(model, token) for token in tokens[:n].tolist()]
    several = isinstance(given, Sequence) and not isinstance(given, str)
    asked: Any = given if several else [given]
    found = [_target(model, each) for each in asked]
    names = [each.label for each in found]
    if not found or len({*names}) < len(names):
        raise InputError(
            f"targets must be different tokens or directions, at least one: got {given!r:.80}."
        )
    return found


def _target(model: Model, given: Any) -> Target:
    if isinstance(given, Target):
        return given
    if isinstance(given, Mapping) and given:
        parts = [
            (_token(model, each), number(factor, f"targets[{each!r}]", -1e6, 1e6))
            for each, factor in given.items()
        ]
        label = ""
        for part, factor in parts:
            size = "" if abs(factor) == 1 else f"{abs(factor):g} "
            sign = ("- " if factor < 0 else "+ ") if label else "-" * (factor < 0)
            label += f"{' ' * bool(label)}{sign}{size}logit({part.label})"
        return Target(label, [part.tokens[0] for part, _ in parts], [each for _, each in parts])
    return _token(model, given)


def _token(model: Model, given: Any) -> Target:
    size = model.d_vocab
    if isinstance(given, str):
        token = model.token_id(given)
    elif isinstance(given, int) and not isinstance(given, bool) and 0 <= given < size:
        token = given
    else:
        raise InputError(
            f"A target is a token (a text, or a number from 0 to {size - 1}), a list of them, or "
            f"a direction such as {{' Mary': 1, ' John': -1}}: got {described(given)}."
        )
    said = model.word(token)
    return Target(said.strip() or repr(said), [token], [1.0])


def metric_target(model: Model, task: Task, row: int, logits: Tensor) -> Target:
    """Return the metric of a prompt as a direction: its gradient at logits (V,)."""
    factors = task.metric_gradient(logits[None], [row])[0]
    tokens = factors.nonzero()[:, 0].tolist()
    right, wrong = (groups[row] for groups in (task.answers, task.wrong))
    label = str(task.metric).replace("_", " ")
    if task.metric == "logit_difference" and len(right) == len(wrong) == 1:
        label = "logit({}) - logit({})".format(
            *(_token(model, each[0]).label for each in (right, wrong))
        )
    return Target(label, tokens, factors[tokens].tolist())


def weights_of(targets: Sequence[Target], logits: Tensor) -> list[float]:
    """Return what each target counts: a token its probability, a direction 1."""
    p = logits.softmax(0)
    return [float(p[each.tokens[0]]) if each.is_token else 1.0 for each in targets]


def values_of(model: Model, targets: Sequence[Target], logits: Tensor) -> Tensor:
    """Return the value of each target (n,): logits without their cap and their mean."""
    plain = plain_logits(model, logits)
    return torch.stack([_summed(plain, each) for each in targets])


def _summed(x: Tensor, target: Target) -> Tensor:
    """Sum rows of tokens (V, ...) by their factors, in float32 at least."""
    rows = x[target.tokens]
    rows = rows if rows.dtype == torch.float64 else rows.float()
    factors = torch.tensor(target.factors, dtype=rows.dtype, device=rows.device)
    return torch.einsum("t,t...->...", factors, rows)


def target_reading(model: Model, targets: Sequence[Target], last: Tensor, at: int) -> Reading:
    """Return what targets read of the last stream, (1, T, D), at a token."""
    row = model.architecture
    head: Any = model.hf.get_output_embeddings()
    norm = model.hf.get_submodule(row.final_norm)
    matrix = head.weight.detach()
    mean = matrix.mean(0, dtype=torch.float32)
    rows = torch.stack([_summed(matrix, each) - sum(each.factors) * mean for each in targets])
    rows = rows.to(model.device)
    weight, bias = norm_weight(norm, row)
    constant = torch.zeros_like(rows[:, 0]) if bias is None else rows @ bias.to(rows)
    if getattr(head, "bias", None) is not None:
        of_logits = head.bias.detach().to(rows)
        constant = constant + torch.stack(
            [_summed(of_logits, each) - sum(each.factors) * of_logits.mean() for each in targets]
        )
    divisor = factor_of(model, row.logit_divisor)
    rows, constant = rows * weight.to(rows) / divisor, constant / divisor
    if row.layer_norm:
        rows = rows - rows.mean(1, keepdim=True)
    rows = rows * norm_gain(last[0, at], norm, row)
    where = torch.full((len(targets),), at, device=rows.device)
    return Reading(rows, where, model.n_layers, constant=constant)
