"""No text of anybody becomes markup or script, whatever view shows it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.views.card.html import card_html, card_page, highlighted_text_html
from circuit_toolkit.views.graph.page import graph_page
from circuit_toolkit.views.graph.svg import graph_svg
from circuit_toolkit.views.rendering import render, script, stylesheet
from tests.circuit.made_up import made_up_circuit
from tests.hostile import ATTACKS, harmless, hostile
from tests.views.card.test_html import made_up_card


@pytest.fixture(params=ATTACKS)
def attack(request):
    return request.param


def hostile_circuit(attack) -> Circuit:
    circuit = made_up_circuit(6, 6)
    nodes = circuit.nodes.copy()
    nodes["label"] = attack
    settings = hostile(circuit.settings, attack)
    return Circuit(nodes, circuit.edges, settings, hostile(circuit.evidence, attack))


def test_every_text_of_a_circuit_stays_text(attack):
    circuit = hostile_circuit(attack)
    assert attack in circuit.settings and attack in circuit.settings["method"]
    assert harmless(graph_svg(circuit), attack)
    assert harmless(circuit._repr_html_(), attack)
    page = graph_page(circuit)
    own = page[page.rindex("const scene = ") :]  # behind the scripts of the package
    assert harmless(own.replace("</script>", "", 1), attack)
    assert page.count("</script>") == 2


def test_every_text_of_a_card_stays_text(attack):
    card = made_up_card(attack)
    fields = {
        name: hostile(value, attack)
        for name, value in vars(card).items()
        if isinstance(value, dict | tuple) and name != "examples"
    }
    fields["circuit_lens"]["clusters"][0]["description"] = attack
    for each in (card, replace(card, **fields, kind=attack, name=f"{attack}/3")):
        assert isinstance(each, FeatureCard)
        assert harmless(card_html(each), attack) and harmless(card_page(each), attack)


def test_tokens_of_a_prompt_stay_text(attack):
    shown = highlighted_text_html([attack, " a"], [1.0, 0.0])
    assert harmless(shown, attack) and "rgba(" in shown


def test_what_the_package_ships_is_not_escaped():
    assert "=>" in script("views/static/graph.js") and "&gt;" not in script("views/static/graph.js")
    assert re.search(r"--ct-teal: #\w{6};", stylesheet("views/static/card.css"))
    assert render("panels/templates/note.html", text="<b>", kind="plain") == (
        '<div class="ct-note ct-plain">&lt;b&gt;</div>'
    )
