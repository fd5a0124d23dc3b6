"""A circuit as a still picture: what is left of a widget in an exported notebook."""

from __future__ import annotations

import html
import re
from typing import Any

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.views.graph.scene import NEGATIVE, POSITIVE, scene

BEND = 0.45  # of the width of an edge, as in graph.js
TOP = 58  # px for title and evidence


def graph_svg(circuit: Circuit) -> str:
    """Draw a circuit as SVG, without any script."""
    drawn = scene(circuit)
    width, height, head = drawn["width"], drawn["height"], drawn["header"]
    colour = "#14573c" if head["validated"] else "#7a4b00"
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + TOP}" '
            f'width="{width}" font-family="Helvetica Neue, Arial, sans-serif" '
            'style="max-width:100%;height:auto;background:#fff">',
            f'<text x="12" y="22" font-size="15" font-weight="600" fill="#1f2933">'
            f'{_text(head["title"])}<tspan dx="12" font-size="13" font-weight="400" '
            f'fill="#52606d">{_text(head["size"])}</tspan></text>',
            f'<text x="12" y="42" font-size="12" fill="{colour}">'
            f"{_text(' · '.join(head['evidence']))}</text>",
            f'<g transform="translate(0 {TOP})">',
            *(_band(band, i, height) for i, band in enumerate(drawn["bands"])),
            *(_edge(edge, drawn["nodes"]) for edge in drawn["edges"]),
            *(_node(node, head["activation"]) for node in drawn["nodes"]),
            "</g></svg>",
        ]
    )


def _band(band: dict[str, Any], i: int, height: float) -> str:
    width, middle = band["right"] - band["left"], (band["left"] + band["right"]) / 2
    size = min(12, width / len(band["name"]) * 1.7)
    long = 0.55 * size * len(band["name"])
    return (
        f'<rect x="{band["left"]}" width="{width:.1f}" height="{height}" '
        f'fill="{"#ffffff" if i % 2 else "#f6f8fa"}"/>'
        f'<text x="{middle:.1f}" y="17" font-size="{size:.1f}" font-weight="600" fill="#52606d" '
        f'text-anchor="middle">{_text(band["name"])}</text>'
        f'<rect x="{middle - long / 2:.1f}" y="23" width="{long:.1f}" height="2.5" '
        f'fill="{band["color"]}"/>'
    )


def _edge(edge: dict[str, Any], nodes: list[dict[str, Any]]) -> str:
    source, target = nodes[edge["from"]], nodes[edge["to"]]
    x, y, to_x, to_y = source["x"], source["y"], target["x"], target["y"]
    bend = BEND * (to_x - x)
    return (
        f'<path d="M{x} {y}C{x + bend:.1f} {y} {to_x - bend:.1f} {to_y} {to_x} {to_y}" '
        f'fill="none" stroke="{NEGATIVE if edge["weight"] < 0 else POSITIVE}" '
        f'stroke-width="{edge["width"]}" stroke-opacity="{edge["opacity"]}"/>'
    )


def _node(node: dict[str, Any], what: str) -> str:
    x, y, r = node["x"], node["y"], node["size"]
    look = f'fill="{node["color"]}" stroke="#fff" stroke-width="1.5"'
    words = node["name"] or f"feature {node['feature']}"
    tip = f"{words}\n{node['id']}\n{what} {node['activation']:.3g}, score {node['score']:.3g}"
    text, halo = node["label"], 'stroke="#fff" stroke-width="3" paint-order="stroke"'
    if node["shape"] == "box":
        room = node["widthConstraint"]["maximum"]  # px
        size = min(13, room / (0.55 * len(text)))
        wide = 0.55 * size * len(text) + 14
        return (
            f'<g><rect x="{x - wide / 2:.1f}" y="{y - 15:.1f}" width="{wide:.1f}" height="30" '
            f'rx="5" {look}/><text x="{x}" y="{y + 4.5:.1f}" font-size="{size:.1f}" '
            f'fill="#fff" text-anchor="middle">{_text(text)}</text></g>'
        )
    if node["shape"] == "dot":
        mark = f'<circle cx="{x}" cy="{y}" r="{r}" {look}>'
    else:
        turn = f' transform="rotate(45 {x} {y})"' if node["shape"] == "diamond" else ""
        corner, side = f'x="{x - r:.1f}" y="{y - r:.1f}"', f'width="{2 * r:.1f}"'
        mark = f'<rect {corner} {side} height="{2 * r:.1f}" {look}{turn}>'
    return (
        f"<g>{mark}<title>{_text(tip)}</title></{mark[1:].partition(' ')[0]}>"
        f'<text x="{x}" y="{y + r + 13:.1f}" font-size="12" fill="#323f4b" text-anchor="middle" '
        f"{halo}>{_text(text)}</text></g>"
    )


def _text(text: str) -> str:
    """Escape text for XML, which has no place for most control characters."""
    return html.escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text))
