"""Interventions: features, heads or sites set, scaled, added to or resampled in a running model."""

from circuit_toolkit.interventions.changes import (
    Change,
    add,
    mean_ablation,
    put,
    resample,
    scale,
    zero,
)
from circuit_toolkit.interventions.generation import Generation, generate
from circuit_toolkit.interventions.runs import Outcome, intervene, intervene_each, intervened

__all__ = [
    "Change",
    "zero",
    "put",
    "add",
    "scale",
    "resample",
    "mean_ablation",
    "Outcome",
    "intervene",
    "intervene_each",
    "intervened",
    "Generation",
    "generate",
]
