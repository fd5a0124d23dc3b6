"""The sliders of the panel of features: what each moves, how far, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ipywidgets as w

from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.circuit_lens.settings import FLOOR

WRAP = {"flex_flow": "row wrap"}


class Range(NamedTuple):
    """What a slider says, and how far it goes; further if the value in force lies beyond."""

    text: str
    least: float
    most: float
    step: float
    means: str


FIRINGS = {
    "theta_head": Range(
        "Heads z >",
        FLOOR,
        10,
        0.1,
        "A head, reading a token, counts for a firing if its contribution is so many standard "
        "deviations above the mean of all heads and tokens of its layer.",
    ),
    "theta_feature": Range(
        "Features z >",
        FLOOR,
        8,
        0.1,
        "An earlier feature counts for a firing if its contribution is so many standard "
        "deviations above the mean of the active features of its layer.",
    ),
    "theta_output": Range(
        "Outputs z >",
        0,
        8,
        0.1,
        "A token that follows counts as promoted if the feature adds to its logit so many "
        "standard deviations more than to the mean token.",
    ),
}
CLUSTERS = {
    "eps": Range(
        "Distance ≤",
        0,
        1,
        0.05,
        "Two firings are neighbours if the sets of heads and features that count for them are at "
        "most so far apart: Jaccard distance, 0 for equal sets, 1 for sets that share nothing.",
    ),
    "min_samples": Range(
        "Least firings",
        1,
        12,
        1,
        "A cluster forms around a firing that has so many neighbours, itself included.",
    ),
    "rho": Range(
        "Least share",
        0,
        0.5,
        0.01,
        "Heads and features that count for a smaller share of the firings than this are dropped.",
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
            "A token stands out for a feature if its embedding feeds it so many standard "
            "deviations more than the mean of the tokens that are compared.",
        ),
        "theta_feature": (
            "Features z >",
            "A feature inherits the tokens of an earlier one that feeds it so many standard "
            "deviations more than the mean of the features that are compared.",
        ),
    }
    return {
        name: slider(Range(text, floors[name], floors[name] + 8, 0.1, means), settings[name])
        for name, (text, means) in texts.items()
    }


def slider(span: Range, value: float) -> Any:
    """Make a slider whose ends include its value: it never shows another than the one in force."""
    kind = w.IntSlider if isinstance(span.least, int) and span.step == 1 else w.FloatSlider
    return kind(
        value=value,
        min=min(span.least, value),
        max=max(span.most, value),
        step=span.step,
        description=span.text,
        tooltip=span.means,
        continuous_update=False,
        style={"description_width": "88px"},
        layout={"flex": "0 0 auto", "width": "272px"},
    )


def row(title: str, sliders: Mapping[str, Any]) -> w.HBox:
    """Put sliders side by side behind a title, or below each other where it is narrow."""
    label = w.HTML(f"<b>{title}</b>", layout={"flex": "0 0 60px"})
    return w.HBox([label, w.HBox(list(sliders.values()), layout={"flex": "1 1 0%", **WRAP})])


def taken_apart(found: Mapping[str, Any]) -> str:
    """Describe in a sentence what clusters there are, and why there are none."""
    n, clusters = found["n_examples"], len(found["clusters"])
    noise, empty = found["n_noise"], found["n_empty"]
    least = found["settings"]["min_samples"]
    firings = "1 firing" if n == 1 else f"{n} firings"
    if n < least:
        return (
            f"Only <b>{firings}</b>, fewer than the {least} that make a cluster: "
            "pass more texts on which it fires, or take fewer."
        )
    if empty == n:
        return (
            f"<b>No cluster:</b> nothing stands out often enough in any of {firings}. Lower "
            "thresholds of z may help."
        )
    if not clusters:
        rest = f"in {empty} nothing stands out, the others are" if empty else "they are"
        return (
            f"<b>No cluster:</b> {n} of {n} firings in none; {rest} too unlike at these settings. "
            "A larger distance or fewer least firings may help."
        )
    made = "1 cluster" if clusters == 1 else f"{clusters} clusters"
    rest = f"{noise} of {n} in no cluster" + (f", in {empty} nothing stands out" if empty else "")
    return f"<b>{made}</b> of {firings}, see the card; {rest}."
