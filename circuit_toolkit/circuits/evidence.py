"""Evidence in words, and dicts that JSON can hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError

UNVALIDATED = "unvalidated: no evidence yet"


def evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Say in words what supports a circuit.

    Parameters
    ----------
    evidence : dict
        As in `Circuit.evidence`; keys that are not there, or None, are passed over.

    Returns
    -------
    list of str
        A line for the fit and one for each kind of ablation, or `unvalidated: no evidence yet`.
    """
    if not evidence:
        return [UNVALIDATED]
    lines = [_LINES[key](evidence.get(key) or {}) for key in _LINES]
    other = [key for key in evidence if key not in _LINES]
    return [*filter(None, lines), *([f"also: {', '.join(other)}"] if other else [])] or [
        UNVALIDATED
    ]


def plain(value: Any, name: str) -> Any:
    """Turn a value into what JSON can hold.

    Parameters
    ----------
    value : object
        Dicts with str keys, lists, tuples, numpy arrays and scalars, str, bool, int, float, None.
    name : str
        What to call it in an error.

    Returns
    -------
    object
        Numpy values as Python's, tuples as lists, NaN and infinity as None.

    Raises
    ------
    InputError
        If something else is in it.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    raise InputError(
        f"{name} cannot be written as JSON: {type(value).__name__}. Pass numbers, strings, "
        "lists, and dicts with string keys."
    )


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
