"""Descriptions of the bundled transcoders against the grammar and against their activations."""

import numpy as np
import pytest

from benchmarks.descriptions.roles import (
    activation_scores,
    lexical_scores,
    set_f1,
    token_roles,
)
from circuit_toolkit.demo.grammar import LEXICON
from circuit_toolkit.weight_lens import WeightLens


@pytest.fixture(scope="module")
def found(demo, demo_transcoders):
    return WeightLens().describe(demo, demo_transcoders, progress=False)


def words_of(demo, roles, names, name):
    return {demo.tokenizer.decode([i]) for i in roles[[names.index(name)]].indices}


def test_roles_of_tokens_are_those_of_the_lexicon(demo):
    roles, names = token_roles(demo)
    for name in ("female name", "city", "sign of nurse"):
        assert words_of(demo, roles, names, name) == {w for w, r in LEXICON.items() if name in r}
    assert words_of(demo, roles, names, "word Paris") == {"Paris"}


def test_f1_is_that_of_sets(demo):
    roles, names = token_roles(demo)
    rng = np.random.default_rng(0)
    sets = [rng.choice(1220, n, replace=False).tolist() for n in (1, 5, 60, 300)] + [[]]
    f1 = set_f1(sets, roles)
    assert f1.shape == (5, len(names))
    for i, each in enumerate(sets):
        for j in (names.index("name"), names.index("verb"), 0):
            role = set(roles[[j]].indices.tolist())
            expected = 2 * len(role & set(each)) / (len(role) + len(each))
            assert f1[i, j] == pytest.approx(expected)


def test_a_description_of_a_whole_class_fits_it_fully(demo):
    roles, names = token_roles(demo)
    city = roles[[names.index("city")]].indices.tolist()
    f1 = set_f1([city], roles)
    assert f1[0, names.index("city")] == 1 and f1[0].max() == 1


@pytest.mark.parametrize("preset", ["code", "paper"])
def test_descriptions_fit_roles(demo, demo_transcoders, preset):
    found = WeightLens(preset).describe(demo, demo_transcoders, progress=False)
    table = lexical_scores(demo, found).set_index("site")
    every = table.loc["all"]
    assert every["f1"] >= 0.8 and every["validated"] == len(found.validated())
    # one token fits its own word; two of them, when they are no class, reach 2/3
    assert 0.5 < every["several_f1"] < every["f1"] and 0 < every["several"] < 1
    sets = [each for site in found.shown for each in found.tokens_of(site) if each]
    assert every["several"] == pytest.approx(np.mean([len(each) > 1 for each in sets]))


def test_descriptions_agree_with_activations_far_more_than_by_chance(demo, demo_transcoders, found):
    table = activation_scores(demo, demo_transcoders, found, n=200).set_index("site")
    every = table.loc["all"]
    assert every["agree"] > 0.5 > 5 * every["shuffled"]
    assert 0.3 < every["role_f1"] < 1 and 0 < every["live"] <= len(found.validated())
    again = activation_scores(demo, demo_transcoders, found, n=200).set_index("site")
    assert again.equals(table)
