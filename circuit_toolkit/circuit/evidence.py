"""Evidence in words, and dicts that JSON can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

UNVALIDATED = "unvalidated: no evidence yet"
UNTESTED = "untested"
OF_WHOLE = ("attribution",)  # evidence that is of the graph before all pruning
# What holds: of a circuit alone, and of everything but it; circuits are grown until they do, and
# verdicts ask no less. Then what the dictionaries must keep.
SUFFICIENT, NECESSARY, HELD = 0.8, 0.2, 0.5
# Of single features: how many times the change by random ones, and which rank correlation with
# the graph; and the held-out R² below which a fit explains nothing.
AS_RANDOM, AGREES, LEAST_FIT = 2, 0.5, 0.05


def evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Describe in words what supports a circuit."""
    if not evidence:
        return [UNVALIDATED]
    verdict = verdict_of(evidence)
    lines = [] if verdict == UNTESTED else [f"verdict: {verdict}"]
    lines += [line(evidence[key]) for key, line in _LINES.items() if evidence.get(key)]
    other = [key for key in evidence if key not in _LINES]
    return [*filter(None, lines), *([f"also: {', '.join(other)}"] if other else [])] or [
        UNVALIDATED
    ]


def _fit_line(fit: dict[str, Any]) -> str:
    names = {
        "held_out_r2": "held-out R² {:.2f}",
        "held_out_auroc": "held-out AUROC {:.2f} (chance 0.50)",
        "held_out_accuracy": "held-out accuracy {:.2f} (chance not recorded)",
    }
    parts = [text.format(fit[key]) for key, text in names.items() if fit.get(key) is not None]
    return f"fit: {', '.join(parts)}" if parts else ""


def _ablation_line(ablation: dict[str, Any]) -> str:
    """Return F of the circuit and of all else, each beside random sets, and on what they are."""
    if ablation.get("faithfulness") is None:
        return ""
    at = ablation.get("ablated_positions") or "all"
    named = f"positions {at}" if "," in at else f"position {at!r}"
    where = {"all": "all tokens", "last": "the last token"}.get(at, named)
    on = ablation.get("evaluated_on") or {}
    seed = None if on.get("seed") is None else f"seed {on['seed']}"
    errors = f"errors {ablation['errors']}" if ablation.get("errors") else None
    notes = ", ".join(filter(None, [seed, errors]))
    text = f"{ablation.get('ablation') or ''} ablation at {where} of {prompts_of(on)}".strip()
    text += f" ({notes}): " if notes else ": "
    random = [_mean(ablation.get(f"random_{name}")) for name in ("faithfulness", "completeness")]
    draws = len(ablation.get("random_faithfulness") or [])
    text += f"faithfulness {_two(ablation['faithfulness'])}"
    if random[0] is not None:
        text += f" ({draws} random set{'s' * (draws != 1)}: {_two(random[0])})"
    if ablation.get("completeness") is not None:
        text += f", completeness {_two(ablation['completeness'])}"
        text += f" ({_two(random[1])})" if random[1] is not None else ""
    trivial = [ablation.get(f"trivial_{name}") for name in ("faithfulness", "completeness")]
    if trivial[0] is not None and trivial[1] is not None:
        text += f"; the features that change most: {_two(trivial[0])}, {_two(trivial[1])}"
    if ablation.get("dictionaries_keep") is not None:
        text += f"; with errors ablated {_two(ablation['faithfulness_errors_ablated'])}, of "
        text += f"{_two(ablation['dictionaries_keep'])} that all features keep"
    return text


def verdict_of(evidence: dict[str, Any]) -> str:
    """Say by fixed rules whether a circuit holds; see `Circuit.verdict`."""
    found = evidence.get("ablation") or {}
    F, C = found.get("faithfulness"), found.get("completeness")
    if F is None or C is None:
        return UNTESTED
    random = [found.get(f"random_{name}") or [] for name in ("faithfulness", "completeness")]
    above, below = ([value for value in each if value is not None] for each in random)
    sufficient = F >= SUFFICIENT and all(value < F for value in above)
    necessary = C <= NECESSARY and all(value > C for value in below)
    held = found.get("dictionaries_keep")
    text = {
        (True, True): "sufficient and necessary",
        (True, False): "sufficient, not necessary",
        (False, True): "necessary, not sufficient",
        (False, False): "neither sufficient nor necessary",
    }[sufficient, necessary]
    return text + (
        ", and the dictionaries do not hold this behaviour" * (held is not None and held < HELD)
    )


def tone_of(evidence: dict[str, Any]) -> str:
    """Return how a picture shows a verdict: `good`, `warning`, `error` or `quiet`."""
    verdict = verdict_of(evidence)
    tones = {UNTESTED: "quiet", "neither": "error", "not": "warning"}
    return next((tone for word, tone in tones.items() if word in verdict), "good")


def verdict_line(evidence: dict[str, Any], size: int) -> tuple[str, str]:
    """Return the tone of all evidence, and one sentence on how a circuit of some size fared.

    Nothing is `good` that was not tested, or fared no better than random features.
    """
    if not size:
        return "error", "Empty: no feature is left. Choose a weaker strength or a larger size."
    found, ablated = evidence.get("interventions") or {}, evidence.get("ablation") or {}
    edges, fit = evidence.get("edges") or {}, evidence.get("fit") or {}
    if (verdict := verdict_of(evidence)) != UNTESTED:
        text = f"{verdict[0].upper()}{verdict[1:]}: alone it keeps {_two(ablated['faithfulness'])}"
        if (chance := _mean(ablated.get("random_faithfulness"))) is not None:
            text += f" of the metric (random sets {_two(chance)})"
        text += f", all else keeps {_two(ablated['completeness'])}"
        if edges.get("confirmed") is not None:
            text += f"; edges: {edges['confirmed']} confirmed, {edges['refuted']} refuted"
        return tone_of(evidence), f"{text}."
    if found.get("mean_change") is not None:
        change, chance = found["mean_change"], found.get("random_change")
        text = f"its {found.get('n')} strongest features change the target by {_two(change)} each"
        if chance is None:
            return "warning", f"Not compared: {text}, no others are active at their tokens."
        text += f", others at their tokens by {_two(chance)}"
        agree = found.get("rank_correlation")
        text += "" if agree is None else f"; rank correlation with the graph {_two(agree)}"
        if change <= chance:
            return "error", f"Refuted: {text}."
        good = change >= AS_RANDOM * chance and (agree or 0) >= AGREES
        return ("good", f"Holds: {text}.") if good else ("warning", f"Holds in part: {text}.")
    graph = evidence.get("attribution") or {}
    if (replaced := graph.get("replacement")) is not None:
        text = (
            f"Untested. Features carry {_two(replaced)} of the graph's influence, errors the rest."
        )
        return ("quiet" if replaced >= HELD else "warning"), text
    if (r2 := fit.get("held_out_r2")) is not None:
        if r2 < LEAST_FIT:
            return "error", f"Explains nothing on held-out prompts: R² {_two(r2)}."
        return "quiet", f"Untested by ablation. Held-out R² {_two(r2)}."
    return "quiet", "Untested: no evidence yet."


def _edges_line(edges: dict[str, Any]) -> str:
    """Return how the edges fared."""
    counts = ", ".join(f"{edges.get(name)} {name}" for name in ("confirmed", "refuted", "untested"))
    on = prompts_of(edges.get("evaluated_on") or {})
    how = "path patched" if edges.get("ablation") == "path patching" else "source ablated"
    return f"edges, each {how} alone on {on}: {counts}"


def _interventions_line(found: dict[str, Any]) -> str:
    """Return how features fared that were ablated one by one."""
    text = f"interventions: {found.get('n')} features set to 0 one by one, the target changes by "
    text += f"{_two(found['mean_change'])} on average"
    if found.get("random_change") is not None:
        text += f" ({found.get('random')} others at these tokens: {_two(found['random_change'])})"
    if found.get("rank_correlation") is not None:
        text += f"; rank correlation with the graph {_two(found['rank_correlation'])}"
    return text


def prompts_of(on: dict[str, Any]) -> str:
    """Return which prompts, and whether the circuit was learnt on them."""
    n, seen = on.get("n"), on.get("seen")
    parts = [n, on.get("split"), on.get("task"), f"prompt{'s' * (n != 1)}"]
    text = " ".join(str(part) for part in parts if part is not None)
    if seen:
        return text + (f", {seen} of which it was learnt on" if seen != n else "")
    if on.get("split") is None:
        unseen = ", none of which it was learnt on" if n != 1 else ", which it was not learnt on"
        return text + (unseen if seen == 0 else " of unknown split")
    return text


def _mean(values: list[float | None] | None) -> float | None:
    known = [value for value in values or [] if value is not None]
    return float(np.mean(known)) if known else None


def _two(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}"  # no "-0.00"


def _size_line(size: dict[str, Any]) -> str:
    """Return how the size of a circuit was chosen."""
    how = "the smallest that holds" if size.get("reached") else "none up to this size holds"
    unit = size.get("unit", "feature") + "s" * (size.get("size") != 1)
    return f"size: {size.get('size')} {unit}, {how} on {size.get('n')} training prompts"


def _attribution_line(found: dict[str, Any]) -> str:
    """Return how much of an attribution graph its features explain, and how exact its sums are."""
    names = {
        "replacement": "graph replacement score {:.2f}",
        "completeness": "graph completeness score {:.2f}",
    }
    scores = [text.format(found[key]) for key, text in names.items() if found.get(key) is not None]
    parts = [", ".join(scores)]
    if found.get("largest_error") is not None:
        parts.append(f"sums exact to {found['largest_error']:.0e}")
    on = f" on {found['n']} prompts" if found.get("n", 1) != 1 else ""
    return f"attribution{on}: {'; '.join(filter(None, parts))}" if any(parts) else ""


_LINES = {
    "size": _size_line,
    "fit": _fit_line,
    "attribution": _attribution_line,
    "interventions": _interventions_line,
    "ablation": _ablation_line,
    "edges": _edges_line,
}
