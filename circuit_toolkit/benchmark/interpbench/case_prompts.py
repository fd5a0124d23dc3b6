"""The prompts of a known circuit, and the numbers that are read off the logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

CaseMetric = Literal["loss", "difference"]


@dataclass(frozen=True, eq=False)
class CasePrompts:
    """Prompts of a known circuit, clean and corrupted, as a `PromptPairs`."""

    name: str
    clean: tuple[tuple[int, ...], ...]
    corrupted: tuple[tuple[int, ...], ...]
    labels: Tensor
    other_labels: Tensor
    first: int
    last: int
    form: CaseMetric = "loss"

    def __repr__(self) -> str:
        """Name and size; not the prompts."""
        return f"CasePrompts({self.name!r}, {len(self.clean)} prompts, {self.form})"

    @property
    def numerical(self) -> bool:
        """Whether the model puts out a value, in place of classes."""
        return self.labels.is_floating_point()

    def _scored(self, x: Tensor) -> Tensor:
        """Keep the scored positions: (B, T, ...) -> (B, P, ...)."""
        return x[:, self.first : self.last + 1]

    def metric_of(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Return how well the model does on clean prompts."""
        which = torch.as_tensor(rows)
        logits = self._scored(logits)
        labels = self._scored(self.labels)[which].to(logits.device)  # (B, P)
        others = self._scored(self.other_labels)[which].to(logits.device)
        if self.numerical:
            value = logits[..., 0]
            is_loss = self.form == "loss"
            scored = -(value - labels).abs() if is_loss else value * (labels - others).sign()
        elif self.form == "loss":
            scored = -cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        else:
            right = logits.gather(2, labels[..., None])
            scored = (right - logits.gather(2, others[..., None]))[..., 0]
        return scored.mean(1)

    def change(self, logits: Tensor, reference: Tensor, rows: Sequence[int]) -> Tensor:
        """Return how far outputs are from reference outputs."""
        new, old = self._scored(logits), self._scored(reference)
        if self.numerical:
            return (new - old)[..., 0].abs().mean(1)
        return (new.softmax(-1) - old.softmax(-1)).abs().sum(-1).mean(1)

    def correct(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Return the share of scored positions that are right."""
        logits, labels = self._scored(logits), self._scored(self.labels)[torch.as_tensor(rows)]
        if self.numerical:
            return ((logits[..., 0] - labels).abs() < 0.05).float().mean(1)
        return (logits.argmax(-1) == labels).float().mean(1)

    def with_metric(self, form: CaseMetric) -> CasePrompts:
        """Return the same prompts with another metric."""
        return replace(self, form=form)
