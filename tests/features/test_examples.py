"""Examples of a feature on texts made by hand, and from memory and store alike."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import circuit_toolkit as ct
from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.examples import feature_examples
from circuit_toolkit.sites import Site
from tests.sinks import with_sinks, without_first

SITE = Site("mlp_in", 0)


def made(texts: list[list[float]], **settings) -> Activations:
    """One feature, its value on each token of each text; token 1 of text p is called `p`."""
    prompt = np.repeat(np.arange(len(texts)), [len(each) for each in texts])
    position = np.concatenate([np.arange(len(each)) for each in texts])
    values = np.concatenate([np.asarray(each, np.float32) for each in texts])
    tokens = [[f"{p}" if t == 1 else f"w{t}" for t in range(len(x))] for p, x in enumerate(texts)]
    features = {SITE: sp.csr_array(values[:, None])}
    return Activations(features, prompt, position, tokens, np.arange(len(texts)), settings=settings)


def maxima(examples) -> list[float]:
    return [each.values[each.position] for each in examples]


def test_top_quantiles_density_and_histogram():
    texts = [[0, 0, float(k), 0, 0] for k in range(1, 41)] + [[0.0, 0.0]] * 10
    found = feature_examples(made(texts), SITE, 0, n=3, n_quantile=2)
    assert maxima(found.top) == [40, 39, 38]
    assert found.top[0].tokens == ("w0", "39", "w2", "w3", "w4") and found.top[0].position == 2
    assert found.density == 40 / 220 and found.prompt_density == 40 / 50
    assert found.maximum == 40 and sum(found.counts) == 40
    counts, edges = np.histogram(np.arange(1, 41), 20, (0, 40))
    assert list(found.counts) == counts.tolist() and list(found.edges) == edges.tolist()
    assert [(low, high) for low, high, _ in found.quantiles] == [
        (1, 10),
        (11, 20),
        (21, 30),
        (31, 40),
    ]
    for low, high, examples in found.quantiles:
        assert len(examples) == 2
        assert all(low <= value <= high for value in maxima(examples))
    assert found.to_dict()["density"] == found.density


def test_no_text_twice():
    acts = made([[0, 0, 5.0], [0, 0, 5.0], [0, 0, 3.0]])
    acts.tokens[1] = list(acts.tokens[0])
    found = feature_examples(acts, SITE, 0)
    assert maxima(found.top) == [5, 3]
    assert found.n_fired_prompts == 3  # densities count what was captured


def test_a_window_holds_the_strongest_token():
    line = [0.0] * 50
    line[30], line[28] = 4.0, 1.0
    found = feature_examples(made([line]), SITE, 0, window=3).top[0]
    assert len(found.tokens) == 7 and found.tokens[found.position] == "w30"
    assert found.values == (0, 1, 0, 4, 0, 0, 0) and found.before and found.after
    whole = feature_examples(made([line]), SITE, 0, window=None).top[0]
    assert len(whole.tokens) == 50 and not whole.before and not whole.after
    short = feature_examples(made([line[28:34]]), SITE, 0, window=3)  # 6 tokens, at 2
    first = short.top[0]
    assert not first.before and not first.after and len(first.tokens) == 6
    assert short.to_dict()["top"][0]["after"] is False


def test_a_feature_that_never_fires():
    found = feature_examples(made([[0.0, 0.0]]), SITE, 0)
    assert found.maximum == 0 and not found.top and not found.quantiles and found.density == 0


def test_the_beginning_of_the_sequence_does_not_count():
    found = feature_examples(made([[9.0, 0, 1.0], [9.0, 0, 0]], bos=True), SITE, 0)
    assert found.maximum == 1 and found.n_tokens == 4 and len(found.top) == 1
    assert found.top[0].values == (0, 0, 1)


def test_a_store_gives_what_memory_gives(demo, demo_transcoders, tmp_path):
    some = {SITE: demo_transcoders[SITE]}
    texts = ["the boys near the cabinet", "Anna went to the store", "Mary met John", "the dog"] * 3
    memory = ct.capture(demo, some, texts, batch_size=4, progress=False)
    store = ct.capture(demo, some, texts, batch_size=4, store=tmp_path / "s", progress=False)
    feature = int(np.argmax(memory.features[SITE].sum(0)))
    a, b = (feature_examples(acts, SITE, feature) for acts in (memory, store))
    assert a.to_dict() == b.to_dict() and len(a.top) <= 4
    examples = memory.examples(SITE, feature, 8)  # prompts, strongest first
    assert [list(each.tokens) for each in a.top] == [memory.tokens[p] for p in examples]


def test_what_cannot_be_is_refused():
    acts = made([[0, 0, 5.0], [0, 0, 3.0]])
    with pytest.raises(InputError, match="was not captured, only"):
        feature_examples(acts, "mlp_in 3", 0)
    with pytest.raises(InputError, match="features 0 to 0, got 1"):
        feature_examples(acts, SITE, 1)
    with pytest.raises(InputError, match="not every token"):
        feature_examples(acts.pooled("mean"), SITE, 0)
    with pytest.raises(InputError, match="not every token"):
        feature_examples(acts.pooled("last"), SITE, 0)
    with pytest.raises(InputError, match="n must be at least 0"):
        feature_examples(acts, SITE, 0, n=-1)


def test_sinks_are_no_examples_and_do_not_count(demo, demo_transcoders):
    some = {SITE: demo_transcoders[SITE]}
    texts = ["the boys near the cabinet", "Anna went to the store", "Mary met John", "the dog"]
    acts = ct.capture(demo, some, texts, progress=False)
    loud, bare = with_sinks(acts), without_first(acts)
    for feature in np.argsort(-bare.features[SITE].sum(0))[:5].tolist():
        found = feature_examples(loud, SITE, feature).to_dict()
        assert found == feature_examples(bare, SITE, feature).to_dict()
        assert found["maximum"] < 1000 and found["n_tokens"] == len(acts.prompt) - len(texts)
        assert loud.examples(SITE, feature) == bare.examples(SITE, feature)
