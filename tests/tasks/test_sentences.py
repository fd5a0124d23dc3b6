"""Sentences to train on: in words that no task has, and not those of the held-out templates."""

import re
from itertools import islice

import pytest

from circuit_toolkit.demo.grammar.words import word_lists
from circuit_toolkit.tasks.natural import sentences as module
from circuit_toolkit.tasks.natural import words as w


def test_no_word_is_one_of_a_task():
    mine = word_lists(module.__file__)
    assert not set(mine["names"]) & {*w.FEMALE_NAMES, *w.MALE_NAMES}
    for kind in ("places", "objects", "people", "things", "arguments", "doc_words"):
        assert not set(mine[kind]) & set(getattr(w, kind.upper())), kind


def test_sentences_repeat_by_seed_and_follow_no_held_out_template():
    first = [*islice(module.sentences(4), 400)]
    assert first == [*islice(module.sentences(4), 400)] != [*islice(module.sentences(5), 400)]
    assert all("{" not in text for text in first) and len(set(first)) > 390
    for said in w.TEMPLATES["ioi"]["held_out"]:
        form = re.compile(re.sub(r"\{\w+\}", r"\\w+", re.escape(said).replace("\\", "")))
        assert not any(form.match(text) for text in first)


def test_giving_sentences_name_the_giver_among_two_three_times_in_four():
    drawn = [text for text in islice(module.sentences(0), 2000) if "def " not in text]
    names = set(word_lists(module.__file__)["names"])
    people = [[each for each in text.replace(",", "").split() if each.strip(".") in names]
              for text in drawn]  # fmt: skip
    three = [len({each.strip(".") for each in found}) == 3 for found in people if len(found) > 2]
    assert sum(three) / len(three) == pytest.approx(0.25, abs=0.04)
