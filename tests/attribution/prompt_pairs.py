"""Prompt pairs for tests: two tokens at the end of texts that the tiny model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLEAN = (
    "the boys near the cabinet",
    "when Mary and John went to the store",
    "the girls near the cabinet",
    "the boys near the store",
)
CORRUPTED = (
    "the girls near the store",
    "when John and Mary went to the cabinet",
    "the boys near the store",
    "when boys near the cabinet",
)


@dataclass(frozen=True)
class TwoTokens:
    """Logit of one token minus that of another, after texts of different lengths."""

    name: str = "two tokens"
    clean: Sequence[str] = CLEAN
    corrupted: Sequence[str] = CORRUPTED
    right: int = 7
    wrong: int = 40

    def metric_of(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Differs from prompt to prompt, so that a mixed-up number shows."""
        weights = 1 + torch.as_tensor(rows, dtype=torch.float32)
        return (logits[:, -1, self.right] - logits[:, -1, self.wrong]) * weights

    def change(self, logits: Tensor, reference: Tensor, rows: Sequence[int]) -> Tensor:
        return (self.metric_of(logits, rows) - self.metric_of(reference, rows)).abs()
