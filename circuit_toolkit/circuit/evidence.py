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
    if ablation.get("loss") is None:
        return ""
    metric = str(ablation.get("metric") or "metric").replace("_", " ")
    loss, kind = _percent(ablation["loss"]), ablation.get("ablation") or ""
    text = f"{kind} ablation removes {loss} of {metric}"
    draws, mean = ablation.get("random_loss") or [], ablation.get("random_loss_mean")
    if mean is not None:
        text += f" ({f'{len(draws)} ' if draws else ''}random circuits: {_percent(mean)})"
    if ablation.get("kept") is not None:
        text += f"; alone it keeps {_percent(ablation['kept'])}"
    return text.strip() + (f"; n = {ablation['n']}" if ablation.get("n") else "")


def _percent(share: float) -> str:
    return "0%" if abs(share) < 0.005 else f"{share:.0%}"  # no "-0%"


def _edge_line(edges: dict[str, Any]) -> str:
    if edges.get("faithfulness") is None:
        return ""
    draws = edges.get("random_faithfulness") or []
    text = f"its {edges.get('n_edges')} edges alone: faithfulness {edges['faithfulness']:.2f}"
    if draws:
        text += f" ({len(draws)} random sets: {np.mean(draws):.2f})"
    if edges.get("completeness") is not None:
        text += f"; without them {edges['completeness']:.2f}"
    return text + (f"; n = {edges['n']}" if edges.get("n") else "")


_LINES = {"fit": _fit_line, "ablation": _ablation_line, "edge ablation": _edge_line}
