"""However a circuit is found, no two of its features share a name."""

from collections import Counter
from dataclasses import replace

import pytest

import circuit_toolkit as ct

TEXT = "Mary and Tom went to the store. Tom gave a ring to"


def named(circuit):
    """Names of features, each made of the one that all were given."""
    names = circuit.nodes["label"][circuit.nodes["kind"] == "feature"].tolist()
    assert len(names) > 3 and all(name.startswith("to") for name in names)
    return names


@pytest.fixture(scope="module")
def saes(demo_saes):
    return {ct.Site("resid_post", at): demo_saes[ct.Site("resid_post", at)] for at in (2, 4)}


@pytest.fixture(scope="module")
def same(demo_saes, demo_transcoders):
    return {site: ["to"] * 768 for site in (*demo_saes, *demo_transcoders)}


def test_circuits_of_a_fit_and_of_one_prompt(demo, saes, same):
    task = ct.tasks.ioi(demo, n=128)
    acts = ct.capture(demo, saes, task, progress=False)
    labels = {site: same[site] for site in saes}
    fit = ct.CircuitLasso(folds=0, positions=("S2", "last")).fit(
        acts, task, labels, model=demo, dictionaries=saes, progress=False
    )
    observed = ct.CircuitLasso(folds=0).fit(acts, task, labels, progress=False)
    for circuit in (fit.circuit(0.1), fit.circuit(0.1, prompt=3), observed.circuit(0.1)):
        assert max(Counter(named(circuit)).values()) == 1
    assert fit.circuit(0.1, prompt=3).settings["prompt"] == task.clean[3]
    whole = fit.circuit(0.1)
    nodes = whole.nodes.copy()
    nodes["label"][:-1] = "to"  # as in a file of before
    found = ct.on_prompt(replace(whole, nodes=nodes), demo, saes, task.select([0]), task)
    assert max(Counter(named(found)).values()) == 1


def test_an_attribution_graph(demo, demo_transcoders, same):
    graph = ct.attribution_graph(demo, demo_transcoders, TEXT, labels=same, progress=False)
    assert max(Counter(named(graph)).values()) == 1


def test_a_tested_circuit(demo, saes, same):
    tasks = ct.tasks.ioi(demo, n=32), ct.tasks.ioi(demo, n=16, seed=1, test=True)
    found = ct.find_circuit(demo, saes, *tasks, random_sets=2, labels=same, progress=False)
    assert max(Counter(named(found)).values()) == 1
