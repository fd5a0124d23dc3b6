"""A feature's card as HTML: no script, nothing from the network, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from circuit_toolkit.arguments import expect
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.features.examples import FeatureExamples
from circuit_toolkit.sites import Site
from circuit_toolkit.views.rendering import render, token

Row = Mapping[str, Any]
_SCORES = ("clarity", "responsiveness", "purity", "faithfulness")
_WEIGHTS = {  # what the weight of an edge is, by method of the circuit
    "CircuitLasso": "regression weight, both ends in standard deviations",
    "randomised CircuitLasso over features": "mean effect of changing the source",
}
_SHARED = [  # what activating examples of a cluster have in common: title, part, its name
    ("active on", "tokens", "token"),
    ("heads read", "heads", "head"),
    ("tokens back", "offsets", "offset"),
    ("features", "upstream", "feature"),
    ("promotes", "outputs", "token"),
]


def card_html(card: FeatureCard) -> str:
    """Write a card as a piece of a page, such as a notebook's output."""
    return str(render("views/templates/card.html", **_told(card)))


def card_page(card: FeatureCard) -> str:
    """Write a card as a stand-alone page."""
    return str(render("views/templates/card_page.html", **_told(card)))


def highlighted_text_html(
    tokens: Sequence[str], values: Sequence[float] | np.ndarray, peak: float | None = None
) -> str:
    """Write a prompt as HTML whose background shows the activation of a feature.

    Parameters
    ----------
    tokens : list of str
        T tokens of one prompt, as text; escaped here.
    values : ndarray, shape (T,)
        Activation on each; positive ones are teal, negative ones orange.
    peak : float, optional
        Activation of the full colour, so that prompts can be compared; by default the largest.

    Returns
    -------
    str

    Raises
    ------
    InputError
        If there are not as many values as tokens.
    """
    if np.shape(values) != (len(tokens),):
        raise InputError(f"There are {len(tokens)} tokens, and values of shape {np.shape(values)}.")
    numbers = np.nan_to_num(np.asarray(values, float))
    peak = float(np.abs(numbers).max(initial=0)) if peak is None else peak
    shown = {"tokens": list(tokens), "values": numbers.tolist(), "peak": peak}
    return str(render("views/templates/highlighted.html", **shown))


def _told(card: FeatureCard) -> dict[str, Any]:
    """Return a card with what its template cannot work out."""
    expect(card, "card", "FeatureCard")
    lens, method = card.weight_lens or {}, str(card.settings.get("circuit") or "")
    weight = "of the circuit" + f": {_WEIGHTS.get(method, f'weight by {method}')}" * bool(method)
    alone: dict[str, float] = {}  # the strongest token of each spelling comes first
    for each in lens.get("description") or ():
        alone.setdefault(str(each["token"]).strip(), each.get("solo", 0.0))
    words = [str(word) for word in lens.get("words") or ()]
    sides = ("promoted", "suppressed")
    effects = [item for side in sides for item in (card.logits or {}).get(side, ())]
    logits = [
        row | {"cells": [token(item["token"])]}
        for row, item in zip(_rows(effects, "value"), effects, strict=True)
    ]
    split = len((card.logits or {}).get("promoted", ()))
    return {
        "card": card,
        "scores": [
            (name, value)
            for name in _SCORES
            if (value := (card.scores or {}).get(name)) is not None
        ],
        "validated": lens.get("validated", bool(words)),
        "words": _alone(words, alone, card.examples.maximum),
        "in_texts": _in_texts(set(alone), card.examples) if alone and card.examples.top else "",
        "groups": [
            ("input tokens", _tokens(lens, "tokens", "positive")),
            ("against", _tokens(lens, "tokens", "negative")),
            ("promotes", _tokens(lens, "outputs", "promoted")),
            ("suppresses", _tokens(lens, "outputs", "suppressed")),
            ("upstream", [_upstream(each) for each in lens.get("upstream") or ()]),
        ],
        "logits": list(zip(sides, (logits[:split], logits[split:]), strict=True)),
        "grouped": _grouped(card.circuit_lens or {}),
        "clusters": [_cluster(each) for each in (card.circuit_lens or {}).get("clusters") or ()],
        "neighbours": [
            (
                "Upstream features",
                "what one unit of each adds to it (virtual weight)",
                _neighbours(card.upstream),
            ),
            (
                "Downstream features",
                "what one unit of it adds to each (virtual weight)",
                _neighbours(card.downstream),
            ),
            ("Edges in", weight, _neighbours(card.edges, "in")),
            ("Edges out", weight, _neighbours(card.edges, "out")),
        ],
    }


def alike(values: Sequence[float], sign: str = "+") -> list[str]:
    """Write the numbers of a column, all with as many digits."""
    peak = max(map(abs, values), default=0)
    digits = max(0, 2 - math.floor(math.log10(peak))) if peak else 0
    return [f"{value:{sign}.{digits}f}".replace("-", "−") for value in values]


def _rows(items: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """Rows of a table with a number and a bar."""
    values = [item[key] for item in items]
    peak = max(map(abs, values), default=0)
    return [
        {"title": item.get("feature", ""), "value": value, "written": written, "peak": peak}
        | {"named": "feature" in item}
        for item, value, written in zip(items, values, alike(values), strict=True)
    ]


def _neighbours(items: Iterable[Row], way: str | None = None) -> list[dict[str, Any]]:
    items = [item for item in items if way is None or item["direction"] == way]
    return [
        row | {"cells": [_short(item["feature"]), item["label"]]}
        for row, item in zip(_rows(items, "weight"), items, strict=True)
    ]


def _short(name: str) -> str:
    """Shorten the name of a feature: `mlp_in 3/17`."""
    site, slash, index = name.rpartition("/")
    return f"{Site.parse(site).short}/{index}" if slash else name


def _alone(words: Sequence[str], alone: Row, largest: float) -> list[dict[str, str]]:
    """Words, each with the activation that it gives alone."""
    known = [word for word in words if alone.get(word)]
    said = dict(zip(known, alike([alone[word] for word in known], "-"), strict=True))
    if largest:
        said = {
            word: f"{value} · {min(1.0, alone[word] / largest):.0%}" for word, value in said.items()
        }
    return [{"text": word, "alone": said.get(word, "")} for word in words]


def _in_texts(tokens: set[str], examples: FeatureExamples) -> str:
    """Describe in how many of the strongest texts one of the tokens stands where it may count."""
    lines = [[t.strip() for t in each.tokens[: each.position + 1]] for each in examples.top]
    at = sum(line[-1] in tokens for line in lines)
    earlier = sum(not tokens.isdisjoint(line) for line in lines) - at
    if not at + earlier:
        return f"None of the {len(lines)} strongest texts has one up to its strongest token."
    more = f", and stands before that token in {earlier} more" if earlier else ""
    return f"One is the strongest token in {at} of the {len(lines)} strongest texts{more}."


def _tokens(lens: Row, group: str, side: str) -> list[dict[str, Any]]:
    """Tokens with their values; one that does not activate the feature alone is struck through."""
    found = []
    for item in (lens.get(group) or {}).get(side) or ():
        solo, title = item.get("solo"), f"contribution {item.get('contribution', 0):.3g}"
        title += "" if solo is None else f", activation alone {solo:.3g}"
        silent = solo is not None and not solo > 0
        found.append({"text": token(str(item["token"])), "title": title, "silent": silent})
    return found


def _upstream(item: Row) -> dict[str, Any]:
    words = ", ".join(spelled(str(word)) for word in item.get("words") or ())
    text = f"{Site.parse(str(item['site'])).short}/{item['index']}" + f" ({words})" * bool(words)
    title = f"contribution {item.get('contribution', 0):.3g}"
    return {"text": text, "title": title, "silent": False}


def _grouped(analysis: Row) -> str:
    """Describe how many activating examples are in clusters, and why the others are not."""
    n, least = analysis.get("n_examples") or 0, (analysis.get("settings") or {}).get("min_samples")
    if least is not None and n < least:
        return f"{n} activating examples are too few to group: a cluster takes {least}."
    empty, noise = analysis.get("n_empty"), analysis.get("n_noise")
    why = f" ({empty} without anything that stands out)" if empty else ""
    if not analysis.get("clusters"):
        return f"No cluster was found among {n} activating examples{why}."
    rest = "" if noise is None else f"{noise} of {n} activating examples in no cluster{why}. "
    return f"{rest}Percentages below are shares of a cluster's examples."


def _cluster(cluster: Row) -> dict[str, Any]:
    groups = [(title, _shares(cluster.get(part), key)) for title, part, key in _SHARED]
    ends = {"before": False, "after": False}
    examples = [ends | each for each in (cluster.get("examples") or ())[:3]]
    known = {"label": 0, "size": 0, "share": 0.0, "description": ""} | dict(cluster)
    return known | {"groups": groups, "examples": examples}


def _shares(items: Iterable[Row] | None, key: str) -> list[dict[str, Any]]:
    """List what a cluster's examples have in common, and how many of them; heads with a hint."""
    written = {
        "token": lambda name: token(str(name)),
        "feature": lambda name: _short(str(name)),
        "offset": lambda name: str(-name) if name else "0 (itself)",
        "head": str,
    }[key]
    found = []
    for item in list(items or ())[:6]:
        words = list(item.get("words") or item.get("reads") or ())[:3]
        hint = ", ".join(spelled(str(word).strip() or str(word)) for word in words)
        found.append({"text": written(item[key]), "hint": hint, "share": item.get("share", 0)})
    return found
