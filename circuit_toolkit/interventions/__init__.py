"""Interventions: features, heads or sites set, scaled, added to or resampled in a running model."""

from circuit_toolkit.interventions.changes import Change, change, mean_ablation, zero
from circuit_toolkit.interventions.generation import Generation, generate
from circuit_toolkit.interventions.runs import (
    Outcome,
    intervene,
    intervene_each,
    intervened,
)

__all__ = [
    "Change",
    "Generation",
    "Outcome",
    "change",
    "generate",
    "intervene",
    "intervene_each",
    "intervened",
    "mean_ablation",
    "zero",
]
