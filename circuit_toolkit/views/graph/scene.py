"""What a picture of a circuit shows: places, sizes, colours and words, as plain JSON.

The page and the widget draw the same scene, so that they look the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import TARGET, Circuit
from circuit_toolkit.circuit.evidence import tone_of
from circuit_toolkit.views.colours import INK, of_sign, site_colours
from circuit_toolkit.views.graph.layout import laid_out

RADIUS = (5.0, 15.0)  # px
STROKE = (0.8, 5.0)  # px
LETTER = 6.1  # px, mean width at the size that labels are drawn
SHAPES = {"resid": "dot", "embed": "dot", "attn": "diamond", "head": "diamond", "mlp": "square"}


def scene_of(circuit: Circuit) -> dict[str, Any]:
    """Return what to draw for a circuit."""
    place = laid_out(circuit)
    colours = site_colours(len(place.names) - 1) + [INK]
    bands = [
        {"name": name, "left": round(left, 1), "right": round(right, 1), "color": colour}
        for name, left, right, colour in zip(
            place.names, place.left.tolist(), place.right.tolist(), colours, strict=True
        )
    ]
    ids, depth = circuit.ids(), circuit.depths()
    positions = circuit.nodes["position"].tolist()  # said where there are several
    ends = [f" @{at}" if at and len({*positions} - {""}) > 1 else "" for at in positions]
    size = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * np.sqrt(_share(_importance(circuit)))  # by area
    nodes = [
        {
            "id": ids[i],
            "label": shorten(label or f"#{index}", int(place.pitch / LETTER) - len(at)) + at,
            "name": label,
            "kind": kind,
            "site": place.names[depth[i]],
            "position": position,
            "feature": index,
            "activation": round(activation, 4),
            "score": round(score, 4),
            "x": round(float(place.x[i]), 1),
            "y": round(float(place.y[i]), 1),
            "size": round(float(size[i]), 1),
            "color": colours[depth[i]],
            "shape": SHAPES.get(place.names[depth[i]].split("_")[0], "dot"),
        }
        for i, (at, (kind, _, position, index, activation, score, label)) in enumerate(
            zip(ends, circuit.nodes.tolist(), strict=True)
        )
    ]
    wide = {"maximum": round(place.pitch) - 16}  # px; longer names take two lines
    for node in nodes:
        if node["kind"] == TARGET:
            name = shorten(node["name"] or TARGET, 40)
            if circuit.settings.get("scope") == "prompt" and node["activation"]:
                name += f" = {node['activation']:+.1f}"
            node |= {"shape": "box", "label": name, "widthConstraint": wide}
    return {
        "nodes": nodes,
        "edges": _edges(circuit.edges),
        "bands": bands,
        "width": round(place.width, 1),
        "height": round(place.height, 1),
        "header": header(circuit),
    }


def header(circuit: Circuit) -> dict[str, Any]:
    """Return what stands above the picture."""
    what, *evidence = circuit.summary()
    task = circuit.settings.get("task")
    settings = [  # the length of a list will do
        [key, f"{len(value)}" if isinstance(value, list | dict) else _told(key, value)]
        for key, value in {**circuit.settings, **_joined(circuit.settings)}.items()
        if value is not None and key not in _NAMED and value != []
    ]
    return {
        "title": ": ".join(filter(None, [task, circuit.nodes["label"][-1] or TARGET])),
        "size": what.rpartition(", target")[0],
        "evidence": evidence,
        "tone": tone_of(circuit.evidence),
        # a circuit of one prompt holds the activations of that prompt
        "activation": f"{'mean ' * (circuit.settings.get('scope') == 'dataset')}activation",
        "settings": [[key, shorten(value, 40)] for key, value in settings],
    }


_NAMED = ("trained_on", "answers", "target")  # are told elsewhere, or are numbers


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
    if len(text) <= letters:
        return text
    cut = text[: max(letters - 1, 1)]
    whole = cut if text[len(cut)] in " ," else cut.rpartition(" ")[0]
    return (whole if len(whole) > letters / 2 else cut).rstrip(" ,…") + "…"


def _edges(edges: np.ndarray) -> list[dict[str, Any]]:
    edges = edges[np.argsort(edges["score"], kind="stable")]  # strong ones on top
    share = _share(edges["score"])
    width = STROKE[0] + (STROKE[1] - STROKE[0]) * share
    opacity = 0.25 + 0.6 * np.sqrt(share)
    return [
        {
            "from": source,
            "to": target,
            "weight": round(weight, 4),
            "score": round(score, 4),
            "width": round(w, 2),
            "opacity": round(o, 2),
            "color": of_sign(weight),
            "status": status,
            **({"dashes": [5, 5]} if status == "refuted" else {}),
        }
        for (source, target, weight, score, status, *_), w, o in zip(
            edges.tolist(), width.tolist(), opacity.tolist(), strict=True
        )
    ]


def _importance(circuit: Circuit) -> np.ndarray:
    """Score of the nodes (n,), or where a method gave none, the size of the activation."""
    score = circuit.nodes["score"]
    return score if score[:-1].any() else np.abs(circuit.nodes["activation"])


def _share(values: np.ndarray) -> np.ndarray:
    """Values of 0 or more, as a share of the largest."""
    largest = values.max(initial=0)
    return values / largest if largest > 0 else np.zeros(len(values))
