"""A feature's card as HTML: no script, nothing from the network, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.features.examples import FeatureExamples
from circuit_toolkit.sites import Site
from circuit_toolkit.views.card.markup import (
    alike,
    bar,
    feature_name,
    quiet,
    section,
    text_of,
    token_of,
)
from circuit_toolkit.views.card.texts import circuits_part, firing_part, texts_part
from circuit_toolkit.views.graph.graph_page import static

_SCORES = {
    "clarity": "clarity (surrogate)",
    "responsiveness": "responsiveness (surrogate)",
    "purity": "purity (surrogate)",
    "faithfulness": "faithfulness (surrogate)",
}
_MOST = 12  # words or tokens in a list
_LABEL = (
    "A name in brackets is by the words on which a feature fires, … that they carry less than half "
    "of its activation. In a … b ⇒ c, it fires on b in prompts with a, and promotes c."
)
_WEIGHTS = {  # what the weight of an edge is, by method of the circuit
    "CircuitLasso": "regression weight, both ends in standard deviations",
    "randomised CircuitLasso over features": "mean effect of changing the source",
}


def card_page(card: FeatureCard) -> str:
    """Write a card as a stand-alone page."""
    title = html.escape(card.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f'<body style="margin:16px;background:#eef1f4">{card_html(card)}</body></html>'
    )


def card_html(card: FeatureCard) -> str:
    """Write a card as a piece of a page, such as a notebook's output."""
    method = str(card.settings.get("circuit") or "")
    weight = "of the circuit" + f": {_WEIGHTS.get(method, f'weight by {method}')}" * bool(method)
    parts = [
        _head(card),
        _scores(card.scores),
        _weight_lens(card.weight_lens, card.examples),
        '<div class="ct-columns">',
        firing_part(card.examples),
        _logits(card.logits),
        "</div>",
        texts_part(card.examples),
        circuits_part(card.circuit_lens, card.examples.maximum),
        '<div class="ct-columns">',
        _neighbours(
            "Reads from", "what one unit of each adds to it (virtual weight)", card.upstream
        ),
        _neighbours("Feeds", "what one unit of it adds to each (virtual weight)", card.downstream),
        _neighbours("Edges in", weight, _directed(card.edges, "in")),
        _neighbours("Edges out", weight, _directed(card.edges, "out")),
        "</div>",
    ]
    return f'<div class="ct-fc"><style>{static("card.css")}</style>{"".join(parts)}</div>'


def _head(card: FeatureCard) -> str:
    site = card.examples.site
    label = f'<h3 title="{_LABEL}">{text_of(card.label)}</h3>' if card.label else ""
    facts = [f"{card.kind} feature {card.examples.feature} at {site.short}"]
    if card.settings.get("model"):
        facts.append(str(card.settings["model"]))
    said = text_of(" · ".join(facts))
    return f"<header>{label}<code>{text_of(card.name)}</code><p>{said}</p></header>"


def _scores(scores: Mapping[str, Any] | None) -> str:
    """Bars from 0 to 1."""
    rows = []
    for key, name in _SCORES.items():
        value = (scores or {}).get(key)
        if value is None:
            continue
        width = 100 * max(0.0, min(1.0, value))
        rows.append(
            f'<span class="ct-score"><b>{value:.2f}</b> {name}'
            f'<i><i style="width:{width:.0f}%"></i></i></span>'
        )
    return f'<section class="ct-scores">{"".join(rows)}</section>' if rows else ""


def _weight_lens(lens: Mapping[str, Any] | None, examples: FeatureExamples) -> str:
    """Return what weights say: the words, then the tokens and features that they come from."""
    if not lens:
        return ""
    said = _words(lens, examples)
    concept = f"<p>{text_of(str(lens['concept']))}</p>" if lens.get("concept") else ""
    groups = [
        ("input tokens", [_token(t) for t in _part(lens, "tokens", "positive")]),
        ("against", [_token(t) for t in _part(lens, "tokens", "negative")]),
        ("promotes", [_token(t) for t in _part(lens, "outputs", "promoted")]),
        ("suppresses", [_token(t) for t in _part(lens, "outputs", "suppressed")]),
        ("upstream", [_upstream(each) for each in lens.get("upstream") or ()]),
    ]
    table = "".join(
        f"<tr><th>{name}</th><td>{_first(items)}</td></tr>" for name, items in groups if items
    )
    return section("By weights alone", "WeightLens", f"{said}{concept}<table>{table}</table>")


def _words(lens: Mapping[str, Any], examples: FeatureExamples) -> str:
    """Return the words, what each does alone, and how many of the strongest texts hold one."""
    words = [str(word) for word in lens.get("words") or ()]
    if not lens.get("validated", bool(words)):
        return quiet("Its weights single out no token that switches it on alone.")
    alone: dict[str, float] = {}  # the strongest token of each spelling comes first
    for each in lens.get("description") or ():
        alone.setdefault(str(each["token"]).strip(), each.get("solo", 0.0))
    largest = examples.maximum
    known = [(word, alone[word]) for word in words if alone.get(word)]
    strength = dict(
        zip([word for word, _ in known], alike([v for _, v in known], "-"), strict=True)
    )
    chips = []
    for word in words:
        value = strength.get(word, "")
        if value and largest:
            value += f" · {min(1.0, alone[word] / largest):.0%}"
        more = f" <small>{value}</small>" if value else ""
        chips.append(f'<span class="ct-word">{token_of(word)}{more}</span>')
    said = f"<p>{_first(chips)}</p>"
    if strength:
        share = f", and share of its largest on these texts ({largest:.3g})" if largest else ""
        said = quiet(f"Each of these switches it on alone: its activation then{share}.") + said
    return said + (quiet(_in_texts(set(alone), examples)) if alone and examples.top else "")


def _in_texts(tokens: set[str], examples: FeatureExamples) -> str:
    """Describe in how many of the strongest texts one of the tokens stands where it may count."""
    lines = [[t.strip() for t in each.tokens[: each.position + 1]] for each in examples.top]
    at = sum(line[-1] in tokens for line in lines)
    earlier = sum(not tokens.isdisjoint(line) for line in lines) - at
    if not at + earlier:
        return f"None of the {len(lines)} strongest texts has one before or where it fires most."
    more = f", and stands before that token in {earlier} more" if earlier else ""
    return f"One is the strongest token in {at} of the {len(lines)} strongest texts{more}."


def _part(lens: Mapping[str, Any], group: str, side: str) -> Sequence[Mapping[str, Any]]:
    return (lens.get(group) or {}).get(side) or ()


def _token(item: Mapping[str, Any]) -> str:
    """Write a token with its value; one that does not fire the feature alone is struck through."""
    title = f"contribution {item.get('contribution', 0):.3g}"
    solo = item.get("solo")
    silent = solo is not None and not solo > 0
    if solo is not None:
        title += f", activation alone {solo:.3g}"
    kind = "ct-token ct-silent" if silent else "ct-token"
    return f'<span class="{kind}" title="{text_of(title)}">{token_of(str(item["token"]))}</span>'


def _upstream(item: Mapping[str, Any]) -> str:
    site = Site.parse(str(item["site"]))
    words = ", ".join(spelled(str(word)) for word in item.get("words") or ())
    title = f"contribution {item.get('contribution', 0):.3g}"
    named = f"{site.short}/{item['index']}" + (f" ({words})" if words else "")
    return f'<span class="ct-token" title="{text_of(title)}">{text_of(named)}</span>'


def _first(items: Sequence[str]) -> str:
    """Join what is shown of a list, and say how much is not."""
    more = f' <span class="ct-quiet">and {len(items) - _MOST} more</span>' if items[_MOST:] else ""
    return " ".join(items[:_MOST]) + more


def _logits(logits: Mapping[str, Any] | None) -> str:
    if not logits:
        return ""
    sides = ("promoted", "suppressed")
    values = [item["value"] for side in sides for item in logits[side]]
    written, peak = iter(alike(values)), max(map(abs, values), default=0)
    columns = []
    for side in sides:
        rows = "".join(
            f"<tr><td>{token_of(item['token'])}</td>{bar(item['value'], next(written), peak)}</tr>"
            for item in logits[side]
        )
        columns.append(f'<div><h5>{side}</h5><table class="ct-values">{rows}</table></div>')
    body = f'<div class="ct-columns">{"".join(columns)}</div>'
    return section("Next tokens", "what one unit of it adds to logits directly", body)


def _directed(edges: Sequence[Mapping[str, Any]], way: str) -> list[Mapping[str, Any]]:
    return [edge for edge in edges if edge["direction"] == way]


def _neighbours(title: str, note: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return ""
    values = [item["weight"] for item in items]
    peak = max(map(abs, values))
    rows = "".join(
        f'<tr title="{text_of(item["feature"])}">'
        f'<td class="ct-name">{text_of(feature_name(item["feature"]))}</td>'
        f"<td>{text_of(item['label'])}</td>{bar(item['weight'], written, peak)}</tr>"
        for item, written in zip(items, alike(values), strict=True)
    )
    return section(title, note, f'<table class="ct-values">{rows}</table>')
