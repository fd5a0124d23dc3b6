import json
import os
import re
import stat
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch

from circuit_toolkit.circuit.circuit import EDGE, NODE, TARGET, Circuit
from circuit_toolkit.circuit.evidence import evidence_lines
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.sites import Site
from tests.circuit.made_up import made_up_circuit


def by_hand():
    """a drives b; a and b drive the target; c drives nothing."""
    nodes = np.array(
        [
            ("blocks.0.hook_resid_pre", 3, 1.0, 2.0, "a"),
            ("blocks.0.hook_resid_post", 9, 0.5, 1.0, "b"),
            ("blocks.0.hook_resid_post", 1, 0.5, 4.0, "c"),
            (TARGET, 0, 0.0, 0.0, "logit difference"),
        ],
        dtype=NODE,
    )
    edges = np.array([(0, 1, 0.5, 0.5), (0, 3, -0.2, 0.2), (1, 3, 0.9, 0.9)], dtype=EDGE)
    return Circuit(nodes, edges, {"method": "by hand"})


def same(a, b):
    tables = [(getattr(a, name), getattr(b, name)) for name in ("nodes", "edges")]
    return all(np.array_equal(x, y) for x, y in tables) and (a.settings, a.evidence) == (
        b.settings,
        b.evidence,
    )


def test_what_a_circuit_made_by_hand_says():
    circuit = by_hand()
    first, second = "blocks.0.hook_resid_pre/3", "blocks.0.hook_resid_post/9"
    assert circuit.ids() == [first, second, "blocks.0.hook_resid_post/1", "target"]
    features = {site: found.tolist() for site, found in circuit.features().items()}
    assert features == {Site("resid_pre", 0): [3], Site("resid_post", 0): [1, 9]}
    assert circuit.depths().tolist() == [0, 1, 1, 2]
    table = circuit.node_table()
    assert table["site"].tolist() == ["resid_pre 0", "resid_post 0", "resid_post 0", "target"]
    edges = circuit.edge_table()  # the strongest first
    assert edges["source"].tolist() == [second, first, first]
    assert edges["target_label"].tolist() == ["logit difference", "b", "logit difference"]
    assert edges.index.tolist() == [2, 0, 1]


def test_to_networkx_is_the_same_graph():
    circuit = made_up_circuit()
    graph = circuit.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert list(graph) == circuit.ids()
    assert all(nx.has_path(graph, node, TARGET) for node in graph)
    weights = nx.to_numpy_array(graph, weight="weight")
    edges = circuit.edges
    np.testing.assert_allclose(weights[edges["source"], edges["target"]], edges["weight"])
    assert np.count_nonzero(weights) == len(edges)
    assert graph.graph["evidence"] == circuit.evidence


def test_pruning_by_hand():
    circuit = by_hand()
    assert circuit.prune().ids() == [circuit.ids()[i] for i in (0, 1, 3)]  # c goes: no path
    assert circuit.prune(max_features=1).ids() == ["target"]  # c has the best score, and no path
    assert circuit.prune(max_features=2).edges["weight"].tolist() == [np.float32(-0.2)]
    assert circuit.prune(min_score=0.4).ids() == circuit.prune(max_edges=2).ids()
    assert circuit.prune(max_edges=1).ids() == ["blocks.0.hook_resid_post/9", "target"]
    assert circuit.prune(max_features=0).ids() == ["target"]


@pytest.mark.parametrize("limits", [{"max_features": 12}, {"max_edges": 30}, {"min_score": 0.3}])
def test_what_pruning_keeps(limits):
    circuit = made_up_circuit(seed=1)
    pruned = circuit.prune(**limits)
    assert 1 < len(pruned.nodes) <= limits.get("max_features", 40) + 1
    assert len(pruned.edges) <= limits.get("max_edges", 110)
    assert (pruned.edges["score"] >= limits.get("min_score", 0)).all()
    graph = pruned.to_networkx()
    assert all(nx.has_path(graph, node, TARGET) for node in graph)
    assert pruned.prune(**limits) is pruned
    whole = circuit.to_networkx()
    assert set(graph) <= set(whole)
    assert all(whole.edges[edge] == graph.edges[edge] for edge in graph.edges)


def test_evidence_belongs_to_the_circuit_that_was_tested():
    circuit = made_up_circuit()
    assert circuit.prune() is circuit  # nothing goes, so the evidence stays
    pruned = circuit.prune(max_features=10)
    assert pruned.evidence == {} and pruned.settings == circuit.settings
    assert "unvalidated: no evidence yet" in repr(pruned)
    tested = pruned.with_evidence({"fit": {"held_out_r2": 0.5}})
    assert "held-out R² 0.50" in repr(tested) and "unvalidated" not in tested._repr_html_()
    assert pruned.evidence == {}


def test_subgraph_keeps_what_is_asked():
    circuit = by_hand()
    kept = circuit.subgraph(np.array([False, True, True, True]))
    assert kept.nodes["label"].tolist() == ["b", "c", "logit difference"]
    assert kept.edges[["source", "target"]].tolist() == [(0, 2)]
    assert len(circuit.edges) == 3
    for keep, words in [
        (np.array([True, True, True, False]), "the target"),
        (np.array([1, 1, 1, 1]), "int64"),
        (np.array([True]), "shape"),
    ]:
        with pytest.raises(InputError, match=words):
            circuit.subgraph(keep)


@pytest.mark.parametrize("circuit", [by_hand(), made_up_circuit(), by_hand().prune(max_edges=0)])
def test_a_file_gives_the_same_circuit_back(circuit, tmp_path):
    path = circuit.save(tmp_path / "circuit.json")
    assert same(Circuit.load(path), circuit)
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 1
    assert os.listdir(tmp_path) == ["circuit.json"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = by_hand().save(tmp_path / "circuit.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        made_up_circuit().save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["circuit.json"]


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_a_file_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    path = by_hand().save(tmp_path / "circuit.json")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d | {"schema_version": 2}, "schema version 2"),
        (lambda d: d | {"format": "something"}, "holds no circuit"),
        (lambda d: [d], "holds no circuit"),
        (lambda d: d | {"nodes": d["nodes"][:-1]}, "must be the target"),
        (lambda d: d | {"nodes": []}, "damaged at nodes"),
        (lambda d: d | {"more": 1}, "more"),
        (lambda d: d | {"edges": [{**d["edges"][0], "source": 1.5}]}, "damaged at edges/0/source"),
        (lambda d: d | {"edges": [{**d["edges"][0], "weight": 1e300}]}, "damaged at edges/0"),
        (lambda d: d | {"edges": [{**d["edges"][0], "target": 70}]}, "outside"),
        (lambda d: {k: v for k, v in d.items() if k != "evidence"}, "evidence"),
    ],
)
def test_a_damaged_file_is_refused(change, words, tmp_path):
    path = by_hand().save(tmp_path / "circuit.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(FileFormatError, match=words):
        Circuit.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"NaN", b"[" * 100_000])
def test_what_is_not_json_is_refused(content, tmp_path):
    path = tmp_path / "circuit.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=re.escape(str(path))):
        Circuit.load(path)


def changed(table, row, **values):
    table = table.copy()
    for name, value in values.items():
        table[name][row] = value
    return table


@pytest.mark.parametrize(
    "nodes, edges, words",
    [
        (lambda n: n.tolist(), None, "dtype"),
        (lambda n: n[None], None, "shape"),
        (lambda n: n[["site", "feature"]], None, "dtype"),
        (lambda n: n[:0], None, "must be the target"),
        (lambda n: n[:-1], None, "must be the target"),
        (lambda n: changed(n, 0, site=TARGET), None, "must be the target"),
        (lambda n: changed(n, -1, feature=2), None, "must be the target"),
        (lambda n: changed(n, 0, site="layer 3"), None, "not a site"),
        (lambda n: changed(n, 0, feature=-1), None, "negative index"),
        (lambda n: changed(n, 2, feature=9), None, "hook_resid_post/9 is there twice"),
        (lambda n: changed(n, 0, score=np.nan), None, "NaN"),
        (lambda n: changed(n, 0, score=-1), None, "negative values"),
        (lambda n: changed(n, 0, activation=np.inf), None, "NaN or infinity"),
        (lambda n: changed(n, 0, site="blocks.4.hook_resid_post"), None, "order of computation"),
        (None, lambda e: changed(e, 0, target=4), "outside the 4 nodes"),
        (None, lambda e: changed(e, 0, source=-1), "outside"),
        (None, lambda e: changed(e, 0, source=1, target=2), "against the order of computation"),
        (None, lambda e: changed(e, 0, source=3, target=0), "against the order of computation"),
        (None, lambda e: changed(e, 0, target=3), "there twice"),
        (None, lambda e: changed(e, 0, weight=np.nan), "NaN"),
    ],
)
def test_tables_that_are_no_circuit_are_refused(nodes, edges, words):
    circuit = by_hand()
    tables = [
        change(table) if change else table
        for change, table in ((nodes, circuit.nodes), (edges, circuit.edges))
    ]
    with pytest.raises(InputError, match=words):
        Circuit(*tables)


def test_settings_and_evidence_become_plain():
    fit = {"held_out_r2": np.float32(0.5), "train_r2": float("nan"), "all": np.arange(2)}
    circuit = by_hand().with_evidence({"fit": fit, "n": (np.int64(3), True)})
    assert circuit.evidence == {
        "fit": {"held_out_r2": 0.5, "train_r2": None, "all": [0, 1]},
        "n": [3, True],
    }
    for value, words in [({1: 2}, "settings"), ({"a": [object()]}, r"settings\['a'\]\[0\]")]:
        with pytest.raises(InputError, match=words):
            Circuit(circuit.nodes, circuit.edges, value)


def test_the_repr_is_short_and_escaped():
    circuit = made_up_circuit()
    assert len(repr(circuit)) < 300 and "\n" not in repr(circuit)
    assert "ioi prompts (seed 1, errors kept): faithfulness 0.81 (20 random sets: 0." in repr(
        circuit
    )
    nodes = changed(circuit.nodes, -1, label="<script>alert(1)</script>")
    shown = Circuit(nodes, circuit.edges)._repr_html_()
    assert "<script" not in shown and "&lt;script" in shown and len(shown) < 500


def test_the_page_is_written_or_returned(tmp_path):
    circuit = by_hand()
    path = circuit.to_html(tmp_path / "circuit.html")
    assert path.read_text(encoding="utf-8") == circuit.to_html()


ON = {"task": "ioi", "split": "held-out", "seed": 1, "n": 128, "seen": 0}
FEATURES = {"ablation": "mean", "ablated_positions": "last", "errors": "kept"}
HEADS = {"ablation": "resample", "ablated_positions": "all", "errors": None}
FOUND = {"faithfulness": 0.0249, "completeness": 0.19}


@pytest.mark.parametrize(
    "record, said",
    [
        (
            FEATURES | {"random_faithfulness": [-0.001, 0.002], "random_completeness": [0.9, 0.84]},
            "mean ablation at the last token of 128 held-out ioi prompts (seed 1, errors kept): "
            "faithfulness 0.02 (2 random sets: 0.00), completeness 0.19 (0.87)",
        ),
        (
            HEADS | {"evaluated_on": ON | {"split": "training", "seen": 128, "seed": None}},
            "resample ablation at all tokens of 128 training ioi prompts: faithfulness 0.02, "
            "completeness 0.19",
        ),
        (
            HEADS | {"evaluated_on": ON | {"split": "training", "seen": 3}, "completeness": None},
            "resample ablation at all tokens of 128 training ioi prompts, 3 of which it was learnt "
            "on (seed 1): faithfulness 0.02",
        ),
        (
            FEATURES | {"evaluated_on": {"task": "own", "n": 1}, "ablated_positions": "S1"},
            "mean ablation at position 'S1' of 1 own prompt of unknown split (errors kept): "
            "faithfulness 0.02, completeness 0.19",
        ),
        (
            HEADS | {"evaluated_on": {"task": "own", "n": 4, "seen": 0}},
            "resample ablation at all tokens of 4 own prompts, none of which it was learnt on: "
            "faithfulness 0.02, completeness 0.19",
        ),
    ],
)
def test_evidence_is_said_in_words_with_what_it_was_measured_on(record, said):
    assert evidence_lines({"ablation": {"evaluated_on": ON, **FOUND, **record}}) == [said]


def test_what_a_circuit_is_made_of_is_called_by_its_name():
    circuit = by_hand()
    for level, word in (("heads", "heads"), ("components", "components"), ("features", "features")):
        named = replace(circuit, settings={"level": level})
        assert f" {word} at " in named.summary()[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, folder: c.prune(max_features=2.5), "max_features must be a whole number"),
        (lambda c, folder: c.prune(max_edges="all"), "max_edges must be a whole number"),
        (lambda c, folder: c.prune(max_edges=-1), "max_edges must be at least 0"),
        (lambda c, folder: c.prune(min_score="high"), "min_score must be a number"),
        (lambda c, folder: c.with_evidence([0.5]), "evidence must be a dict, got a list"),
        (lambda c, folder: c.with_evidence(c), "evidence must be a dict, got a Circuit"),
        (lambda c, folder: Circuit(c.nodes, c.edges, "lasso"), "settings must be a dict"),
        (lambda c, folder: Circuit.load(folder), "There is no file"),
        (lambda c, folder: c.save(folder), "is a folder"),
    ],
)
def test_wrong_values_are_refused(tmp_path, call, message):
    with pytest.raises(InputError, match=message):
        call(made_up_circuit(), tmp_path)


def test_limits_of_numpy_and_torch_are_numbers():
    circuit = made_up_circuit()
    for three in (np.int64(3), torch.tensor(3)):
        assert circuit.prune(max_features=three).ids() == circuit.prune(max_features=3).ids()
