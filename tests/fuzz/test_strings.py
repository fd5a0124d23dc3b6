"""A short form of the texts of a stranger; `python -m tests.fuzz` sends a thousand."""

import pytest

from tests.fuzz import strings
from tests.fuzz.hostile_texts import KINDS, hostile_texts
from tests.fuzz.outcomes import SCRIPT, SILENT, faults

SHORT = (strings.graph_pages, strings.pictures, strings.cards)


def bare(page, texts):
    """What a view must not do: texts as markup."""
    page.set_content("".join(f"<p>{text}</p>" for text in texts))


def terminal(texts):
    assert not any("\x1b" in text for text in texts), "reaches the terminal"


@pytest.mark.browser
def test_no_text_of_a_stranger_runs_or_leaves_its_place(browser):
    assert not faults(strings.attacks(60, seed=18, views=SHORT, browser=browser))


@pytest.mark.browser
def test_a_view_that_escapes_nothing_is_found_out(browser, monkeypatch):
    monkeypatch.setattr(strings, "ALONE", (terminal,))
    found = [*strings.attacks(60, seed=18, views=[bare], browser=browser)]
    assert sum(each.result == SCRIPT for each in found) >= 5
    assert any(each.result == SILENT and "terminal" in each.told for each in found)


def test_attacks_are_of_all_kinds_and_the_same_for_a_seed():
    given = hostile_texts(300, seed=1)
    assert given == hostile_texts(300, seed=1) != hostile_texts(300, seed=2)
    assert {kind for kind, _ in given} == {*KINDS}
