"""No text of a stranger's file, task or prompt becomes markup in a panel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.panels.explorer.opening import explore
from circuit_toolkit.panels.features import explore_features
from circuit_toolkit.panels.head_view import patterns_of
from circuit_toolkit.panels.heads import explore_heads
from tests.hostile import ATTACKS, harmless, shown
from tests.panels.screen import Screen, features_of

ATTACK = " ".join(ATTACKS)


def all_harmless(panel) -> bool:
    values = list(shown(panel))
    assert len(values) > 3 and any("&lt;img" in value for value in values)
    return all(harmless(value, ATTACK) for value in values)


def stranger(descriptions):
    """Descriptions as a stranger's file may hold them."""
    site = descriptions.shown[0]
    return replace(
        descriptions,
        settings={**descriptions.settings, "preset": ATTACK, "model": ATTACK},
        strings={token: f"{ATTACK}{token}" for token in descriptions.strings},
        concepts={(str(site), index): ATTACK for index in range(50)},
    )


@pytest.fixture(scope="module")
def described(demo, demo_transcoders):
    few = dict(list(demo_transcoders.items())[:2])
    return few, ct.WeightLens("paper").describe(demo, few, progress=False)


def test_the_panel_of_features(demo, described):
    dictionaries, descriptions = described
    prompts = [sentence.text for sentence in Grammar(5).sentences(40)]
    panel = explore_features(
        demo, dictionaries, prompts, descriptions=stranger(descriptions), progress=False
    )
    assert all_harmless(panel) and "&lt;img" in panel._status.value
    assert "&lt;img" in panel._card.value
    panel._search.value = "Mary"
    assert all_harmless(panel)
    panel._go.value = ATTACK
    assert "names no feature" in panel._status.value and all_harmless(panel)
    panel._search.value = ATTACK
    assert all_harmless(panel)
    panel._search.value = ""
    panel.analyse()
    assert all_harmless(panel)


@pytest.mark.browser
def test_the_explorer(demo, demo_saes, page):
    panel = explore(demo, demo_saes, replace(ct.tasks.agreement(demo, n=60), name=ATTACK))
    nodes = panel.circuit.nodes.copy()
    nodes["label"] = ATTACK
    names = {site: [ATTACK] * 2000 for site in panel._source.known}
    panel._source.examples = panel._source.examples[0], names
    panel.circuit = replace(panel.circuit, nodes=nodes)
    screen = Screen(page, panel)
    for name in (panel.circuit.ids()[-1], features_of(panel)[0]):
        panel.selected = name
        screen.settle()
        told = page.locator(".ct-side").inner_text()
        assert ATTACKS[0].strip() in told and page.locator("img").count() == 0
        assert harmless(panel._node.get("html") or "&lt;img", ATTACK)
    panel.groups = {ATTACK: features_of(panel)[:2]}
    panel.mark_unknown(ATTACK, ATTACK.split())
    panel.selected = ATTACK
    panel._busy = {"error": ATTACK, "of": "prompt"}
    screen.settle()
    assert page.locator("img, script:not([type])").count() == 0
    assert page.evaluate("window.evil") is None and not screen.errors
    assert harmless(panel._still_output()["text/html"], ATTACK)


@pytest.mark.browser
def test_the_panel_of_heads(demo, monkeypatch, page):
    task = replace(ct.tasks.agreement(demo, n=24), name=ATTACK)
    panel = explore_heads(demo, task, codes=HeadCodes(n_features=20, n_seeds=1, steps=5))
    panel.compare()
    panel.by, panel.selected = "head codes", (3, 3)
    assert all(harmless(html, ATTACK) for html in panel._about.values() if isinstance(html, str))
    screen = Screen(page, panel)
    nodes = panel.circuit.nodes.copy()
    nodes["label"] = ATTACK
    panel.circuit = replace(panel.circuit, nodes=nodes)
    panel._patterns = patterns_of([ATTACK, "b"], {ATTACK: np.eye(2)})
    panel._about = {**panel._about, "names": [ATTACK]}
    panel._busy = {"error": ATTACK, "of": "train"}
    screen.settle()
    for each in (".ct-names", ".ct-task", ".ct-pattern", ".ct-progress"):
        assert ATTACKS[0].strip() in page.locator(each).first.text_content()
    assert page.locator("img, script:not([type])").count() == 0
    assert page.evaluate("window.evil") is None and not screen.errors
    assert harmless(panel._still_output()["text/html"], ATTACK)
