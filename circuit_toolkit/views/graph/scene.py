"""What a picture of a circuit shows: places, sizes, colours and words, as plain JSON.

The page, the widget and the still picture draw the same scene, so that they look the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit, short
from circuit_toolkit.circuit.tables import TARGET, TOKEN
from circuit_toolkit.views.colours import (
    GREY,
    INK,
    MUTED,
    PAPER,
    RULE,
    TEAL,
    TEAL_INK,
    TEAL_WASH,
    WASH,
    of_sign,
    site_colours,
)
from circuit_toolkit.views.graph.drawing import GROUP, Drawing, drawing_of
from circuit_toolkit.views.graph.header import header, shorten
from circuit_toolkit.views.graph.layout import laid_out
from circuit_toolkit.views.graph.prompt_columns import (
    LETTER,
    places_of,
    word_of,
    words_below,
)
from circuit_toolkit.views.graph.prompt_layout import WORDS, PromptLayout, without_idle_words
from circuit_toolkit.views.graph.steady import Steady

READABLE = {"max_features": 70, "max_edges": 250}  # what can be read at a glance
RADIUS = (5.0, 15.0)  # px
SMALL = (4.5, 11.0)  # px, where a prompt has many nodes
STROKE = (0.8, 5.0)  # px
STACKED, BOW = 30.0, 34.0  # px: edges that are so upright bend so far aside
TURN = 9.0  # px from the dot of a word to the word, where it stands upright
SHAPES = {"resid": "dot", "embed": "dot", "attn": "diamond", "head": "diamond", "mlp": "square"}


def scene_of(circuit: Circuit, steady: Steady | None = None) -> dict[str, Any]:
    """Return what to draw for a circuit: upwards if it is of one prompt, or what is `steady`."""
    drawing = drawing_of(circuit)
    if steady is None and (places := places_of(circuit)):
        steady = Steady(places)
    by_token = steady is not None
    picture = _by_token(without_idle_words(drawing), steady) if steady else _by_site(drawing)
    told = header(circuit)
    if drawing.left_out:
        told["size"] += f", of which the {len(drawing.edges)} strongest are drawn"
    said = {"upwards": by_token, "left_out": drawing.left_out, "header": told}
    return {"words": []} | picture | said


def _by_site(drawing: Drawing) -> dict[str, Any]:
    """Draw a column for each site."""
    circuit, place = drawing.circuit, laid_out(drawing)
    colours = site_colours(len(place.names) - 1) + [INK]
    bands = [
        {"name": name, "left": round(left, 1), "right": round(right, 1), "color": colour}
        for name, left, right, colour in zip(
            place.names, place.left.tolist(), place.right.tolist(), colours, strict=True
        )
    ]
    positions = drawing.nodes["position"].tolist()  # said where there are several
    several = len({*positions} - {""}) > 1
    labels = drawing.nodes["label"].tolist()
    ends = [
        f" @{shorten(at, 24)}"
        if at and several and at != label and not label.endswith(f"@{at}")
        else ""
        for at, label in zip(positions, labels, strict=True)
    ]
    nodes = _nodes(drawing, place.x, place.y, RADIUS)
    wide = {"maximum": round(place.pitch) - 16}  # px; longer names take two lines
    for node, at, depth in zip(nodes, ends, drawing.depth.tolist(), strict=True):
        short_name = node["name"] or f"#{node['feature']}"
        node["label"] = shorten(short_name, int(place.pitch / LETTER) - len(at)) + at
        node["color"] = colours[depth]
        node["shape"] = SHAPES.get(place.names[depth].split("_")[0], "dot")
        if node["kind"] == TARGET:
            name = shorten(node["name"] or TARGET, 40)
            if circuit.settings.get("scope") == "prompt" and node["activation"]:
                name += f" = {node['activation']:+.1f}"
            if len(name) > wide["maximum"] / LETTER:  # lines break at spaces, else inside a word
                name = name.replace("_", " ")
            node |= {"shape": "box", "label": name, "ink": PAPER, "widthConstraint": wide}
        elif node["kind"] == GROUP:
            node |= _box_of_group(node, place.pitch - 20)
    return {
        "nodes": nodes,
        "edges": _edges(drawing.edges, np.where(_level(drawing.edges, drawing.depth), 0.35, 0)),
        "bands": bands,
        "width": round(place.width, 1),
        "height": round(place.height, 1),
    }


def _by_token(drawing: Drawing, steady: Steady) -> dict[str, Any]:
    """Draw a column for each token, and the layers upwards."""
    settings, place, places = drawing.circuit.settings, steady.lay_out(drawing), steady.places
    tokens, below = places.words, words_below(drawing, places)
    active = settings.get("activations") or {}
    colours = [MUTED, *site_colours(len(place.rows) - 2), INK]
    nodes = _nodes(drawing, place.x, place.y, SMALL, upwards=True)
    chances, upright = _chances(drawing), {each.first for each in place.columns if each.turned}
    for node in nodes:
        node["at"] = places.of(node["position"])
    boxed = {node["at"] for node in nodes if node["kind"] == TOKEN} - upright
    for i, node in enumerate(nodes):
        row, room = int(place.row[i]), float(place.room[i])
        name = word_of(node["name"]) if node["kind"] == TOKEN else node["name"]
        node["label"] = shorten(name or f"#{node['feature']}", max(int(room / LETTER), 2))
        node |= {"color": colours[row], "shape": "dot"}
        if node["kind"] == TOKEN:
            box = {"shape": "box", "color": WASH, "border": RULE, "ink": INK}
            dot = {"shape": "dot", "color": GREY, "label": " ", "size": 4.0}  # its word is below
            node |= dot if node["at"] in upright else box
        elif node["kind"] == TARGET:
            name = shorten(node["name"] or TARGET, 40) + chances.get(i, "")
            node |= {"shape": "box", "label": name, "ink": PAPER}
        elif node["kind"] == GROUP:
            node |= _box_of_group(node, room)
        elif node["kind"] == "error":
            node |= {"color": GREY, "shape": "diamond", "label": " ", "size": 5.0}
        site = drawing.nodes["site"][i]
        if found := active.get(f"{site}/{node['feature']}"):
            node["active"] = {at: round(value, 3) for at, value in found.items() if value}
    words = [
        {
            "word": below[each.first] if each.count == 1 else f"… {each.count} …",
            "y": round(place.rows[0][1] + WORDS + TURN * each.turned, 1),
            "x": round(each.left + each.width / 2, 1),
            "left": round(each.left, 1),
            "right": round(each.left + each.width, 1),
            "turned": each.turned,
            "boxed": each.first in boxed,
        }
        for each in place.columns
    ]
    bands = [
        {"name": name, "top": round(top, 1), "bottom": round(bottom, 1), "color": colour}
        for (name, top, bottom), colour in zip(place.rows, colours, strict=True)
    ]
    return {
        "nodes": nodes,
        "edges": _edges(drawing.edges, _bows(drawing.edges, place)),
        "bands": bands,
        "words": words,
        "tokens": tokens,
        "one_prompt": places.one_prompt,
        "spaced": not any(" " in token for token in tokens),  # words, rather than parts of a text
        "width": round(place.width, 1),
        "height": round(place.height, 1),
    }


def _nodes(
    drawing: Drawing,
    x: np.ndarray,
    y: np.ndarray,
    radius: tuple[float, float],
    upwards: bool = False,
) -> list[dict[str, Any]]:
    """Return what is told of each node, with its place and its size."""
    circuit, ids = drawing.circuit, drawing.circuit.ids()
    size = radius[0] + (radius[1] - radius[0]) * np.sqrt(
        _share(_importance(drawing, upwards))
    )  # by area
    nodes = []
    for i, (kind, site, position, index, activation, score, label) in enumerate(
        drawing.nodes.tolist()
    ):
        nodes.append(
            {
                "id": drawing.ids[i],
                "label": "",
                "name": label,
                "kind": kind,
                "site": short(site),
                "position": position,
                "feature": index,
                "activation": round(activation, 4),
                "score": round(score, 4),
                "x": round(float(x[i])),  # whole, as vis-network makes them
                "y": round(float(y[i])),
                "size": round(float(size[i]), 1),
            }
        )
        if kind == GROUP:
            rows, labels = drawing.rows[i], circuit.nodes["label"]
            nodes[-1]["members"] = [[ids[row], labels[row]] for row in rows]
    return nodes


def _box_of_group(node: dict[str, Any], room: float) -> dict[str, Any]:
    """Return how a supernode is drawn: a box with its name and the number of its members."""
    count = f" ({len(node['members'])})"
    name = shorten(node["name"], max(int(room / LETTER) - len(count), 3)) + count
    return {"shape": "box", "label": name, "color": TEAL_WASH, "border": TEAL, "ink": TEAL_INK}


def _chances(drawing: Drawing) -> dict[int, str]:
    """Return what a target's name is followed by: its probability, or the value of a direction."""
    settings, nodes = drawing.circuit.settings, drawing.nodes
    ends = np.flatnonzero(nodes["kind"] == TARGET).tolist()
    found = {i: f" = {nodes['activation'][i]:+.1f}" for i in ends if nodes["activation"][i]}
    given = settings.get("probabilities")
    if isinstance(given, list) and len(given) == len(ends) and "corrupted" not in settings:
        of_tokens = zip(ends, given, strict=True)  # a direction has no index and no probability
        found |= {i: f" {chance:.0%}" for i, chance in of_tokens if nodes["index"][i]}
    return found


def _level(edges: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Tell which edges (e,) run inside a row or column: of supernodes alone."""
    return depth[edges["source"]] == depth[edges["target"]]


def _bows(edges: np.ndarray, place: PromptLayout) -> np.ndarray:
    """Return how far edges (e,) bend aside, by length: those past nodes of their column do."""
    s, t = edges["source"], edges["target"]
    wide, tall = np.abs(place.x[s] - place.x[t]), np.abs(place.y[s] - place.y[t])
    past = (wide < STACKED) & (np.abs(place.row[s] - place.row[t]) > 1)
    length = np.fmax(np.hypot(wide, tall), 1)
    bow = np.where(past, np.fmin(0.3, 2 * BOW / length), 0)
    return np.where(_level(edges, place.row), 0.35, bow)


def _edges(edges: np.ndarray, aside: np.ndarray) -> list[dict[str, Any]]:
    """Return the lines, weak ones first; some bend aside, by a share of their length."""
    order = np.argsort(edges["score"], kind="stable")  # strong ones on top
    edges, aside = edges[order], aside[order]
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
            **({"aside": round(bend, 3)} if bend else {}),
        }
        for (source, target, weight, score, status, *_), w, o, bend in zip(
            edges.tolist(), width.tolist(), opacity.tolist(), aside.tolist(), strict=True
        )
    ]


def _importance(drawing: Drawing, upwards: bool) -> np.ndarray:
    """Score of the nodes (n,), or where a method gave none, the size of the activation."""
    score = drawing.nodes["score"]
    found = score if score[:-1].any() else np.abs(drawing.nodes["activation"])
    boxes = np.isin(drawing.nodes["kind"], (GROUP, TARGET, TOKEN))  # have no radius
    return np.where(boxes & upwards, 0, found)


def _share(values: np.ndarray) -> np.ndarray:
    """Values of 0 or more, as a share of the largest."""
    largest = values.max(initial=0)
    return values / largest if largest > 0 else np.zeros(len(values))
