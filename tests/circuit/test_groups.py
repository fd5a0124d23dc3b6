from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from circuit_toolkit.circuit import Circuit
from circuit_toolkit.errors import InputError
from tests.circuit.made_up import made_up_circuit
from tests.circuit.test_circuit import END, by_hand, every_kind

A, B, C = "blocks.0.hook_resid_pre/3", "blocks.0.hook_resid_post/9", "blocks.0.hook_resid_post/1"


def in_thirds(circuit: Circuit, seed: int) -> Circuit:
    """Put two thirds of the nodes at random into two supernodes."""
    ids = np.random.default_rng(seed).permutation(circuit.ids()[:-1])
    third = len(ids) // 3
    return circuit.group("first", ids[:third]).group("second", ids[third : 2 * third].tolist())


def test_a_supernode_is_beside_the_tables():
    circuit = made_up_circuit()
    ids = circuit.ids()
    named = circuit.group("names", [ids[5], ids[2], ids[5]])
    assert named.groups == {"names": [ids[2], ids[5]]} and circuit.groups == {}
    assert named.nodes is circuit.nodes and named.evidence == circuit.evidence
    assert named.node_table()["group"].tolist() == [
        "names" if i in (2, 5) else "" for i in range(len(ids))
    ]
    graph = named.to_networkx()
    assert [graph.nodes[each]["group"] for each in ids[2:6]] == ["names", "", "", "names"]
    assert " edges, 1 supernode, target: " in repr(named) and "supernode" not in repr(circuit)
    assert named.ungroup("names").groups == {}
    assert named.with_evidence({}).groups == named.groups


@pytest.mark.parametrize("seed", range(3))
def test_edges_between_supernodes_are_those_of_the_quotient_graph(seed):
    circuit = in_thirds(made_up_circuit(seed=seed), seed)
    sums = circuit.supernode_edges()
    grouped = {each for nodes in circuit.groups.values() for each in nodes}
    parts = {name: set(nodes) for name, nodes in circuit.groups.items()}
    parts |= {each: {each} for each in circuit.ids() if each not in grouped}
    graph, name = circuit.to_networkx(), list(parts)

    def total(one, other):  # networkx's own adds up both directions
        between = graph.edges(one, data="weight")
        return {"weight": sum(weight for _, end, weight in between if end in other)}

    quotient = nx.quotient_graph(graph, [*parts.values()], edge_data=total, relabel=True)
    want = {(name[s], name[t]): weight for s, t, weight in quotient.edges(data="weight")}
    assert set(zip(sums["source"], sums["target"], strict=True)) == set(want)
    for source, target, weight in sums.itertuples(index=False):
        assert weight == pytest.approx(want[source, target], abs=1e-6)  # sums of float32
    assert (np.diff(sums["weight"].abs()) <= 0).all()
    inner = circuit.edges["weight"].sum() - sums["weight"].sum()
    labels = circuit.node_table()["group"].to_numpy()
    both = labels[circuit.edges["source"]] == labels[circuit.edges["target"]]
    both &= labels[circuit.edges["source"]] != ""
    assert inner == pytest.approx(circuit.edges["weight"][both].sum(), abs=1e-5)


def test_edges_between_supernodes_by_hand():
    sums = by_hand().group("both", [A, B]).supernode_edges()
    assert sums[["source", "target"]].values.tolist() == [["both", END]]
    assert sums["weight"][0] == pytest.approx(-0.2 + 0.9)  # a's and b's; a's on b is inside
    assert by_hand().supernode_edges()["weight"].tolist() == pytest.approx([0.9, 0.5, -0.2])
    assert by_hand().prune(max_edges=0).supernode_edges().empty


def test_nodes_that_go_leave_their_supernode():
    circuit = by_hand().group("post", [B, C]).group("pre", [A])
    assert circuit.prune().groups == {"post": [B], "pre": [A]}  # c has no path to the target
    assert circuit.prune(max_edges=1).groups == {"post": [B]}
    assert circuit.prune(max_features=0).groups == {}
    kept = circuit.subgraph(np.array([True, False, False, True]))
    assert kept.groups == {"pre": [A]} and circuit.groups == {"post": [B, C], "pre": [A]}


@pytest.mark.parametrize(
    ("name", "nodes", "message"),
    [
        ("x", ["blocks.9/1"], "no node 'blocks.9/1' for supernode 'x'.*ids()"),
        ("x", [END], f"{END} is a target"),
        ("x", [C], r"is in supernode 'taken' already.*circuit.ungroup\('taken'\)"),
        ("x", [], "has no nodes"),
        ("x", A, "must be a list of ids, got 'blocks"),
        ("x", 3, "must be a list of ids, got 3"),
        ("x", by_hand(), "must be a list of ids, got a Circuit"),
        ("x", [0], "takes ids of nodes, got 0"),
        ("x", [[A]], "takes ids of nodes, got a list"),
        ("taken", [A], "a supernode 'taken' already"),
        (A, [B], f"A node is called '{A}'"),
        (" ", [A], "name must be a text"),
        (["x"], [A], "name must be a text, got a list"),
    ],
)
def test_what_is_no_supernode_is_refused(name, nodes, message):
    with pytest.raises(InputError, match=message):
        by_hand().group("taken", [C]).group(name, nodes)


def test_what_is_no_grouping_is_refused():
    with pytest.raises(InputError, match="no supernode 'x', only taken"):
        by_hand().group("taken", [A]).ungroup("x")
    with pytest.raises(InputError, match="groups must be a dict"):
        replace(every_kind(), groups=[["a", "embed"]])
    with pytest.raises(InputError, match="is in supernode 'a' already"):
        replace(every_kind(), groups={"a": ["embed"], "b": ["embed"]})
