"""The attribution graph beside circuit-tracer's: what is compared, on graphs made by hand, and how.

The last test runs circuit-tracer itself, where its environment is there: CIRCUIT_TRACER_PYTHON, as
`benchmarks/peers/README.md` says.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file

from benchmarks import attribution_graph
from benchmarks.peers.exported import export, with_positions
from benchmarks.peers.graphs import ERROR, FEATURE, TARGET, TOKEN, Graph, compare
from benchmarks.peers.process import memory, timed

PEER = os.environ.get("CIRCUIT_TRACER_PYTHON")


def by_hand() -> Graph:
    """Two tokens, two features, an error and a target."""
    keys = [
        (FEATURE, 0, 1, 7),
        (FEATURE, 1, 1, 3),
        (ERROR, 0, 1, 0),
        (TOKEN, 0, 0, 1),
        (TOKEN, 0, 1, 44),
        (TARGET, 2, 1, 9),
    ]
    adjacency = np.zeros((6, 6), np.float32)
    adjacency[0, 4] = 3
    adjacency[1, [0, 2, 3]] = 2, -1, 0.001
    adjacency[5, [0, 1, 4]] = 1, 10, -4
    return Graph(
        keys=np.array(keys),
        adjacency=sp.csr_array(adjacency),
        activations=np.array([2.0, 5.0]),
        probabilities=np.array([0.75]),
        n_active=2,
        nodes=[np.array([True, True, False, True, True, True])],
        edges=[np.array([[0, 4], [5, 1], [5, 4]])],
        scores=np.array([0.8, 0.9]),
        costs={},
    )


def in_another_order(graph: Graph, order: list[int]) -> Graph:
    """The same graph, with its nodes in another order, which keeps the order within a kind."""
    where = np.argsort(order)
    return replace(
        graph,
        keys=graph.keys[order],
        adjacency=sp.csr_array(graph.adjacency[order][:, order]),
        nodes=[mask[order] for mask in graph.nodes],
        edges=[where[pairs] for pairs in graph.edges],
    )


def test_a_graph_equals_itself_in_another_order(tmp_path):
    graph = by_hand()
    other = in_another_order(graph, [3, 4, 0, 2, 1, 5])
    other.write(tmp_path / "graph.npz")
    found = compare(graph, Graph.read(tmp_path / "graph.npz"))
    assert found["nodes"] == 6 and found["nodes_of_one"] == 0 and found["active"] == [2, 2]
    errors = {name: x for name, x in found.items() if name.endswith("_error")}
    assert set(errors.values()) == {0}
    assert found["pruned"] == [{"nodes": 5, "nodes_of_one": 0, "edges": 3, "edges_of_one": 0}]


def test_errors_of_edges_are_shares_of_the_row_and_of_large_edges_themselves():
    graph = by_hand()
    weights = graph.adjacency.toarray()
    weights[5, 0] += 0.02  # a tenth of the row's largest edge: 0.2 % of that, 2 % of itself
    weights[1, 3] += 0.001  # a two-thousandth of it: its own 100 % do not count
    found = compare(replace(graph, adjacency=sp.csr_array(weights)), graph)
    assert found["row_error"] == pytest.approx(0.002, rel=1e-4)
    assert found["edge_error"] == pytest.approx(0.02, rel=1e-4)
    gone = weights.copy()
    gone[5, 1] = 0  # an edge that one side lacks counts in full
    found = compare(replace(graph, adjacency=sp.csr_array(gone)), graph)
    assert found["row_error"] == found["edge_error"] == 1


def test_what_one_side_alone_has_is_counted():
    graph = by_hand()
    keys = graph.keys.copy()
    keys[0, 3] = 8  # another feature
    other = replace(
        graph,
        keys=keys,
        activations=np.array([99.0, 5.5]),
        probabilities=np.array([0.5]),
        scores=np.array([0.8, 0.7]),
        edges=[graph.edges[0][1:]],
    )
    found = compare(graph, other)
    assert found["nodes"] == 5 and found["nodes_of_one"] == 2
    assert found["activation_error"] == pytest.approx(1 - 5 / 5.5)  # of the common feature
    assert found["probability_error"] == 0.25 and found["score_error"] == pytest.approx(0.2)
    assert found["pruned"] == [{"nodes": 4, "nodes_of_one": 2, "edges": 2, "edges_of_one": 1}]


def test_what_is_exported_computes_what_the_model_does(demo, demo_transcoders, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    export(demo, demo_transcoders.values(), tmp_path)
    module = GPT2LMHeadModel(GPT2Config.from_json_file(tmp_path / "config.json"))
    module.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    module.tie_weights()
    ids = torch.tensor([[1, 324, 27, 96, 280, 27]])
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(ids).logits, demo.hf(ids).logits)
    places = json.loads((tmp_path / "sites.json").read_text())
    assert places == {"reads": "ln2.hook_normalized", "writes": "hook_mlp_out"}
    assert len(list(tmp_path.glob("transcoder-*"))) == demo.n_layers
    x = torch.randn(5, demo.width, generator=torch.Generator().manual_seed(0))
    for dictionary in demo_transcoders.values():
        w = load_file(tmp_path / f"transcoder-{dictionary.out.layer}.safetensors")
        pre = x @ w["W_enc"].T + w["b_enc"]
        acts = pre * (pre > w["activation_function.threshold"])
        torch.testing.assert_close(acts, dictionary.encode(x))
        torch.testing.assert_close(acts @ w["W_dec"] + w["b_dec"], dictionary.decode(acts))


def test_a_longer_model_is_the_same_where_both_have_positions(demo):
    longer = with_positions(demo, 100)
    assert longer.context == 100 and with_positions(demo, demo.context) is demo
    ids = torch.randint(3, 900, (1, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(longer.hf(ids).logits, demo.hf(ids).logits)
        assert longer.hf(ids.repeat(1, 2)[:, :100]).logits.isfinite().all()


def test_prompts_are_as_long_as_they_say(demo):
    found = list(attribution_graph.cases(demo))
    assert {len(case.ids) for case in found if case.name == "text"} == {64}
    longer = [case for case in found if case.positions > demo.context]
    assert [len(case.ids) for case in longer] == [500, 1000, 2000]
    assert all(case.ids[0] == demo.bos_id and case.ids.count(demo.bos_id) == 1 for case in found)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is Linux's count")
def test_memory_is_that_of_one_call_and_time_of_the_calls_after_it():
    large = bytearray(300 << 20)
    large[::4096] = bytes(len(large[::4096]))
    del large  # a peak before the call does not count
    calls = []

    def call():
        block = bytearray((100 << 20) if not calls else 1)
        block[::4096] = b"x" * len(block[::4096])
        calls.append(len(block))
        return len(calls)

    result, cost = timed(call, 3)
    assert result == len(calls) == 4
    assert 95 < cost["peak"] - cost["before"] < 140
    assert memory()["now"] < cost["peak"]
    assert 0 < cost["cpu"] < 0.1 and 0 < cost["wall"] < 1


def test_our_side_runs_in_a_process_of_its_own(demo, tmp_path):
    case = next(each for each in attribution_graph.cases(demo) if each.name == "greater_than")
    row = attribution_graph.beside(case, 1, 1, None, tmp_path, tmp_path)
    assert row["n_nodes"] == 100 + 7 * 6 + 10 and row["n_active"] > 100
    assert row["ours"]["largest_error"] < 1e-4 and row["ours"]["attribute"]["cpu"] > 0
    table = attribution_graph.costs([row])
    assert "| greater_than | 6 | 100 of" in table and attribution_graph.agreement([row])


@pytest.mark.skipif(
    not PEER, reason="CIRCUIT_TRACER_PYTHON is not set; benchmarks/peers/README.md makes it"
)
def test_the_graph_is_circuit_tracers(demo, demo_transcoders, tmp_path):
    exported = tmp_path / "exported"
    export(demo, demo_transcoders.values(), exported)
    for case in attribution_graph.cases(demo):
        if case.name != "greater_than":
            continue
        few = replace(case, batch_sizes=(64,))
        row = attribution_graph.beside(few, 1, 1, PEER, exported, tmp_path)
        assert row["nodes_of_one"] == 0 and row["active"][0] == row["active"][1]
        assert row["row_error"] < 1e-3 and row["edge_error"] < 1e-3
        assert row["activation_error"] < 1e-4 and row["probability_error"] < 1e-4
        assert row["score_error"] < 1e-4
        for each in row["pruned"]:
            assert each["nodes_of_one"] == each["edges_of_one"] == 0 and each["edges"] > 20
