"""What stands above the picture of a circuit: its title, size, evidence and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.evidence import verdict_line
from circuit_toolkit.circuit.tables import TARGET, TOKEN

LONGEST = 64  # letters of a prompt
LINE = 400  # letters of a line: one of 100,000 takes minutes to draw


def header(circuit: Circuit) -> dict[str, Any]:
    """Return what stands above the picture."""
    what, *evidence = circuit.summary()
    settings = {**circuit.settings, **_joined(circuit.settings)}
    attributed = is_attribution(circuit)
    told = {  # the length of a list will do
        key: f"{len(value)}" if isinstance(value, list | dict) else _told(key, value)
        for key, value in settings.items()
        if value is not None and value != [] and key not in _NAMED
    }
    if attributed:
        told = {name: told[key] for key, name in _TELLING.items() if key in told}
    return {
        "title": shorten(_title(circuit), LINE),
        "size": what.rpartition(", target")[0],
        "evidence": [shorten(line, LINE) for line in evidence],
        "tone": verdict(circuit)[0],
        # a circuit of one prompt holds the activations of that prompt
        "activation": f"{'mean ' * (settings.get('scope') == 'dataset')}activation",
        "score": "influence" if attributed else "score",
        "settings": [[shorten(key, 40), shorten(value, 40)] for key, value in told.items()],
    }


def verdict(circuit: Circuit) -> tuple[str, str]:
    """Return how a circuit fared, as a tone and in a sentence."""
    inner = ~np.isin(circuit.nodes["kind"], (TARGET, TOKEN))
    return verdict_line(circuit.evidence, int(inner.sum()))


_NAMED = ("trained_on", "answers", "target")  # are told elsewhere, or are numbers
_TELLING = {  # of an attribution graph, which has many settings
    "model": "model",
    "n_active": "active features",
    "max_features": "at most",
    "node_share": "share of nodes",
    "edge_share": "of edges",
}


def is_attribution(circuit: Circuit) -> bool:
    """Tell an attribution graph, of one prompt or of several."""
    return circuit.settings.get("method") == "attribution_graph"


def _title(circuit: Circuit) -> str:
    """Name the task or the prompt, and the targets."""
    settings, nodes = circuit.settings, circuit.nodes
    targets = nodes["label"][nodes["kind"] == TARGET].tolist()
    prompt, corrupted = settings.get("prompt"), settings.get("corrupted")
    if not isinstance(prompt, str) or not is_attribution(circuit):
        return ": ".join(filter(None, [settings.get("task"), targets[-1] or TARGET]))
    title = f"“{_end_of(_read(settings, prompt))}”"
    if isinstance(corrupted, str):
        pairs = zip(prompt.split(), corrupted.split(), strict=False)
        words = [(ours, theirs) for ours, theirs in pairs if ours != theirs][:3]
        title += f", {', '.join(a for a, _ in words)} minus {', '.join(b for _, b in words)}"
    more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    return f"{title} → {', '.join(shorten(name or TARGET, 40) for name in targets[:3])}{more}"


def _read(settings: dict[str, Any], prompt: str) -> str:
    """Return the prompt up to the token that the targets follow."""
    tokens, position = settings.get("tokens"), settings.get("position")
    if (
        not isinstance(tokens, list)
        or not isinstance(position, int)
        or position in (-1, len(tokens))
    ):
        return prompt
    read = list(map(str, tokens[: position + 1 or None]))
    return (" " if not any(" " in token for token in read) else "").join(read)


def _end_of(prompt: str) -> str:
    """Return the end of a prompt, which the answer follows."""
    text = " ".join(prompt.split())
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:].partition(' ')[2]}"


def _joined(settings: dict[str, Any]) -> dict[str, str]:
    """Return lists of a few names as texts."""
    lists = {key: settings.get(key) for key in ("positions", "left_out")}
    return {
        key: ", ".join(names) for key, names in lists.items() if isinstance(names, list) and names
    }


def _told(key: str, value: object) -> str:
    """Describe a setting in few words: of a model in a folder the folder's name."""
    text = str(value)
    return Path(text).name if key == "model" and Path(text).is_absolute() else text


def shorten(text: str, letters: int) -> str:
    """Cut a text that is too long, after a whole word where one fits."""
    text = " ".join(text.split())
    if len(text) <= max(letters, 1):
        return text
    cut = text[: max(letters - 1, 1)]
    whole = cut if text[len(cut)] in " ," else cut.rpartition(" ")[0]
    return (whole if len(whole) > letters / 2 else cut).rstrip(" ,…") + "…"
