"""Mixtures of roles: found from activations alone, and clusters compared with the roles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import circuit_toolkit as ct
from benchmarks.descriptions.mixtures import (
    Mixture,
    agreement_table,
    cluster_agreement,
    find_mixtures,
    roles_of,
)
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.sites import Site

SITE = Site("mlp_in", 3)


@pytest.fixture(scope="module")
def sentences():
    return list(Grammar(11).sentences(500))


def made_up(sentences, on):
    """Activations of features that fire on the words for which a function says so."""
    roles = [each for sentence in sentences for each in sentence.roles()]
    rng = np.random.default_rng(0)
    values = np.array([[rule(each) for rule in on] for each in roles], dtype=np.float32)
    values *= rng.uniform(0.5, 1, size=values.shape).astype(np.float32)
    lengths = [len(sentence.words) for sentence in sentences]
    return Activations(
        {SITE: sp.csr_array(values)},
        np.repeat(np.arange(len(sentences)), lengths),
        np.concatenate([np.arange(1, n + 1) for n in lengths]),
        [["<bos>", *(word.text for word in sentence.words)] for sentence in sentences],
        np.arange(len(sentences)),
    )


def test_planted_mixtures_are_found_and_nothing_else(sentences):
    acts = made_up(
        sentences,
        [
            lambda r: "year" in r or "argument 3" in r,  # a mixture
            lambda r: "end year" in r,  # one role
            lambda r: "number" in r,  # one class
            lambda r: len(r) % 7 == 0 and "function word" not in r,  # of no role
            lambda r: "word gave" in r,  # too rare
        ],
    )
    found = find_mixtures(acts, sentences)
    first = next(each for each in found if each.index == 0)
    assert set(first.roles) <= {"year", "argument 3"} and len(first.roles) == 2
    assert first.union_f1 > 0.99 > 0.8 > first.one_f1
    assert sum(first.shares) == pytest.approx(1) and first.name == f"{SITE}/0"
    assert {each.index for each in found} <= {0, 3}
    with pytest.raises(MismatchError, match="rows for"):
        find_mixtures(acts, sentences[1:])


def test_agreement_is_that_of_the_adjusted_rand_index():
    roles = np.array([0, 0, 0, 1, 1, 1, -1])
    same = cluster_agreement(roles, np.array([5, 5, 5, 2, 2, 2, 2]))
    assert same == {"ari": 1, "ari_clustered": 1, "noise": 0, "clusters": 2, "n": 6}
    noisy = cluster_agreement(roles, np.array([0, 0, -1, 1, 1, -1, 0]))
    assert noisy["ari_clustered"] == 1 and noisy["noise"] == pytest.approx(1 / 3)
    assert 0 < noisy["ari"] < 1
    assert cluster_agreement(roles, np.zeros(7, int))["ari"] == 0
    assert cluster_agreement(roles, np.full(7, -1))["ari_clustered"] == 0
    with pytest.raises(InputError, match="No example has a role"):
        cluster_agreement(np.full(3, -1), np.zeros(3, int))


def test_roles_of_examples_are_those_of_their_words(demo, demo_transcoders, sentences):
    texts = [sentence.text for sentence in sentences]
    site = {SITE: demo_transcoders[SITE]}
    acts = ct.capture(demo, site, texts, progress=False)
    found = find_mixtures(acts, sentences)
    assert found and all(each.one_f1 < 0.8 and each.union_f1 >= 0.6 for each in found)
    assert all(len(each.roles) in (2, 3) and min(each.shares) >= 0.15 for each in found)
    mixture = found[0]
    lens = CircuitLens(n_outputs=0, n_examples=50)
    circuits = lens.analyse(demo, demo_transcoders, texts, mixture.name, acts=acts)
    roles = roles_of(mixture, circuits, sentences)
    for role, row in zip(roles, circuits.table.itertuples(), strict=True):
        word = sentences[row.prompt].words[row.position - 1]
        assert word.text == row.token.strip()
        mine = sentences[row.prompt].roles()[row.position - 1]
        assert role < 0 or mixture.roles[role] in mine
    assert (roles >= 0).mean() > 0.7


def test_clusters_of_mixtures_match_their_roles(demo, demo_transcoders, sentences):
    """Four of those that benchmarks/circuit_lens.py lists, on other texts."""
    mixtures = [
        Mixture(Site("mlp_in", layer), index, roles, (), 0, 0, 0)
        for layer, index, roles in (
            (2, 105, ("word everyone", "word after")),
            (2, 336, ("year", "argument 3")),
            (3, 309, ("end year", "name")),
            (3, 336, ("end year", "argument 3")),
        )
    ]
    lens = CircuitLens(n_outputs=0, theta_head=6)
    texts = [sentence.text for sentence in sentences]
    circuits = [lens.analyse(demo, demo_transcoders, texts, each.name) for each in mixtures]
    table = agreement_table(mixtures, circuits, sentences)
    assert list(table["roles"])[0] == "word everyone / word after"
    # the wanted agreement; three features have to have it
    assert (table["ari"] >= 0.7).sum() >= 3
    assert (table["noise"] < 0.3).all() and (table["n"] > 20).all()
