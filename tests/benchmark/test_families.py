"""Every method over components runs on every family, and patching adds up there."""

from functools import partial

import numpy as np
import pytest

from circuit_toolkit.attribution.heads import head_scores
from circuit_toolkit.benchmark.comparison import compare
from circuit_toolkit.benchmark.methods import METHODS, PLAIN_ATTENTION
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import load_model
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import activation_patching, patching_effects
from circuit_toolkit.patching.paths import path_patching
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import tokenized_pairs
from tests.families import CONFIGS, random_model, word_tokenizer

TOL = 5e-5  # float32: logits up to 15, differences of two of them
PAIRS = [
    ("the old cat sat by the door ,", "the red cat sat by the tree ,", "she", "they"),
    ("a big dog sang near the tree ,", "a old dog sat near the door ,", "they", "she"),
    ("the red bird saw the old door .", "the red cat saw the old tree .", "when", "a"),
    ("when she sat near the cat they", "when they sat near the dog they", "sang", "saw"),
]


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return load_model(random_model(request.param), word_tokenizer())


@pytest.fixture(scope="module")
def task(model):
    """Prompts on which a random model is better than on the corrupted ones, so named."""
    found, rows = Task.from_pairs(model, PAIRS), range(len(PAIRS))
    pairs = tokenized_pairs(model, found)
    clean, corrupted = (
        found.metric_of(run_components(model, batch).logits, rows)
        for batch in (pairs.clean, pairs.corrupted)
    )
    better = (clean > corrupted).tolist()
    return Task.from_pairs(
        model,
        [
            (a, b, right, wrong) if keep else (a, b, wrong, right)
            for (a, b, right, wrong), keep in zip(PAIRS, better, strict=True)
        ],
    )


def test_every_method_runs(model, task):
    n = len(graph_of(model).edges)
    few = {name: partial(METHODS[name], draws=8) for name in ("randomised_lasso", "edge_lasso")}
    methods = METHODS | few
    if model.architecture.pattern is not None:  # GPT-Neo
        with pytest.raises(InputError, match="not transformers' plain one"):
            METHODS["gim"](model, task, progress=False)
        methods = {name: each for name, each in methods.items() if name not in PLAIN_ATTENTION}
    found = compare(model, task, methods, sizes=[n], progress=False)
    for name, run in found.runs.items():
        scores = edge_scores(run.circuit, graph_of(model))
        nodes = run.circuit.nodes["score"]
        assert np.isfinite(scores).all() and np.isfinite(nodes).all(), name
        assert name == "empty" or nodes.max() > 0, name
    # All edges of a method that scores all of them keep the whole.
    for name in ("edge_patching", "eap", "eap_ig", "random"):
        assert found.kept.measured[name][:, 0] == pytest.approx(found.kept.clean, abs=TOL), name


def test_all_edges_at_once_are_the_other_prompt(model, task):
    graph, pairs = graph_of(model), tokenized_pairs(model, task)
    got = patching_effects(model, task, [graph.edges, []])
    clean, corrupted = (
        task.metric_of(run_components(model, batch).logits, range(len(task)))
        for batch in (pairs.clean, pairs.corrupted)
    )
    assert (got[:, 0] - (corrupted - clean)).abs().max() <= TOL
    assert got[:, 1].abs().max() <= TOL


def test_a_head_is_patched_as_a_hook_on_what_joins_the_stream_does(model, task):
    graph, pairs = graph_of(model), tokenized_pairs(model, task)
    theirs = run_components(model, pairs.corrupted).outputs
    mine = run_components(model, pairs.clean)
    before = task.metric_of(mine.logits, range(len(task)))
    found = activation_patching(model, task, average="absolute mean")
    scores = dict(zip(graph.writers, found.nodes["score"][:-1].tolist(), strict=True))
    row = model.architecture
    for layer, head in ((0, 1), (1, 2), (2, 3)):
        name = f"a{layer}.h{head}"
        change = theirs[:, graph.writer(name)] - mine.outputs[:, graph.writer(name)]
        module = model.hf.get_submodule(row.in_block(row.attn_out, layer))
        handle = module.register_forward_hook(lambda _m, _i, out, change=change: out + change)
        try:
            after = run_components(model, pairs.clean).logits
        finally:
            handle.remove()
        want = float((task.metric_of(after, range(len(task))) - before).mean().abs())
        assert scores[name] == pytest.approx(want, abs=TOL), name


def test_a_path_to_the_logits_is_that_edge(model, task):
    edge = ("a1.h2", "logits")
    want = patching_effects(model, task, [[edge]])[:, 0]
    got = path_patching(model, task, *edge, progress=False).effect
    assert (got - want).abs().max() <= TOL and want.abs().max() > 1e-3


def test_heads_are_scored_by_gradients(model, task):
    found = head_scores(model, task, "attribution patching", progress=False)
    assert found.shape == (3, 4) and (found > 0).all()
