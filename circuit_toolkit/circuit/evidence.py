"""Evidence in words, and dicts that JSON can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

UNVALIDATED = "unvalidated: no evidence yet"


def evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Describe in words what supports a circuit."""
    if not evidence:
        return [UNVALIDATED]
    lines = [_LINES[key](evidence.get(key) or {}) for key in _LINES]
    other = [key for key in evidence if key not in _LINES]
    return [*filter(None, lines), *([f"also: {', '.join(other)}"] if other else [])] or [
        UNVALIDATED
    ]


def _fit_line(fit: dict[str, Any]) -> str:
    names = {"held_out_r2": "held-out R² {:.2f}", "held_out_accuracy": "held-out accuracy {:.2f}"}
    parts = [text.format(fit[key]) for key, text in names.items() if fit.get(key) is not None]
    return f"fit: {', '.join(parts)}" if parts else ""


def _ablation_line(ablation: dict[str, Any]) -> str:
    """Return F of the circuit and of all else, each beside random sets, and on what they are."""
    if ablation.get("faithfulness") is None:
        return ""
    at = ablation.get("ablated_positions") or "all"
    where = {"all": "all tokens", "last": "the last token"}.get(at, f"position {at!r}")
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
    return text


def prompts_of(on: dict[str, Any]) -> str:
    """Return which prompts, and whether the circuit was learnt on them."""
    n, seen = on.get("n"), on.get("seen")
    parts = [n, on.get("split"), on.get("task"), f"prompt{'s' * (n != 1)}"]
    text = " ".join(str(part) for part in parts if part is not None)
    if seen:
        return text + (f", {seen} of which it was learnt on" if seen != n else "")
    if on.get("split") is None:
        return text + (", none of which it was learnt on" if seen == 0 else " of unknown split")
    return text


def _mean(values: list[float | None] | None) -> float | None:
    known = [value for value in values or [] if value is not None]
    return float(np.mean(known)) if known else None


def _two(value: float) -> str:
    return f"{round(value, 2) + 0:.2f}"  # no "-0.00"


_LINES = {"fit": _fit_line, "ablation": _ablation_line}
