"""Texts of a stranger: scripts, templates, marks that turn words around, halves, long ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from tests.hostile import is_name

LONG = 100_000
# Where a browser runs one of these, it calls `ran` with the number of the text.
_RUN = "ran(NUMBER)"
_FAR = "http://evil.example/NUMBER"
KINDS = {
    "script": [
        f"<script>{_RUN}</script>",
        f"</script><script>{_RUN}</script>",
        f"</title></style></textarea><script>{_RUN}</script>",
        f"<!--><script>{_RUN}</script-->",
        f"]]><script>{_RUN}</script>",
        f"<svg><script>{_RUN}</script></svg>",
        f"\\u003cscript>{_RUN}</script>",
        f"';{_RUN};//",
        f'";{_RUN};//',
        f"`;{_RUN};//",
        f"\u2028{_RUN}\u2029",
    ],
    "handler": [
        f"<img src=x onerror={_RUN}>",
        f"<svg onload={_RUN}>",
        f'"><svg onload={_RUN}>',
        f"'><img src=x onerror={_RUN}>",
        f'" onmouseover={_RUN} onfocus={_RUN} autofocus tabindex=0 x="',
        f"' onclick={_RUN} style='animation:x' onanimationstart={_RUN} x='",
        f"<details open ontoggle={_RUN}>",
        f"<body onload={_RUN}><input autofocus onfocus={_RUN}>",
        f"</svg><math><mtext><img src=x onerror={_RUN}>",
    ],
    "address": [
        f"<img src={_FAR}>",
        f"<link rel=stylesheet href={_FAR}>",
        f"<iframe src={_FAR}></iframe>",
        f"<iframe srcdoc='<script>parent.{_RUN}</script>'></iframe>",
        f"<a href='javascript:{_RUN}'>x</a>",
        f"javascript:{_RUN}",
        f"<style>@import url({_FAR});</style>",
        f"red;background:url({_FAR})",
        f'"/><image href="{_FAR}"/><use href="{_FAR}#x"/>',
        f"<meta http-equiv=refresh content='0;url={_FAR}'><base href={_FAR}/>",
    ],
    "template": [
        "{{ 1331 * 1331 }}",
        "{% for x in ().__class__.__mro__ %}{{ x }}{% endfor %}",
        "{{ cycler.__init__.__globals__ }}",
        "${1331 * 1331}",
        "${" + _RUN + "}",
        "<%= 1331 * 1331 %>",
        "#{1331 * 1331}",
        "%{x} %{customdata} {0} {x!r} %s %n",
        "$\\href{javascript:" + _RUN + "}{x}$",
    ],
    "bidirectional": ["\u202egpj.exe", "\u2066a\u2067b\u2069c\u2069", "\u200f\u061cab\u200e"],
    "unseen": ["a\u200bb\u200d\u2060\ufeff", "\u00ad\u034f", "\u3164", "\U000e0041\U000e0042"],
    "half": ["a\ud800b", "\udfff", "\udc80\ud83d", "\ud83d\ude00 in two"],
    "terminal": [
        "\x1b[2J\x1b[1;1Hgone",
        "\x1b]0;title\x07\x1b]8;;" + _FAR + "\x1b\\link\x1b]8;;\x1b\\",
        "\x9b31mred",
        "over\rwritten\b\b\x7f",
        "line\nforged line",
        "bell\x07\x0e\x1bP+q\x1b\\",
    ],
    "zero": ["a\x00b", "\x00", "\x01\x02\ufffe\uffff"],
    "path": [
        "../../../etc/passwd",
        "..\\..\\windows\\system32",
        "/etc/passwd",
        "~/x",
        "file:///etc/passwd",
        "a/b\\c:d*e?f",
        ".",
        "..",
    ],
    "reserved": ["CON", "nul.txt", "__proto__", "constructor", "toString", "target", "None", "NaN"],
    "long": ["a" * LONG, "<b>" * (LONG // 3), "🙂" * (LONG // 4), "a " * (LONG // 2)],
}


def hostile_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Kinds and texts; all of them begin with what tells them apart, or end with it."""
    rng, found = random.Random(seed), []
    for number in range(count):
        kind = rng.choice([*KINDS])
        text = rng.choice(KINDS[kind]).replace("NUMBER", str(number))
        if kind not in ("reserved", "path") and rng.random() < 0.5:
            text = f"{rng.choice(['', ' ', 'Mary, ', '<', '&lt;'])}{text}{rng.choice(['', '#'])}"
        found.append((kind, text))
    return found


def filled(value: Any, texts: Iterator[str]) -> Any:
    """The same value with a hostile text in place of every one that names no site or feature."""
    if isinstance(value, str):
        return value if is_name(value) else next(texts)
    if isinstance(value, dict):
        return {key: filled(item, texts) for key, item in value.items()} | {next(texts): 1.0}
    return type(value)(filled(each, texts) for each in value) if isinstance(value, list) else value


def endless(texts: list[str]) -> Iterator[str]:
    return itertools.cycle(texts)
