"""The sliders of the panel of features: what each moves, how far, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ipywidgets as w

from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.circuit_lens.settings import FLOOR
from circuit_toolkit.panels.panel import control


class Range(NamedTuple):
    """What a slider says, and how far it goes; further if the value in force lies beyond."""

    text: str
    span: tuple[float, float, float]  # least, most, step
    means: str


EXAMPLES = {
    "theta_head": Range(
        "Heads z >",
        (FLOOR, 10, 0.1),
        "A head, reading a token, counts for an activating example if its contribution is so many "
        "standard deviations above the mean of all heads and tokens of its layer.",
    ),
    "theta_feature": Range(
        "Features z >",
        (FLOOR, 8, 0.1),
        "An earlier feature counts for an activating example if its contribution is so many "
        "standard deviations above the mean of the active features of its layer.",
    ),
    "theta_output": Range(
        "Outputs z >",
        (0, 8, 0.1),
        "A token that follows counts as promoted if the feature adds to its logit so many "
        "standard deviations more than to the mean token.",
    ),
}
CLUSTERS = {
    "eps": Range(
        "Distance ≤",
        (0, 1, 0.05),
        "Two activating examples are neighbours if the sets of heads and features that count for "
        "them are at most so far apart: Jaccard distance, 0 for equal sets, 1 for disjoint ones.",
    ),
    "min_samples": Range(
        "Smallest cluster",
        (1, 12, 1),
        "A cluster forms around an activating example that has so many neighbours, itself "
        "included.",
    ),
    "rho": Range(
        "Least share",
        (0, 0.5, 0.01),
        "Heads and features that count for a smaller share of the examples than this are dropped.",
    ),
}


def circuit_sliders(lens: CircuitLens, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Make sliders of settings that `FeatureCircuits.at` takes without a run."""
    return {name: slider(each, getattr(lens, name)) for name, each in ranges.items()}


def word_sliders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make sliders of the thresholds that `FeatureDescriptions.at` takes."""
    floors = settings["floors"]
    texts = {
        "theta_token": (
            "Tokens z >",
            "A token stands out for a feature if its embedding activates it so many "
            "standard deviations more than the mean of the tokens that are compared.",
        ),
        "theta_feature": (
            "Features z >",
            "A feature inherits the tokens of an earlier one that activates it so many standard "
            "deviations more than the mean of the features that are compared.",
        ),
    }
    return {
        name: slider(Range(text, (floors[name], floors[name] + 8, 0.1), means), settings[name])
        for name, (text, means) in texts.items()
    }


def slider(given: Range, value: float) -> Any:
    """Make a slider whose ends include its value: it never shows another than the one in force."""
    least, most, step = given.span
    kind = w.IntSlider if isinstance(least, int) and step == 1 else w.FloatSlider
    ends: dict[str, Any] = {
        "value": value,
        "min": min(least, value),
        "max": max(most, value),
        "step": step,
    }
    made = control(kind, given.text, label="108px", width="292px", tooltip=given.means, **ends)
    made.continuous_update, made.layout.flex = False, "0 0 auto"
    return made
