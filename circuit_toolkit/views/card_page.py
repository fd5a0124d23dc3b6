"""A feature's card as HTML: no script, nothing from the network, every text escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuit_toolkit.interpret.examples import Example, FeatureExamples
from circuit_toolkit.interpret.feature_card import FeatureCard
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph_page import static
from circuit_toolkit.views.scene import NEGATIVE, POSITIVE

_SCORES = {
    "clarity": "clarity (surrogate)",
    "responsiveness": "responsiveness (surrogate)",
    "purity": "purity (surrogate)",
    "faithfulness": "faithfulness (surrogate)",
}


def card_page(card: FeatureCard) -> str:
    """Write a card as a stand-alone page.

    Parameters
    ----------
    card : FeatureCard

    Returns
    -------
    str
    """
    title = html.escape(card.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
        f'<body style="margin:16px;background:#eef1f4">{card_html(card)}</body></html>'
    )


def card_html(card: FeatureCard) -> str:
    """Write a card as a piece of a page, such as a notebook's output.

    Parameters
    ----------
    card : FeatureCard

    Returns
    -------
    str
        With its own colours, so that it reads alike on light and dark pages.
    """
    parts = [
        _head(card),
        _scores(card.scores),
        _weight_lens(card.weight_lens),
        '<div class="ct-columns">',
        _firing(card.examples),
        _logits(card.logits),
        "</div>",
        _texts(card.examples),
        _circuit_lens(card.circuit_lens),
        '<div class="ct-columns">',
        _neighbours("Reads from", "features that feed it, by virtual weight", card.upstream),
        _neighbours("Feeds", "features that it feeds, by virtual weight", card.downstream),
        _neighbours("Edges in", "of the circuit", _directed(card.edges, "in")),
        _neighbours("Edges out", "of the circuit", _directed(card.edges, "out")),
        "</div>",
    ]
    return f'<div class="ct-fc"><style>{static("card.css")}</style>{"".join(parts)}</div>'


def _head(card: FeatureCard) -> str:
    site = card.examples.site
    label = f"<h3>{_text(card.label)}</h3>" if card.label else ""
    facts = [f"{card.kind} feature {card.examples.feature} at {site.short}"]
    if card.settings.get("model"):
        facts.append(str(card.settings["model"]))
    said = _text(" · ".join(facts))
    return f"<header>{label}<code>{_text(card.name)}</code><p>{said}</p></header>"


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


def _weight_lens(lens: Mapping[str, Any] | None) -> str:
    """Say what weights say: the words, then the tokens and features that they come from."""
    if not lens:
        return ""
    words = [str(word) for word in lens.get("words") or ()]
    said = "".join(f'<span class="ct-word">{_text(word)}</span>' for word in words)
    if not lens.get("validated", bool(words)):
        said = '<span class="ct-quiet">no token that validates it</span>' + said
    concept = f"<p>{_text(str(lens['concept']))}</p>" if lens.get("concept") else ""
    groups = [
        ("input tokens", [_token(t, "contribution") for t in _part(lens, "tokens", "positive")]),
        ("against", [_token(t, "contribution") for t in _part(lens, "tokens", "negative")]),
        ("promotes", [_token(t, "contribution") for t in _part(lens, "outputs", "promoted")]),
        ("suppresses", [_token(t, "contribution") for t in _part(lens, "outputs", "suppressed")]),
        ("upstream", [_upstream(each) for each in lens.get("upstream") or ()]),
    ]
    table = "".join(
        f"<tr><th>{name}</th><td>{' '.join(items[:12])}{_more(items, 12)}</td></tr>"
        for name, items in groups
        if items
    )
    body = f"<p>{said}</p>{concept}<table>{table}</table>"
    return _section("By weights alone", "WeightLens", body)


def _part(lens: Mapping[str, Any], group: str, side: str) -> Sequence[Mapping[str, Any]]:
    return (lens.get(group) or {}).get(side) or ()


def _token(item: Mapping[str, Any], key: str) -> str:
    """Write a token with its value; one that does not fire the feature alone is struck through."""
    title = f"{key} {item.get(key, 0):.3g}"
    solo = item.get("solo")
    silent = solo is not None and not solo > 0
    if solo is not None:
        title += f", activation alone {solo:.3g}"
    kind = "ct-token ct-silent" if silent else "ct-token"
    return f'<span class="{kind}" title="{_text(title)}">{_shown(str(item["token"]))}</span>'


def _upstream(item: Mapping[str, Any]) -> str:
    site = Site.parse(str(item["site"]))
    words = ", ".join(str(word) for word in item.get("words") or ())
    title = f"contribution {item.get('contribution', 0):.3g}"
    named = f"{site.short}/{item['index']}" + (f" ({words})" if words else "")
    return f'<span class="ct-token" title="{_text(title)}">{_text(named)}</span>'


def _firing(examples: FeatureExamples) -> str:
    facts = (
        f"{examples.density:.2%} of {examples.n_tokens:,} tokens, "
        f"{examples.prompt_density:.1%} of {examples.n_prompts:,} prompts, "
        f"at most {examples.maximum:.3g}"
    )
    return _section("Where it fires", "", f"<p>{facts}</p>{_histogram(examples)}")


def _histogram(examples: FeatureExamples) -> str:
    """Bars of equal width; the range is written below."""
    if not examples.maximum:
        return '<p class="ct-quiet">It does not fire on these prompts.</p>'
    width, height, peak, bins = 380, 84, max(examples.counts), len(examples.counts)
    step = width / bins
    bars = []
    for number, count in enumerate(examples.counts):
        tall = (height - 2) * count / peak
        low, high = examples.edges[number : number + 2]
        bars.append(
            f'<rect x="{number * step + 0.5:.1f}" y="{height - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}" fill="#21918c"><title>{low:.3g} to {high:.3g}: {count}</title>'
            "</rect>"
        )
    axis = (
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="#9aa5b1"/>'
        f'<text x="0" y="{height + 13}">0</text>'
        f'<text x="{width}" y="{height + 13}" text-anchor="end">{examples.maximum:.3g}</text>'
        f'<text x="{width / 2}" y="{height + 13}" text-anchor="middle">activation above zero</text>'
    )
    return (
        f'<svg viewBox="0 0 {width} {height + 18}" role="img" aria-label="histogram">'
        f"{''.join(bars)}{axis}</svg>"
    )


def _logits(logits: Mapping[str, Any] | None) -> str:
    if not logits:
        return ""
    columns = []
    for key in ("promoted", "suppressed"):
        peak = max((abs(item["value"]) for item in logits[key]), default=0)
        rows = "".join(
            f"<tr><td>{_shown(item['token'])}</td>{_bar(item['value'], peak)}</tr>"
            for item in logits[key]
        )
        columns.append(f"<div><h5>{key}</h5><table>{rows}</table></div>")
    body = f'<div class="ct-columns">{"".join(columns)}</div>'
    return _section("Next tokens", "direct effect on logits", body)


def _bar(value: float, peak: float) -> str:
    """Two cells: a number with its sign, and a bar."""
    width, colour = 100 * abs(value) / (peak or 1), POSITIVE if value > 0 else NEGATIVE
    return (
        f'<td class="ct-value">{value:+.3g}</td><td class="ct-bar">'
        f'<i style="width:{width:.0f}%;background:{colour}"></i></td>'
    )


def _texts(examples: FeatureExamples) -> str:
    if not examples.top:
        return ""
    top = "".join(_example(each, examples.maximum) for each in examples.top)
    bands = "".join(
        f"<h5>quarter {number}: maxima {low:.3g} to {high:.3g}</h5>"
        + "".join(_example(each, examples.maximum) for each in shown)
        for number, (low, high, shown) in reversed(list(enumerate(examples.quantiles, start=1)))
    )
    if bands:
        top += f"<details><summary>typical texts, by quarter</summary>{bands}</details>"
    return _section("Strongest texts", "", top)


def _example(example: Example, peak: float) -> str:
    best = example.values[example.position]
    return _line(example.tokens, example.values, example.position, peak, f"{best:.2f}")


def _line(
    tokens: Sequence[str], values: Sequence[float], position: int, peak: float, beside: str
) -> str:
    """Write a text whose tokens are as dark as the feature is strong, the strongest underlined."""
    gap = "" if any(token[:1].isspace() for token in tokens) else " "
    spans = []
    for number, (token, value) in enumerate(zip(tokens, values, strict=True)):
        share = min(abs(value) / peak, 1.0) if peak else 0.0
        colour = "33,145,140" if value > 0 else "221,107,32"
        style = (
            f' style="background:rgba({colour},{0.1 + 0.65 * share:.2f})"' if share > 0.01 else ""
        )
        mark = ' class="ct-peak"' if number == position else ""
        spans.append(f'<span title="{value:.3g}"{style}{mark}>{_shown(token, inside=True)}</span>')
    return f'<div class="ct-text"><b>{_text(beside)}</b><p>{gap.join(spans)}</p></div>'


def _circuit_lens(analysis: Mapping[str, Any] | None) -> str:
    """One block a cluster: how it comes to fire, and examples."""
    if not analysis or not analysis.get("clusters"):
        return ""
    blocks = []
    for cluster in analysis["clusters"]:
        number, share = cluster.get("label", 0), cluster.get("share", 0.0)
        name = "not in a cluster" if number == -1 else f"cluster {number}"
        head = f"<h5>{name}: {cluster.get('size', 0)} firings, {share:.0%}</h5>"
        said = f"<p>{_text(str(cluster.get('description') or ''))}</p>"
        rows = "".join(
            f"<tr><th>{title}</th><td>{' '.join(items)}</td></tr>"
            for title, items in (
                ("tokens", _shares(cluster.get("tokens"), "token")),
                ("offsets", _shares(cluster.get("offsets"), "offset")),
                ("heads", _shares(cluster.get("heads"), "head")),
                ("upstream", _shares(cluster.get("upstream"), "feature")),
                ("next tokens", _shares(cluster.get("outputs"), "token")),
            )
            if items
        )
        lines = "".join(
            _line(e["tokens"], e["values"], e["position"], max(map(abs, e["values"])) or 1.0, "")
            for e in (cluster.get("examples") or [])[:3]
        )
        blocks.append(f'<div class="ct-cluster">{head}{said}<table>{rows}</table>{lines}</div>')
    n = analysis.get("n_firings")
    note = f"CircuitLens{f', {n} firings' if n else ''}"
    return _section("How it comes to fire", note, "".join(blocks))


def _shares(items: Iterable[Mapping[str, Any]] | None, key: str) -> list[str]:
    """Write what a cluster's firings have in common, and how many of them; heads with a hint."""
    found = []
    for item in list(items or ())[:6]:
        words = ", ".join(map(str, list(item.get("words") or item.get("reads") or ())[:3]))
        name = _feature(str(item[key])) if key == "feature" else str(item[key])
        shown = _shown(name) if key == "token" else _text(name)
        shown += f" ({_text(words)})" if words else ""
        found.append(f'<span class="ct-token">{shown} <b>{item.get("share", 0):.0%}</b></span>')
    return found


def _directed(edges: Sequence[Mapping[str, Any]], way: str) -> list[Mapping[str, Any]]:
    return [edge for edge in edges if edge["direction"] == way]


def _neighbours(title: str, note: str, items: Sequence[Mapping[str, Any]]) -> str:
    if not items:
        return ""
    peak = max(abs(item["weight"]) for item in items)
    rows = "".join(
        f'<tr title="{_text(item["feature"])}">'
        f'<td class="ct-name">{_text(_feature(item["feature"]))}</td>'
        f"<td>{_text(item['label'])}</td>{_bar(item['weight'], peak)}</tr>"
        for item in items
    )
    return _section(title, note, f"<table>{rows}</table>")


def _section(title: str, note: str, body: str) -> str:
    said = f" <small>{_text(note)}</small>" if note else ""
    return f"<section><h4>{title}{said}</h4>{body}</section>"


def _feature(name: str) -> str:
    """Shorten the name of a feature: `mlp_in 3/17`."""
    site, slash, index = name.rpartition("/")
    return f"{Site.parse(site).short}/{index}" if slash else name


def _more(items: Sequence[str], shown: int) -> str:
    return f' <span class="ct-quiet">and {len(items) - shown} more</span>' if items[shown:] else ""


def _shown(token: str, *, inside: bool = False) -> str:
    """Write a token: what cannot be seen gets a sign, where it does not stand inside a text."""
    visible = token.replace("\n", "↵")
    if not inside:
        visible = ("␣" if visible[:1] == " " else "") + visible.strip(" ")
    return _text(visible)


def _text(text: str) -> str:
    return html.escape(text, quote=True)
