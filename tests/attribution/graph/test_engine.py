"""Rows of the graph: sums hold, gradients are autograd's, and held runs move as edges say."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.graph.engine import attribute
from circuit_toolkit.attribution.graph.pruning import node_influence, normalised
from circuit_toolkit.circuit.tables import ids_of
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.weights import in_block
from circuit_toolkit.sites import Site
from tests.attribution.frozen_oracle import Gradients, changed
from tests.circuit_lens.small import PLAIN, SKIPS, transcoders_of
from tests.dictionaries.published import about, family_model, write
from tests.families import PROMPTS
from tests.stories import stories_case

FAMILIES = ["gpt2", "pythia", "neox-sequential", "llama", "qwen2", "qwen3", "gemma2", "gemma3"]


def ids_in(model, prompt):
    return model.tokenize([prompt]).ids[0]


def expect_sums(graph):
    """What enters each node adds up to what the model has there."""
    total = np.asarray(graph.adjacency.sum(1)) + graph.bias
    value = graph.value
    terms = np.asarray(abs(graph.adjacency).sum(1)) + np.abs(graph.bias)
    rows = graph.has_row
    strong = rows & (np.abs(value) > 0.01 * terms)  # the others are 0 by terms that cancel
    assert strong.sum() > rows.sum() / 2
    # float32: sums of some thousand terms; 1e-4 is what the field asks for
    np.testing.assert_allclose(total[strong], value[strong], rtol=1e-4, atol=0)
    np.testing.assert_array_less(np.abs(total - value)[rows], 1e-5 * terms[rows])
    assert 0 < graph.largest_error < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kinds", [PLAIN, SKIPS], ids=["plain", "skips"])
@pytest.mark.parametrize("processed", [False, True])
def test_sums_hold_in_every_family(family, kinds, processed, tmp_path):
    model = family_model(family)
    transcoders = transcoders_of(model, tmp_path, kinds, processed)
    ids = ids_in(model, PROMPTS[0])
    graph = attribute(model, transcoders, ids)
    expect_sums(graph)
    nodes = graph.nodes
    for site, each in transcoders.items():  # values are those of the model and its transcoders
        acts = each.encode(run(model, model.tokenize([PROMPTS[0]]), [site])[site])[0]
        mine = (nodes["kind"] == "feature") & (nodes["site"] == str(site))
        places = nodes["position"][mine].astype(int)
        at = torch.tensor(places), torch.tensor(nodes["index"][mine])
        # another implementation of attention: float32 rounding
        np.testing.assert_allclose(graph.value[mine], acts[at], rtol=1e-5, atol=1e-5)
        assert mine.sum() == int((acts[1:] > 0).sum()) and 0 not in places  # 0 is the beginning
    errors = nodes["kind"] == "error"
    assert errors.sum() == model.n_layers * len(ids)
    is_mlp = nodes["label"] == "MLP"
    assert is_mlp.sum() == len(ids) * (model.n_layers - len(kinds))
    assert graph.adjacency[:, np.flatnonzero(is_mlp)].nnz > 0 or len(kinds) == model.n_layers


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_gradients_of_the_models_own_modules(family, tmp_path):
    model = family_model(family)
    transcoders = transcoders_of(model, tmp_path, SKIPS)
    ids = ids_in(model, PROMPTS[0])
    graph = attribute(model, transcoders, ids)
    oracle, nodes = Gradients(model, dict(transcoders)), graph.nodes
    dense = graph.adjacency.toarray()
    rng = np.random.default_rng(0)
    last = np.flatnonzero((nodes["kind"] == "feature") & (nodes["site"] == str(max(transcoders))))
    for target in rng.choice(last, 4, replace=False):
        node = nodes[target]
        site = Site.parse(node["site"])
        value, at_embed, behind = oracle.of(ids, site, int(node["index"]), int(node["position"]))
        assert graph.value[target] == pytest.approx(float(value), rel=1e-5)
        tokens = nodes["kind"] == "token"
        embed = run(model, model.tokenize([PROMPTS[0]]), [Site("embed")])[Site("embed")][0]
        close = {"rtol": 1e-4, "atol": 1e-5}  # another order of float32 sums
        np.testing.assert_allclose(dense[target, tokens], (embed * at_embed).sum(1), **close)
        for source_site, each in transcoders.items():
            mine = np.flatnonzero(
                (nodes["kind"] == "feature") & (nodes["site"] == str(source_site))
            )
            g = behind[each.out.layer][nodes["position"][mine].astype(int)]
            rows = each.writes.revert_difference(each.directions)[nodes["index"][mine].tolist()]
            expected = torch.tensor(nodes["activation"][mine]) * (rows * g).sum(1)
            np.testing.assert_allclose(dense[target, mine], expected, **close)


def test_sums_hold_on_the_bundled_model(demo, demo_transcoders):
    for task in (ct.tasks.ioi(demo, n=2), ct.tasks.docstring(demo, n=1), ct.tasks.bios(demo, n=1)):
        for text in task.clean:
            graph = attribute(demo, demo_transcoders, ids_in(demo, text))
            expect_sums(graph)
            assert graph.largest_error < 2e-5 and not graph.left_out


def test_sums_hold_on_a_real_llama(shared_data):
    model, transcoders, prompts = stories_case(shared_data)
    for prompt in prompts[:3]:
        graph = attribute(model, transcoders, torch.tensor(prompt))
        expect_sums(graph)
        assert set(graph.nodes["label"][graph.nodes["kind"] == "error"]) == {"error", "MLP"}


def test_held_runs_move_as_edges_say(demo, demo_transcoders):
    """Patterns, norm factors and MLPs of the model's own modules held: a feature set to 0."""
    text = ct.tasks.ioi(demo, n=1).clean[0]
    batch = demo.tokenize([text])
    graph = attribute(demo, demo_transcoders, batch.ids[0])
    nodes, dense = graph.nodes, graph.adjacency.toarray()
    influence = node_influence(normalised(graph.adjacency), graph.weights)
    features = np.flatnonzero(nodes["kind"] == "feature")
    strongest = features[np.argsort(-influence[features])[:20]]
    layers = range(demo.n_layers)
    held = [Site(kind, layer) for kind in ("attn_pattern", "mlp_out") for layer in layers]
    clean = run(demo, batch, [*held, LOGITS])
    row = demo.architecture
    norms = [in_block(demo, path, n) for path in (row.attn_norm, row.mlp_norm) for n in layers]
    norms.append(demo.hf.get_submodule(row.final_norm))
    factors = {}

    def factor(norm, x):
        y = x - x.mean(-1, keepdim=True)
        return (y.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt()

    def noting(norm):
        def forward(x):
            factors[norm] = factor(norm, x)
            return (x - x.mean(-1, keepdim=True)) * factors[norm] * norm.weight + norm.bias

        return forward

    def fixed(norm):
        return lambda x: (x - x.mean(-1, keepdim=True)) * factors[norm] * norm.weight + norm.bias

    def logits_with(write, make):
        with ExitStack() as stack:
            for norm in norms:
                stack.enter_context(changed(norm, make(norm)))
            return run(demo, batch, [LOGITS], write)[LOGITS][0, -1]

    plain = {site: (lambda x, value=clean[site]: value) for site in held}
    base = logits_with(plain, noting)
    torch.testing.assert_close(base, clean[LOGITS][0, -1], rtol=1e-5, atol=1e-4)
    target = int(nodes["index"][-1])
    for source in strongest:
        site, at = Site.parse(nodes["site"][source]), int(nodes["position"][source])
        transcoder = demo_transcoders[site]
        moved = clean[transcoder.out].clone()
        moved[0, at] -= (
            float(nodes["activation"][source]) * transcoder.directions[int(nodes["index"][source])]
        )
        now = logits_with({**plain, transcoder.out: lambda x, moved=moved: moved}, fixed)
        change = (now - now.mean())[target] - (base - base.mean())[target]
        # 1e-3 of the effect is wanted; logits of about 20 in float32 leave 1e-5 of themselves
        assert float(change) == pytest.approx(-dense[-1, source], rel=1e-3, abs=1e-4)
    assert np.abs(dense[-1, strongest]).max() > 0.5


def test_a_limit_takes_the_features_of_the_largest_influence(demo, demo_transcoders):
    ids = ids_in(demo, ct.tasks.ioi(demo, n=1).clean[0])
    full = attribute(demo, demo_transcoders, ids)
    some = attribute(demo, demo_transcoders, ids, max_features=300)
    names, kept = np.array(ids_of(full.nodes)), ids_of(some.nodes)
    rows = [int(np.flatnonzero(names == name)[0]) for name in kept]
    assert (some.nodes["kind"] == "feature").sum() == 300
    assert len(some.active) == len(full.active) == (full.nodes["kind"] == "feature").sum()
    # the same rows, another batch: float32 rounding of single terms
    wanted = full.adjacency[rows][:, rows].toarray()
    np.testing.assert_allclose(some.adjacency.toarray(), wanted, rtol=1e-3, atol=1e-5)
    influence = node_influence(normalised(full.adjacency), full.weights)
    is_feature = full.nodes["kind"] == "feature"
    best = set(names[is_feature][np.argsort(-influence[is_feature])[:100]])
    assert len(best & set(kept)) > 90  # influence so far is an estimate
    rng = np.random.default_rng(0)
    assert len(best & set(rng.choice(names[is_feature], 300, replace=False))) < 30


def test_the_strongest_inputs_are_kept(demo, demo_transcoders):
    ids = ids_in(demo, ct.tasks.ioi(demo, n=1).clean[0])
    full = attribute(demo, demo_transcoders, ids)
    few = attribute(demo, demo_transcoders, ids, max_inputs=50)
    a, b = np.abs(full.adjacency.toarray()), np.abs(few.adjacency.toarray())
    assert (np.count_nonzero(b, axis=1) <= 50).all() and np.count_nonzero(b, axis=1).max() == 50
    for row in np.flatnonzero(full.has_row)[::97]:
        expected = np.sort(a[row])[::-1][:50]
        np.testing.assert_allclose(np.sort(b[row])[::-1][:50], expected, rtol=1e-4)
    left = 1 - b.sum(1) / np.maximum(a.sum(1), 1e-30)
    assert few.left_out == pytest.approx(left[full.has_row].max(), rel=1e-3)
    assert few.largest_error == pytest.approx(full.largest_error, rel=1e-6)  # of whole sums


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "pythia"])
def test_whoever_reads_behind_an_autoencoder_reads_its_features(family, tmp_path):
    model = family_model(family)
    for name, site, out in (
        ("a", Site("resid_post", 0), None),
        ("b", Site("mlp_in", 1), Site("mlp_out", 1)),
        ("c", Site("resid_pre", 2), None),
    ):
        kind = "jumprelu" if out is None else "jumprelu_transcoder"
        write(tmp_path / name, kind, model.width, about(model, str(site), out and str(out)))
    known = {**ct.load_dictionaries(model, tmp_path)}
    known |= ct.load_dictionaries(model, tmp_path, kind="transcoder")
    graph = attribute(model, known, ids_in(model, PROMPTS[0]))
    expect_sums(graph)
    site = graph.nodes["site"]
    edges = graph.adjacency.tocoo()
    pairs = set(zip(site[edges.coords[1]], site[edges.coords[0]], strict=True))
    first, middle, last = (str(each) for each in sorted(known))
    assert (first, middle) in pairs and (middle, last) in pairs and (last, "target") in pairs
    assert ("token", first) in pairs and (first, last) in pairs  # past the MLP between
    for source in ("token", first, middle):  # nothing passes the last autoencoder
        assert (source, "target") not in pairs
    assert ("token", last) not in pairs and ("token", middle) not in pairs


def test_dictionaries_that_make_no_graph_are_refused(tmp_path):
    model = family_model("gpt2")
    write(tmp_path / "a", "jumprelu", model.width, about(model, str(Site("resid_post", 0))))
    write(tmp_path / "b", "jumprelu", model.width, about(model, str(Site("resid_pre", 1))))
    write(tmp_path / "c", "jumprelu", model.width, about(model, str(Site("attn_out", 1))))
    known, ids = ct.load_dictionaries(model, tmp_path), ids_in(model, PROMPTS[0])
    with pytest.raises(InputError, match="are the same stream: pass one"):
        attribute(model, {s: d for s, d in known.items() if s.kind != "attn_out"}, ids)
    with pytest.raises(InputError, match="needs transcoders of MLPs, or autoencoders of the resid"):
        attribute(model, {s: d for s, d in known.items() if s.kind == "attn_out"}, ids)
