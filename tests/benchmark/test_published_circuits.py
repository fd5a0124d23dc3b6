"""Known circuits: counts of their sources, places in the model, edges by rules told twice."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from circuit_toolkit.benchmark.published_circuits import (
    CANONICAL,
    canonical_circuit,
)
from circuit_toolkit.errors import InputError

LISTS = [circuit for lists in CANONICAL.values() for circuit in lists.values()]


def named(task, variant="acdc"):
    """Heads as their sources write them."""
    return {f"{layer}.{head}" for layer, head in canonical_circuit(task, variant).heads}


@pytest.mark.parametrize("circuit", LISTS, ids=lambda c: f"{c.task}-{c.variant}")
def test_heads_are_in_the_model_once_and_edges_go_forward(circuit):
    assert CANONICAL[circuit.task][circuit.variant] is circuit
    assert circuit.models and circuit.source.endswith(".")
    assert list(circuit.heads) == sorted({*circuit.heads})
    assert len(circuit.heads) == sum(len(role.heads) for role in circuit.roles)
    for layer, head in circuit.heads:
        assert 0 <= layer < circuit.n_layers and 0 <= head < circuit.n_heads
    assert all(0 <= layer < circuit.n_layers for layer in circuit.mlps)
    mask = circuit.mask()
    assert mask.shape == (circuit.n_layers, circuit.n_heads) and mask.dtype == bool
    assert [*zip(*np.nonzero(mask), strict=True)] == list(circuit.heads)
    assert len({*circuit.edges}) == len(circuit.edges)
    places = dict(pieces(circuit.n_layers, circuit.heads))  # of heads those of the circuit alone
    for edge in circuit.edges:
        source, target, reads = re.fullmatch(r"(.+?) -> (.+?)( [qkv])?", edge).groups()
        assert places[source] < places[target]
        assert (reads is not None) == ("." in target)
    for source, target in circuit.head_edges():
        assert source[0] < target[0] and {source, target} <= {*circuit.heads}


@pytest.mark.parametrize(
    ("task", "variant", "n", "roles"),
    [
        ("ioi", "acdc", 26, [2, 3, 4, 4, 3, 2, 8]),
        ("ioi", "oneill", 26, [2, 3, 4, 4, 3, 2, 8]),
        ("greater_than", "acdc", 9, [3, 6]),
        ("greater_than", "oneill", 9, [3, 6]),
        ("greater_than", "hanna", 11, [3, 8]),
        ("docstring", "acdc", 6, [4, 2]),
        ("docstring", "oneill", 6, [4, 2]),
        ("docstring", "blog", 11, [4, 2, 2, 3]),
    ],
)
def test_counts_are_those_of_the_sources(task, variant, n, roles):
    circuit = canonical_circuit(task, variant)
    assert len(circuit.heads) == n and [len(role.heads) for role in circuit.roles] == roles


def test_lists_differ_where_their_sources_do():
    assert named("ioi", "oneill") - named("ioi") == {"11.3"}
    assert named("ioi") - named("ioi", "oneill") == {"9.0"}
    assert named("greater_than", "oneill") == named("greater_than")
    assert named("greater_than", "hanna") - named("greater_than") == {"5.1", "8.8"}
    assert named("docstring", "oneill") ^ named("docstring") == {"1.0", "1.2"}
    assert named("docstring", "blog") - named("docstring") == {"0.1", "0.2", "0.4", "1.0", "2.3"}
    assert {c.models[0] for c in LISTS if c.task != "docstring"} == {"gpt2"}


def test_scores_of_the_published_circuits_come_out_again():
    """O'Neill and Bui's circuits against these lists: 19 of 40 heads hit, and 7 of 29."""
    found = """0.1 0.3 0.10 1.5 2.2 2.6 2.10 3.4 3.6 4.3 5.2 5.10 6.0 6.7 6.9 7.9 8.2 8.4 8.5 8.6
    8.10 8.11 9.0 9.2 9.5 9.6 9.7 9.8 9.9 10.0 10.1 10.2 10.3 10.6 10.7 10.10 11.2 11.3 11.6
    11.10"""
    spans = """0.1 0.3 0.4 1.5 1.11 2.8 3.2 5.1 5.5 5.8 5.9 6.6 6.9 7.10 8.0 8.1 8.8 8.9 8.10 8.11
    9.1 9.5 9.6 9.9 10.1 10.2 10.7 11.2 11.10"""
    for variant in ("acdc", "oneill"):
        assert len(named("ioi", variant) & {*found.split()}) == 19
    assert len(named("greater_than") & {*spans.split()}) == 7


def test_a_layer_score_has_the_published_area_under_the_curve():
    """The layer index as score: .688, .416 and .551 by the lists of O'Neill and Bui."""
    for task, area in [("ioi", 0.688), ("greater_than", 0.416), ("docstring", 0.551)]:
        mask = canonical_circuit(task, "oneill").mask()
        layers = np.broadcast_to(np.arange(len(mask))[:, None], mask.shape)
        above = layers[mask][:, None] - layers[~mask]
        assert ((above > 0) + 0.5 * (above == 0)).mean() == pytest.approx(area, abs=5e-4)


def pieces(n_layers, heads):
    """Every component of the circuit's graph with its place in the order of computation."""
    yield "input", -1.0
    yield from ((f"{layer}.{head}", float(layer)) for layer, head in heads)
    yield from ((f"mlp {layer}", layer + 0.5) for layer in range(n_layers))
    yield "output", 99.0


def by_rule(n_layers, heads, rule):
    """Slow oracle: all pairs, in order, for all letters, of which a rule says which to keep."""
    places = dict(pieces(n_layers, heads))
    return {
        f"{a} -> {b} {letter}".strip()
        for a, b in itertools.product(places, repeat=2)
        if places[a] < places[b]
        for letter in ("qkv" if "." in b else [""])
        if rule(a, b, letter)
    }


def test_edges_for_indirect_objects_are_those_that_the_rules_leave():
    circuit = canonical_circuit("ioi")
    role = {f"{layer}.{head}": r.name for r in circuit.roles for layer, head in r.heads}
    movers = {"name mover", "negative mover", "backup mover"}

    def rule(a, b, letter):
        if "mlp" in a or "mlp" in b or (a, b) == ("input", "output"):
            return True
        source, target = role.get(a, a), role.get(b, b)
        if target in movers:
            target = "mover"
        if source in movers:
            return b == "output"
        reads = {
            ("input", "previous token"): "qkv",
            ("input", "duplicate token"): "qkv",
            ("input", "S-inhibition"): "q",
            ("input", "mover"): "kv",
            ("previous token", "induction"): "kv",
            ("induction", "S-inhibition"): "kv",
            ("duplicate token", "S-inhibition"): "kv",
            ("S-inhibition", "mover"): "q",
        }
        return letter != "" and letter in reads.get((source, target), "")

    edges = {*circuit.edges}
    assert edges == by_rule(12, circuit.heads, rule)
    assert len(edges) + 3 * len(circuit.heads) == 1041  # what ACDC counts: with q, k, v of heads
    assert "4.11 -> 5.5 k" in edges and "2.2 -> 3.0 q" not in edges


def test_edges_for_greater_than_are_those_that_the_rules_give():
    circuit = canonical_circuit("greater_than")
    early, late = {"0.1", "0.3", "0.5"}, {"5.5", "6.1", "6.9", "7.10", "8.11", "9.1"}
    early_mlps = {f"mlp {i}" for i in range(4)}
    late_mlps = {f"mlp {i}" for i in range(8, 12)}
    below_9 = {f"mlp {i}" for i in range(9)}

    def rule(a, b, letter):
        return (
            (a == "input" and b in early | early_mlps)
            or (b == "output" and a in late | late_mlps)
            or any({a, b} <= group for group in (early_mlps, late_mlps, below_9))
            or (a == "0.1" and b in early_mlps)
            or (a in early | early_mlps and b in late)
            or (a in late and b in late_mlps)
            or (a in below_9 and b in late and letter == "q")
        )

    assert {*circuit.edges} == by_rule(12, circuit.heads, rule)
    assert len(circuit.edges) == 235


def test_edges_for_docstrings_are_those_that_were_listed():
    listed = """0.5 -> 1.4 v, input -> 0.5 v, input -> 1.4 v, input -> 2.0 q, input -> 2.0 k,
    0.5 -> 2.0 q, 0.5 -> 2.0 k, 1.4 -> 2.0 v, input -> 1.2 q, input -> 1.2 k, 0.5 -> 1.2 q,
    0.5 -> 1.2 k"""
    expected = {" ".join(each.split()) for each in listed.split(",")}
    for mover in ("3.0", "3.6"):
        expected |= {f"{mover} -> output", f"1.4 -> {mover} q"}
        expected |= {f"{source} -> {mover} v" for source in ("input", "0.5")}
        expected |= {f"{source} -> {mover} k" for source in ("2.0", "1.2")}
    edges = {*canonical_circuit("docstring").edges}
    assert edges == expected
    inner = {edge.split(" -> ")[1] for edge in edges if "output" not in edge}  # 13 of q, k, v
    assert len(edges) + len(inner) == 37  # what ACDC counts
    assert canonical_circuit("docstring").head_edges()[0] == ((0, 5), (1, 2))


def test_unknown_lists_are_refused_and_known_ones_cannot_be_changed():
    for task, variant in [("ioi", "hanna"), ("iou", "acdc")]:
        with pytest.raises(InputError, match="No canonical circuit .* ioi: acdc, oneill"):
            canonical_circuit(task, variant)
    with pytest.raises(dataclasses.FrozenInstanceError):
        canonical_circuit("ioi").task = "x"
