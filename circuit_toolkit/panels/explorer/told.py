"""What the browser is told of the prompt and of the controls, as plain JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.panels.explorer.learning import position_choices
from circuit_toolkit.panels.explorer.reading import Reading
from circuit_toolkit.panels.explorer.source import Source
from circuit_toolkit.panels.explorer.view import GRAPH, METHODS, View

LONGEST = 200  # nodes that the curve of sizes goes up to


def of_prompt(reading: Reading) -> dict[str, Any]:
    """Return the chips, the likeliest next tokens and the target."""
    return {
        "text": reading.text,
        "chips": [{"text": token, "known": True} for token in reading.tokens],
        "next": reading.top,
        "answers": [*reading.answers],
        "target": reading.target,
        "value": round(reading.value, 2),
    }


def of_controls(source: Source, view: View, circuit: Circuit | None) -> dict[str, Any]:
    """Return what the controls offer, and what is chosen."""
    found = source.found(view)
    strengths = found.fit.strengths[::-1].tolist() if found else []  # to the right fewer edges
    held_out = np.nan_to_num(found.fit.held_out[::-1], nan=0.0) if found else np.array([])
    chosen = view.positions if isinstance(view.positions, str) else ", ".join(view.positions)
    choices = position_choices(found.task if found else None, view.positions)
    whole = source.graph(view) if view.method == GRAPH else circuit
    measured = source.curve(view)
    curve = _shares(whole) if measured is None else np.round(measured, 3).tolist()
    return {
        "methods": METHODS,
        "method": view.method,
        "tasks": [*source.tasks],
        "task": view.task,
        "everywhere": view.everywhere,
        "strengths": [round(each, 5) for each in strengths],
        "strength": view.strength,
        "fit": np.round(held_out, 3).tolist(),
        "fit_name": _fit_name(str(found.fit.settings.get("held_out_fit"))) if found else "",
        "size": view.size,
        "curve": curve,
        "curve_name": "share of all scores" if measured is None else "faithfulness, measured",
        "sites": [{"name": site.short, "on": site in view.sites} for site in source.dictionaries],
        "positions": [[name, name == chosen] for name, _ in choices],
        "graph_sites": [site.short for site in source.of_graphs],
        "pinned": [*view.pinned],
        "n": source.n,
    }


def _fit_name(name: str) -> str:
    words = {"r2": "R²", "auroc": "AUROC", "accuracy": "accuracy"}
    return f"held-out {words.get(name, name)}"


def _shares(circuit: Circuit | None) -> list[float]:
    """Return the share of all scores that so many features hold, strongest first."""
    if circuit is None:
        return []
    score = np.sort(circuit.nodes["score"][circuit.nodes["kind"] == "feature"])[::-1]
    total = float(score.sum()) or 1.0
    return np.round(np.cumsum(score) / total, 3).tolist()[:LONGEST]


def of_target(circuit: Circuit, reading: Reading, view: View) -> str:
    """Describe in words what the circuit explains."""
    value = float(circuit.nodes["activation"][circuit.nodes["kind"] == TARGET][0])
    if circuit.settings.get("scope") == "prompt":
        return f"What is explained, on this prompt: {reading.target}."
    name = str(circuit.nodes["label"][circuit.nodes["kind"] == TARGET][0]) or TARGET
    n = circuit.settings.get("n_prompts")
    text = f"What is explained: {name.replace('_', ' ')}"
    if name == "logit_difference":
        text += ", the logit of the answer minus that of the wrong answer"
    text += f"; {value:+.2f} on average" + f" over {n} prompts" * bool(n)
    return f"{text}. On the prompt above: {reading.target}."
