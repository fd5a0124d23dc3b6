"""Scores of the heads of a task in several ways, each made when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import expect_known
from circuit_toolkit.attribution.heads import ATTRIBUTION, TOWARDS, best_score, head_scores
from circuit_toolkit.benchmark.heads.comparison import OURS, UNTRAINED, head_agreement, lead_ways
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import head_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes import HeadCodes, HeadCodesFit
from circuit_toolkit.models import Model
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.task import trained_on


class Way(NamedTuple):
    """A way to score heads: its name in the menu, and the unit of its map."""

    title: str
    unit: str


WAYS = {
    TOWARDS: Way("Change towards the answer", "share of its output"),
    ATTRIBUTION: Way("Attribution patching", "effect on the metric"),
    OURS: Way("Head codes (published method)", "change of the codes"),
    UNTRAINED: Way("Codes of an untrained autoencoder", "change of the codes"),
}


class ScoredHeads:
    """Scores (S, L, H) of all heads by way; what is not in `scores` was not made yet."""

    def __init__(self, model: Model, task: Task, codes: HeadCodes) -> None:
        self.model, self.task, self.codes = model, task, codes
        self.scores: dict[str, np.ndarray] = {}
        self._fits: dict[str, HeadCodesFit] = {}
        gradients = task.metric is not None and best_score(model) == ATTRIBUTION
        self.ways = [way for way in WAYS if gradients or way != ATTRIBUTION]
        try:
            self.of(TOWARDS)
        except InputError:  # the unembedding does not read the stream, or there is no metric
            self.ways.remove(TOWARDS)

    @property
    def fit(self) -> HeadCodesFit | None:
        """The head codes, once they are trained."""
        return self._fits.get(OURS)

    def of(self, way: str) -> np.ndarray:
        """Return scores, (S, L, H); they are made if they were not yet."""
        expect_known(way, self.ways, f"Heads of this task and model are not scored by {way!r}")
        if way not in self.scores:
            made = self._made(way)
            self.scores[way] = made if made.ndim == 3 else made[None]
        return self.scores[way]

    def _made(self, way: str) -> Any:
        if way in (TOWARDS, ATTRIBUTION):
            return head_scores(self.model, self.task, way, progress=False)
        return self._coded(self.codes, self._fits)[way]()

    def _coded(self, codes: HeadCodes, fits: dict[str, HeadCodesFit]) -> Any:
        return lead_ways(self.model, self.task, codes, self._acts, fits, gradients=False)

    @cached_property
    def _acts(self) -> Activations:
        where = self.codes.positions_of(self.task)
        return capture(self.model, "head_out", self.task, where, progress=False)

    def retrain(self, codes: HeadCodes) -> None:
        """Train head codes with other settings; where that fails nothing is changed."""
        fits: dict[str, HeadCodesFit] = {}
        self.scores[OURS] = self._coded(codes, fits)[OURS]()
        self.scores.pop(UNTRAINED, None)
        self.codes, self._fits = codes, fits

    def circuit(self, way: str, threshold: float) -> Circuit:
        """Return the heads whose score is at least a share of the highest; no model runs."""
        if way == OURS:
            return self._fits[OURS].predict(threshold)
        settings = {
            "method": f"heads by {way}",
            "model": self.model.name,
            "task": self.task.name,
            "target": self.task.metric,
            "n_prompts": len(self.task),
            "trained_on": self._trained_on,
        }
        return head_circuit(self.scores[way].mean(0), settings, threshold)

    @cached_property
    def _trained_on(self) -> dict[str, Any] | None:
        return trained_on(self.task)

    def ranks(self, way: str, heads: Sequence[tuple[int, int]]) -> list[tuple[float, int]]:
        """Return the score of each of some heads, and its rank."""
        mean = self.scores[way].mean(0)
        return [(float(mean[at]), 1 + int((mean > mean[at]).sum())) for at in heads]

    def against(self, truth: np.ndarray) -> list[tuple[str, str, str]]:
        """Hold what was scored against heads that are known, and against chance."""
        rows = []
        for way, each in self.scores.items():
            found = head_agreement(each, truth)
            rows.append((WAYS[way].title, f"{found['node_auc']:.2f}", f"{found['node_ap']:.2f}"))
        return [*rows, ("Chance", "0.50", f"{truth.mean():.2f}")]
