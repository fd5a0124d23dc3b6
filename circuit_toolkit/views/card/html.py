"""A feature's card as HTML: no script, nothing from the network, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from circuit_toolkit.arguments import expect
from circuit_toolkit.dictionaries.neuronpedia import SITE
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.features.examples import FeatureExamples
from circuit_toolkit.views.rendering import render

Row = Mapping[str, Any]
_WEIGHTS = {  # what the weight of an edge is, by method of the circuit
    "CircuitLasso": "regression weight, both ends in standard deviations",
    "randomised CircuitLasso over features": "mean effect of changing the source",
}


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
    edges = ([each for each in card.edges if each["direction"] == way] for way in ("in", "out"))
    alone: dict[str, float] = {}  # the strongest token of each spelling comes first
    for each in lens.get("description") or ():
        alone.setdefault(str(each["token"]).strip(), each.get("solo", 0.0))
    words = [str(word) for word in lens.get("words") or ()]
    sides = ("promoted", "suppressed")
    effects = [item for side in sides for item in (card.logits or {}).get(side, ())]
    logits = _rows(effects, "value")
    split = len((card.logits or {}).get("promoted", ()))
    page = card.settings.get("neuronpedia")
    return {
        "card": card,
        "neuronpedia": page if str(page).startswith(f"{SITE}/") else None,
        "validated": lens.get("validated", bool(words)),
        "words": _alone(words, alone, card.examples.maximum),
        "in_texts": _in_texts(set(alone), card.examples) if alone and card.examples.top else "",
        "logits": list(zip(sides, (logits[:split], logits[split:]), strict=True)),
        "weight": weight,
        "neighbours": [
            _rows(items, "weight") for items in (card.upstream, card.downstream, *edges)
        ],
    }


def alike(values: Sequence[float], sign: str = "+") -> list[str]:
    """Write the numbers of a column, all with as many digits."""
    peak = max(map(abs, values), default=0)
    digits = max(0, 2 - math.floor(math.log10(peak))) if peak else 0
    return [f"{value:{sign}.{digits}f}".replace("-", "−") for value in values]


def _rows(items: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """Return items with their numbers as written, and the largest, for bars."""
    values = [item[key] for item in items]
    peak = max(map(abs, values), default=0)
    return [
        {**item, "value": value, "written": written, "peak": peak}
        for item, value, written in zip(items, values, alike(values), strict=True)
    ]


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
