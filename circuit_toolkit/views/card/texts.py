"""Parts of a feature's card that show texts: where it fires, and how its firings come about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from circuit_toolkit.features.descriptions.words import spelled
from circuit_toolkit.features.examples import Example, FeatureExamples
from circuit_toolkit.views.card.markup import feature_name, quiet, section, text_of, token_of


def firing_part(examples: FeatureExamples) -> str:
    """Return how often and how strongly a feature fires."""
    facts = (
        f"{examples.density:.2%} of {examples.n_tokens:,} tokens, "
        f"{examples.prompt_density:.1%} of {examples.n_prompts:,} prompts, "
        f"largest activation {examples.maximum:.3g}"
    )
    return section("Where it fires", "", f"<p>{facts}</p>{_histogram(examples)}")


def _histogram(examples: FeatureExamples) -> str:
    """Bars of equal width; the ranges of both axes are written beside them."""
    if not examples.maximum:
        return quiet("It does not fire on these prompts.")
    left, width, height = 40, 340, 84
    peak, step = max(examples.counts), width / len(examples.counts)
    bars = []
    for number, count in enumerate(examples.counts):
        tall = (height - 2) * count / peak
        low, high = examples.edges[number : number + 2]
        said = f"{count:,} tokens with an activation from {low:.3g} to {high:.3g}"
        bars.append(
            f'<rect x="{left + number * step + 0.5:.1f}" y="{height - tall:.1f}" '
            f'width="{step - 1:.1f}" height="{tall:.1f}" fill="#21918c"><title>{said}</title>'
            "</rect>"
        )
    end, below = left + width, height + 13
    axes = (
        f'<line x1="{left}" x2="{end}" y1="{height}" y2="{height}" stroke="#9aa5b1"/>'
        f'<text x="{left - 5}" y="10" text-anchor="end">{peak:,}</text>'
        f'<text x="{left - 5}" y="{height / 2 + 4}" text-anchor="end">tokens</text>'
        f'<text x="{left}" y="{below}">0</text>'
        f'<text x="{end}" y="{below}" text-anchor="end">{examples.maximum:.3g}</text>'
        f'<text x="{left + width / 2}" y="{below}" text-anchor="middle">activation</text>'
    )
    return (
        f'<svg viewBox="0 0 {end} {height + 18}" role="img" '
        f'aria-label="tokens by activation, where it is above zero">{"".join(bars)}{axes}</svg>'
    )


def texts_part(examples: FeatureExamples) -> str:
    """Show the strongest and, folded, typical texts."""
    if not examples.top:
        return ""
    top = "".join(_example(each, examples.maximum) for each in examples.top)
    bands = "".join(
        f"<h5>quarter {number}: largest activations {low:.3g} to {high:.3g}</h5>"
        + "".join(_example(each, examples.maximum) for each in shown)
        for number, (low, high, shown) in reversed(list(enumerate(examples.quantiles, start=1)))
    )
    if bands:
        top += f"<details><summary>typical texts, by quarter</summary>{bands}</details>"
    note = "in front the largest activation in a text; a darker token is a stronger one"
    return section("Strongest texts", note, top)


def _example(example: Example, peak: float) -> str:
    return _line(
        example.tokens,
        example.values,
        example.position,
        peak,
        before=example.before,
        after=example.after,
    )


def _line(
    tokens: Sequence[str],
    values: Sequence[float],
    position: int,
    peak: float,
    *,
    before: bool = False,
    after: bool = False,
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
        said = f"activation {value:.3g}"
        spans.append(f'<span title="{said}"{style}{mark}>{token_of(token, inside=True)}</span>')
    more = '<i class="ct-more">…</i>'  # the text goes on
    shown = gap.join([more] * before + spans + [more] * after)
    return f'<div class="ct-text"><b>{values[position]:.2f}</b><p>{shown}</p></div>'


def circuits_part(analysis: Mapping[str, Any] | None, maximum: float) -> str:
    """Return how many firings are alike, then a block for each cluster with examples."""
    if analysis is None:
        return ""
    clusters = analysis.get("clusters") or []
    n = analysis.get("n_examples")
    note = f"CircuitLens{f', {n} firings' if n else ''}"
    body = quiet(_grouped(analysis)) + "".join(_cluster(each, maximum) for each in clusters)
    return section("How it comes to fire", note, body)


def _grouped(analysis: Mapping[str, Any]) -> str:
    """Return how many firings are in clusters, and why the others are not."""
    clusters, n = analysis.get("clusters") or [], analysis.get("n_examples") or 0
    least = (analysis.get("settings") or {}).get("min_samples")
    if least is not None and n < least:
        return f"{n} firings are too few to group: a cluster takes {least}."
    empty = analysis.get("n_empty")
    why = f" ({empty} without anything that stands out)" if empty else ""
    if not clusters:
        return f"No cluster was found among {n} firings{why}."
    noise = analysis.get("n_noise")
    rest = "" if noise is None else f"{noise} of {n} firings in no cluster{why}. "
    return f"{rest}Percentages below are shares of a cluster's firings."


def _cluster(cluster: Mapping[str, Any], maximum: float) -> str:
    head = (
        f"<h5>cluster {cluster.get('label', 0)}: {cluster.get('size', 0)} firings, "
        f"{cluster.get('share', 0.0):.0%} of all</h5>"
    )
    said = f"<p>{text_of(str(cluster.get('description') or ''))}</p>"
    rows = "".join(
        f"<tr><th>{title}</th><td>{' '.join(items)}</td></tr>"
        for title, items in (
            ("fires on", _shares(cluster.get("tokens"), "token")),
            ("heads read", _shares(cluster.get("heads"), "head")),
            ("tokens back", _shares(cluster.get("offsets"), "offset")),
            ("features", _shares(cluster.get("upstream"), "feature")),
            ("promotes", _shares(cluster.get("outputs"), "token")),
        )
        if items
    )
    lines = "".join(
        _line(
            each["tokens"],
            each["values"],
            each["position"],
            maximum or max(map(abs, each["values"])),
            after=each.get("after", False),
        )
        for each in (cluster.get("examples") or [])[:3]
    )
    return f'<div class="ct-cluster">{head}{said}<table>{rows}</table>{lines}</div>'


def _shares(items: Iterable[Mapping[str, Any]] | None, key: str) -> list[str]:
    """Write what a cluster's firings have in common, and how many of them; heads with a hint."""
    found = []
    for item in list(items or ())[:6]:
        words = list(item.get("words") or item.get("reads") or ())[:3]
        shown = {
            "token": lambda name: token_of(str(name)),
            "feature": lambda name: text_of(feature_name(str(name))),
            "offset": lambda name: str(-name) if name else "0 (itself)",
            "head": lambda name: text_of(str(name)),
        }[key](item[key])
        hint = ", ".join(spelled(str(word).strip() or str(word)) for word in words)
        shown += f" ({text_of(hint)})" if hint else ""
        found.append(f'<span class="ct-token">{shown} <b>{item.get("share", 0):.0%}</b></span>')
    return found
