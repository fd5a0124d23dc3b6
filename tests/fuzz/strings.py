"""Texts of a stranger through every view, in a real browser: what runs, what leaves its place."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import numpy as np

import circuit_toolkit as ct
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.cli.output import markdown, warn, write, write_json
from circuit_toolkit.errors import InputError, ToolkitError
from circuit_toolkit.features.virtual import WEIGHT, VirtualWeights
from circuit_toolkit.files.documents import write_document
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.panels.explorer.opening import explore
from circuit_toolkit.panels.features import explore_features
from circuit_toolkit.panels.head_view import patterns_of
from circuit_toolkit.panels.heads import explore_heads
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.texts import whole
from circuit_toolkit.views.card.html import card_html, highlighted_text_html
from circuit_toolkit.views.figures.fit import evidence_figure, path_figure
from circuit_toolkit.views.figures.heads import (
    attention_figure,
    head_comparison_figure,
    head_figure,
)
from circuit_toolkit.views.figures.methods import compare_figure
from circuit_toolkit.views.figures.neighbours import neighbours_figure
from circuit_toolkit.views.graph.page import graph_page
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import drawable
from tests.circuit.made_up import made_up_attribution, made_up_circuit
from tests.fuzz.hostile_texts import endless, filled, hostile_texts
from tests.fuzz.outcomes import FOREIGN, NAMED, SAME, SCRIPT, SILENT, Outcome
from tests.hostile import shown
from tests.panels.screen import Screen
from tests.views.card.test_html import made_up_card

AT_ONCE = 100  # texts on a page
CHROMIUM = "/usr/bin/chromium"
Say = Callable[[int, str, str, str], None]  # number of the text, view, result, what was seen
# What only a text that became markup can be; and it is touched, so that handlers run.
STRAY = """() => {
    const stray = [], parts = ["IFRAME", "MATH", "LINK", "META", "BASE", "IMG"];
    const ours = ["src", "href", "xlink:href", "style"];
    for (const each of document.querySelectorAll("body *")) {
        for (const { name, value } of each.attributes) {
            const far = ours.includes(name) && /evil[.]example/.test(value);
            const told = /^(title|data-|aria-)/.test(name);  // words, which nothing follows
            const runs = name.startsWith("on") || (!told && /^ *javascript:/i.test(value));
            if (far || runs) stray.push(`${name}=${value.slice(0, 80)}`);
        }
        if (parts.includes(each.tagName) && /evil|ran[(]/.test(each.outerHTML))
            stray.push(each.outerHTML.slice(0, 80));
        for (const name of ["mouseover", "focus", "toggle", "animationstart"])
            each.dispatchEvent(new Event(name));
    }
    return stray;
}"""
DRAW = """async (figure) => {
    const { data, layout } = JSON.parse(figure), here = document.createElement("div");
    document.getElementById("all").append(here);
    await Plotly.newPlot(here, data, layout);
    const pointNumber = data[0].type === "heatmap" ? [0, 0] : 0;
    Plotly.Fx.hover(here, [{ curveNumber: 0, pointNumber }]);
}"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Open a browser, where there is none yet: a process may have one of playwright's at a time."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def attacks(
    count: int,
    seed: int,
    views: Sequence[Callable[[Any, list[str]], None]] | None = None,
    browser: Any = None,
) -> Iterator[Outcome]:
    """Send hostile texts through every view, panel, export, figure and line of a terminal."""
    given = hostile_texts(count, seed)
    worst: dict[int, tuple[str, str]] = {}

    def say(number: int, view: str, result: str, told: str) -> None:
        if result not in (SAME, NAMED) or number not in worst:
            worst[number] = result, f"{view}: {told}" if told else ""

    opened = chromium() if browser is None else contextlib.nullcontext(browser)
    with opened as browser, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, count))
            texts = [given[i][1] for i in numbers]
            for view in ALONE:
                _tried(say, numbers, view, texts)
            _refused(say, numbers, texts)
            for view in TOGETHER if views is None else views:
                _seen(browser, say, numbers, view, [whole(text) for text in texts])
    for number, (kind, text) in enumerate(given):
        result, told = worst.get(number, (SAME, ""))
        yield Outcome("texts", f"{kind} {text[:40]!r}", seed + number, result, told)


def _tried(say: Say, numbers: range, view: Callable, texts: list[str]) -> None:
    """Texts through a view without a browser, which compares what comes back; then the bad one."""
    kept = [text for text in texts if text == whole(text)]
    try:
        if kept:
            view(kept)
        return
    except Exception as error:
        if len(texts) > 1:
            for number, text in zip(numbers, texts, strict=True):
                _tried(say, range(number, number + 1), view, [text])
            return
        result = SILENT if isinstance(error, AssertionError) else FOREIGN
        result = NAMED if isinstance(error, ToolkitError) else result
        say(numbers[0], view.__name__, result, f"{type(error).__name__}: {str(error)[:300]}")


def _refused(say: Say, numbers: range, texts: list[str]) -> None:
    """Half characters, which no file can hold, are refused by name at every door."""
    for number, text in zip(numbers, texts, strict=True):
        for door in DOORS if text != whole(text) else ():
            try:
                door(text)
                say(number, "a door", SILENT, "half a character was taken")
            except InputError as error:
                say(number, "a door", NAMED, str(error)[:100])
            except Exception as error:
                say(number, "a door", FOREIGN, f"{type(error).__name__}: {str(error)[:200]}")


def _seen(browser: Any, say: Say, numbers: range, view: Callable, texts: list[str]) -> None:
    """Many texts on one page: what ran, what asked the network, what broke."""
    context = browser.new_context()
    ran: list[int] = []
    found: list[str] = []

    def answer(route: Any) -> None:
        if urlsplit(route.request.url).scheme in ("http", "https", "ws", "wss", "file"):
            found.append(f"asked for {route.request.url[:80]}")
            route.abort()
        else:
            route.continue_()

    context.route("**/*", answer)
    context.expose_function("toTest", lambda number: ran.append(int(number)))
    context.add_init_script("window.ran = (number) => window.toTest(number);")
    page = context.new_page()
    page.on("dialog", lambda dialog: (found.append("a dialog"), dialog.dismiss()))
    page.on("pageerror", lambda error: found.append(f"error: {str(error)[:200]}"))
    try:
        view(page, texts)
        found += page.evaluate(STRAY)
        page.wait_for_timeout(60)
        if "1771561" in page.content():
            found.append("a template was computed")
    except ToolkitError as error:
        found.append(f"refused: {error}")
    except Exception as error:
        found.append(f"{type(error).__name__}: {str(error)[:300]}")
    for number in ran:
        say(number if number in numbers else numbers[0], view.__name__, SCRIPT, "it ran")
    for told in found:
        number = next((int(n) for n in re.findall(r"\d+", told) if int(n) in numbers), numbers[0])
        say(number, view.__name__, SCRIPT if "rror" not in told else FOREIGN, told)
    context.close()


def circuit_of(texts: list[str]) -> Circuit:
    """A circuit of a data set, all of whose texts are hostile: labels, settings, supernodes."""
    more, plain = endless(texts), made_up_circuit(max(len(texts), 8), 2 * len(texts) + 8)
    nodes = plain.nodes.copy()
    nodes["label"] = [next(more) for _ in nodes]
    nodes["position"][: len(nodes) // 2] = [next(more) for _ in nodes[: len(nodes) // 2]]
    settings = filled(dict(plain.settings), more)
    made = Circuit(nodes, plain.edges, settings, filled(dict(plain.evidence), more))
    ids = made.ids()
    groups = {}
    for i, text in enumerate(dict.fromkeys(texts)):
        if text.strip() and text not in ids and 2 * i + 1 < len(ids) - 1 and i < 6:
            groups[text] = ids[2 * i : 2 * i + 2]
    return replace(made, groups=groups)


def prompt_of(texts: list[str]) -> Circuit:
    """An attribution graph of a prompt of hostile tokens."""
    made = made_up_attribution(30, 90, tokens=["<s>", *texts], targets=tuple(texts[:2]))
    settings = made.settings | {"prompt": "".join(texts), "model": texts[0]}
    return Circuit(made.nodes, made.edges, settings, made.evidence)


def files(texts: list[str]) -> None:
    """What is written comes back as it was, by our readers and by others."""
    import networkx as nx

    with tempfile.TemporaryDirectory() as folder:
        circuit, at = circuit_of(texts), Path(folder)
        again = Circuit.load(circuit.save(at / "circuit.json"))
        assert again.nodes.tolist() == circuit.nodes.tolist(), "a node came back as another"
        assert again.settings == circuit.settings and again.groups == circuit.groups
        session = write_document(at / "session.json", "session", 1, {"texts": texts})
        assert json.loads(session.read_text("utf-8"))["content"]["texts"] == texts
        ElementTree.parse(circuit.to_graphml(at / "circuit.graphml"))
        ElementTree.parse(circuit.to_svg(at / "circuit.svg"))
        circuit.to_png(at / "circuit.png")
        circuit.to_csv(at / "tables")
        with (at / "tables" / "nodes.csv").open(encoding="utf-8", newline="") as file:
            labels = [row["label"] for row in csv.DictReader(file)]
        assert labels == circuit.nodes["label"].tolist(), "a label in the CSV is another"
        assert circuit.to_html(at / "circuit.html").read_text("utf-8").count("</script>") == 2
        prompt = prompt_of([*texts, "b", "c"])
        read = json.loads(prompt.to_neuronpedia(at / "graph.json").read_text("utf-8"))
        assert read["metadata"]["prompt_tokens"][1:] == [*texts, "b", "c"]
        made_up_card(texts[0]).to_html(at / "card.html")
        files = "card.html circuit.graphml circuit.html circuit.json circuit.png circuit.svg"
        files += " graph.json session.json tables"
        assert sorted(each.name for each in at.iterdir()) == files.split()
    graph = nx.DiGraph()  # as a user writes GEXF, by networkx alone
    fits = [text for text in texts if drawable(text) == text]
    graph.add_nodes_from((i, {"label": text}) for i, text in enumerate(fits))
    ElementTree.fromstring("\n".join(nx.generate_gexf(graph)))


def terminal(texts: list[str]) -> None:
    """Nothing that a terminal would obey reaches it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for text in texts:
            write(f"one {text}", *markdown(["a", text], [["b", text]]))
            write_json({"text": text, text: 1})
            warn(f"two {text}")
            with Bar(total=2, label=text, shown=True) as bar:
                bar.update()
                bar.tell(text, figure=text)
    said = "".join(map(repr, (circuit_of(texts), prompt_of([*texts, "b"]), made_up_card(texts[0]))))
    for part, ours in ((out.getvalue(), "\n"), (err.getvalue(), "\n\r"), (said, "\n")):
        stray = {each for each in part if not each.isprintable() and each not in ours}
        assert not stray, f"reaches the terminal: {stray}"
    assert len(out.getvalue().splitlines()) == len(texts) * (4 + 4), "a line was forged"


def store(texts: list[str]) -> None:
    """Labels of a task in a store; a text as a prompt or an answer is taken, or refused by name."""
    texts = [text for text in texts if not text.endswith("\0")]  # refused, see DOORS
    model, saes = _bundled()
    with tempfile.TemporaryDirectory() as folder:
        task = ct.Task(
            "t",
            ("the boys near the cabinet",) * len(texts),
            labels={"l": tuple(texts)},
            metric=None,
        )
        kept = ct.capture(model, saes, task, store=Path(folder) / "store", progress=False)
        assert kept.load().labels["l"].tolist() == texts, "a label came back as another"
    for text in texts:
        with contextlib.suppress(ToolkitError):
            model.tokenize([text])
        with contextlib.suppress(ToolkitError):
            model.token_id(text)


DOORS: tuple[Callable[[str], Any], ...] = (
    lambda text: circuit_of([text]),
    lambda text: prompt_of([text, "b", "c"]),
    lambda text: ct.Task(text, ("the boys",), metric=None),
    lambda text: ct.Task("t", (text,), metric=None),
    lambda text: ct.Task("t", ("a",), labels={"l": (f"{text}\0",)}, metric=None),
    lambda text: _bundled()[0].tokenize([text]),
    lambda text: _bundled()[0].token_id(text),
    lambda text: made_up_circuit(8, 8).group(text, made_up_circuit(8, 8).ids()[:2]),
    lambda text: ct.generate(_bundled()[0], text, ct.zero("attn_out 1"), progress=False),
)


def graph_pages(page: Any, texts: list[str]) -> None:
    for circuit in (circuit_of(texts), prompt_of(texts[:25])):
        page.set_content(graph_page(circuit))
        page.wait_for_function("window.circuitView")
        for name in [*circuit.ids()[:4], circuit.ids()[-1], *list(circuit.groups)[:3]]:
            page.evaluate("(name) => circuitView.choose([name])", name)
        assert not page.evaluate(STRAY)


def pictures(page: Any, texts: list[str]) -> None:
    page.set_content(f"{graph_svg(circuit_of(texts))}{graph_svg(prompt_of(texts[:25]))}")


def cards(page: Any, texts: list[str]) -> None:
    more = endless(texts)
    made = [
        replace(made_up_card(text), name=f"{text}/3", kind=text, settings=filled({"a": "b"}, more))
        for text in texts[::4]
    ]
    words = highlighted_text_html(texts, [1.0] * len(texts))
    page.set_content("".join([*map(card_html, made), words]))


def figures(page: Any, texts: list[str]) -> None:
    from plotly.offline import get_plotlyjs

    shorter = [text[:2000] for text in texts]
    rows = np.zeros(len(texts), WEIGHT)
    rows["source"], rows["weight"] = np.arange(len(texts)), 1
    a, b = Site("mlp_in", 1), Site("mlp_in", 2)
    rows["source_site"], rows["target_site"] = 0, 1
    weights = VirtualWeights(rows, (a, b), ("direct",))
    n = min(len(texts), 30)
    drawn = [
        attention_figure(np.eye(n), texts[:n], title=texts[0]),
        *(head_figure(np.eye(2), title=text, unit=text) for text in shorter[:6]),
        neighbours_figure(weights, b, 0, labels={a: texts, b: texts}),
        evidence_figure(circuit_of(shorter)),
        path_figure(np.array([0.1, 1]), np.array([0.1, 0.2]), fit_name=shorter[-1]),
        compare_figure(_compared(shorter[:8])),
        head_comparison_figure(_ranked(shorter[:8])),
    ]
    page.set_content("<div id=all></div>")
    page.add_script_tag(content=get_plotlyjs())
    for figure in drawn:
        page.evaluate(DRAW, figure.to_json())
    assert page.locator("#all a").count() == len(page.query_selector_all(".modebar a")), "a link"


def panel_of_features(page: Any, texts: list[str]) -> None:
    panel, descriptions = _features()
    more, site = endless(texts), descriptions.shown[0]
    stranger = replace(
        descriptions,
        settings=descriptions.settings | {"preset": texts[0], "model": texts[1 % len(texts)]},
        strings={token: next(more) for token in descriptions.strings},
        concepts={(str(site), index): next(more) for index in range(100)},
    )
    panel._take(stranger)
    for text in texts[:6]:
        panel._search.value = text
        panel._go.value = text
        page.set_content("".join(shown(panel)))
        assert not page.evaluate(STRAY)
    panel._search.value = ""
    page.set_content("".join(shown(panel)))


def explorer(page: Any, texts: list[str]) -> None:
    panel, more = _explorer(), endless(texts)
    nodes = panel.circuit.nodes.copy()
    nodes["label"] = [next(more) for _ in nodes]
    panel.circuit = replace(panel.circuit, nodes=nodes, groups={})
    screen = Screen(page, panel)
    names = panel.circuit.ids()
    groups = [text for text in dict.fromkeys(texts) if text.strip() and text not in names][:6]
    panel.groups = {name: names[i : i + 1] for i, name in enumerate(groups)}
    panel.mark_unknown(texts[0], texts[:10])
    for name in (names[0], names[-1], groups[0]):
        panel.selected = name
        screen.settle()
    panel._busy = {"error": "".join(texts[:20]), "of": "prompt"}
    screen.settle()
    assert not screen.errors, screen.errors[:2]
    panel.selected, panel.groups = "", {}


def panel_of_heads(page: Any, texts: list[str]) -> None:
    panel, more = _heads(), endless(texts)
    nodes = panel.circuit.nodes.copy()
    nodes["label"] = [next(more) for _ in nodes]
    panel.circuit = replace(panel.circuit, nodes=nodes)
    screen, n = Screen(page, panel), min(len(texts), 12)
    panel._patterns = patterns_of(texts[:n], {next(more): np.eye(n)})
    panel._about = {**panel._about, "names": [next(more), next(more)]}
    panel._busy = {"error": "".join(texts[:20]), "of": "train"}
    screen.settle()
    assert not screen.errors, screen.errors[:2]


def _compared(names: list[str]) -> Any:
    """Methods of hostile names, as the figure reads them."""
    import pandas as pd

    names = list(dict.fromkeys(names))
    table = pd.DataFrame([{"cpu_seconds": 1.0, "cpr": 0.5}] * len(names), index=names)
    found = {"kept": 0.5, "low": 0.4, "high": 0.6}
    curves = [{"method": name, "size": size, **found} for name in names for size in (1, 2)]
    return SimpleNamespace(table=table, curves=pd.DataFrame(curves), runs=dict.fromkeys(names))


def _ranked(names: list[str]) -> Any:
    """Ways to find heads, of hostile names."""
    row = {"node_auc": 0.5, "node_auc_spread": 0.1, "uses": "activations"}
    return SimpleNamespace(rows=[row | {"method": name} for name in names], truth=np.zeros(4))


@cache
def _bundled() -> tuple[Any, Any]:
    model = ct.load_model("demo")
    return model, ct.load_dictionaries(model, sites=["resid_post 1"])


@cache
def _features() -> tuple[Any, Any]:
    from circuit_toolkit.demo.grammar import Grammar

    model, _ = _bundled()
    few = dict(list(ct.load_dictionaries(model, kind="transcoder").items())[:1])
    found = ct.WeightLens("paper").describe(model, few, progress=False)
    prompts = [sentence.text for sentence in Grammar(5).sentences(20)]
    return explore_features(model, few, prompts, descriptions=found, progress=False), found


@cache
def _explorer() -> Any:
    model, _ = _bundled()
    return explore(model, ct.load_dictionaries(model), ct.tasks.agreement(model, n=20))


@cache
def _heads() -> Any:
    model, _ = _bundled()
    codes = HeadCodes(n_features=20, n_seeds=1, steps=5)
    return explore_heads(model, ct.tasks.agreement(model, n=12), codes=codes)


ALONE = (files, terminal, store)
TOGETHER = (graph_pages, pictures, cards, figures, panel_of_features, explorer, panel_of_heads)
