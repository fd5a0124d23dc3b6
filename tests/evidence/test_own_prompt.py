"""A circuit on one prompt: its words, its features, its target, against single interventions."""

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import InputError

TEXT = "Mary and Tom went to the store. Tom gave a ring to"


@pytest.fixture(scope="module")
def saes(demo_saes):
    return {
        ct.Site("resid_post", layer): demo_saes[ct.Site("resid_post", layer)] for layer in (2, 4)
    }


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.ioi(demo, n=128)


@pytest.fixture(scope="module")
def circuit(demo, saes, task):
    acts = ct.capture(demo, saes, task, progress=False)
    fit = ct.CircuitLasso(folds=0).fit(acts, task, model=demo, dictionaries=saes, progress=False)
    return fit.circuit(0.1, max_features=60)


@pytest.fixture(scope="module")
def found(demo, saes, task, circuit):
    return ct.on_prompt(circuit, demo, saes, TEXT, task, answers=("Mary", "Tom"))


def test_its_words_and_its_target_are_those_of_the_prompt(found, demo):
    words = found.nodes[found.nodes["kind"] == "token"]
    assert {"Mary", "Tom"} <= set(words["label"].tolist())
    said = TEXT.replace(".", " .").split()
    for index, label in words[["index", "label"]].tolist():
        assert said[index - 1] == label, "<bos> is token 0"
    own = ct.Task.from_pairs(demo, [(TEXT, TEXT, "Mary", "Tom")])
    metric = float(ct.intervene(demo, own, [], progress=False).metric[0])
    assert found.nodes["label"][-1] == "logit(Mary) - logit(Tom)"
    assert found.nodes["activation"][-1] == pytest.approx(metric, rel=1e-5)
    assert f"logit(Mary) - logit(Tom) = {metric:+.1f}" in repr(found)


def test_edges_are_what_one_intervention_takes(found, demo, saes, task):
    """Setting a feature to its mean by `intervene` takes the same share of the metric."""
    acts = ct.capture(demo, saes, task, "last", progress=False)
    own = ct.Task.from_pairs(demo, [(TEXT, TEXT, "Mary", "Tom")])
    plain = float(ct.intervene(demo, own, [], progress=False).metric[0])
    end, compared = len(found.nodes) - 1, 0
    for edge in found.edges[found.edges["target"] == end]:
        kind, site, _, index, *_ = found.nodes[edge["source"]].tolist()
        if kind != "feature":
            continue
        site = ct.Site.parse(site)
        mean = float(acts.features[site][: len(task), [index]].mean())
        change = ct.put(site, mean, features=[index], positions="last")
        after = ct.intervene(demo, own, [change], dictionaries=saes, progress=False).metric[0]
        assert edge["weight"] == pytest.approx((plain - float(after)) / plain, abs=1e-4)
        assert edge["status"] == "confirmed" and edge["low"] == edge["high"] == edge["weight"]
        compared += 1
    assert compared > 5


def test_it_says_how_the_circuit_fares_on_this_prompt(found):
    ablation = found.evidence["ablation"]
    assert ablation["evaluated_on"]["n"] == 1 and len(ablation["random_faithfulness"]) == 10
    assert ablation["faithfulness"] > np.mean(ablation["random_faithfulness"])
    assert "faithfulness_interval" not in ablation, "one prompt has no scatter"
    assert found.settings["scope"] == "prompt" and found.settings["left_out"] == []


def test_a_prompt_of_a_task_brings_its_answers_and_corrupted_prompt(demo, saes, task, circuit):
    found = ct.on_prompt(circuit, demo, saes, task.select([3]), task)
    assert found.settings["ablation"] == "corrupted"
    acts = ct.capture(demo, saes, task, "last", progress=False)
    assert found.nodes["activation"][-1] == pytest.approx(acts.metric[3], rel=1e-5)


def test_the_likeliest_tokens_are_the_answers_if_none_are_given(demo, saes, task, circuit):
    found = ct.on_prompt(circuit, demo, saes, TEXT, task)
    assert found.nodes["activation"][-1] > 0


def test_words_count_by_what_goes_without_them(found, demo):
    """A word made an average one: the names carry more of the metric than the verb."""
    words = found.nodes[found.nodes["kind"] == "token"]
    score = dict(zip(words["index"].tolist(), words["score"].tolist(), strict=True))
    said = ["<bos>", *TEXT.replace(".", " .").split()]
    assert said[1] == "Mary" and score[1] > 3 * score[said.index("gave")]
    assert f"{len(words)} words" in found.summary()[0]


def test_what_cannot_be_is_refused(demo, saes, task, circuit):
    for wrong in ({"positions": "S2"}, {"random_sets": 0}, {"answers": ("Mary", 3)}):
        with pytest.raises(InputError, match=next(iter(wrong)).partition("_")[0]):
            ct.on_prompt(circuit, demo, saes, TEXT, task, **wrong)
    with pytest.raises(InputError, match="two texts"):
        ct.on_prompt(circuit, demo, saes, TEXT, task, answers="Mary")
    with pytest.raises(InputError, match="task of 128 prompts"):
        ct.on_prompt(circuit, demo, saes, task, task)
    with pytest.raises(InputError, match="No dictionary"):
        ct.on_prompt(circuit, demo, {min(saes): saes[min(saes)]}, TEXT, task)
    elsewhere = ct.find_circuit(demo, saes, task, positions=["S2"], n_prompts=64, progress=False)
    with pytest.raises(InputError, match="say where"):
        ct.on_prompt(elsewhere, demo, saes, TEXT, task)
    with pytest.raises(InputError, match="tokens"):
        ct.on_prompt(elsewhere, demo, saes, TEXT, task, positions={"S2": 99})
    there = ct.on_prompt(elsewhere, demo, saes, TEXT, task, positions={"S2": -5})
    assert {"S2"} == set(there.nodes["position"][there.nodes["kind"] == "feature"].tolist())
