import json
import os
import re
import stat
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch

from circuit_toolkit.circuit import TARGET, Circuit, new_edges, new_nodes
from circuit_toolkit.circuit.evidence import evidence_lines
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.sites import Site
from tests.circuit.made_up import made_up_circuit
from tests.resealed import resealed

END = "target:logit difference"


def by_hand():
    """a drives b; a and b drive the target; c drives nothing."""
    features = new_nodes(
        3,
        site=["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.0.hook_resid_post"],
        index=[3, 9, 1],
        activation=[1.0, 0.5, 0.5],
        score=[2.0, 1.0, 4.0],
        label=["a", "b", "c"],
    )
    nodes = np.concatenate([features, new_nodes(1, TARGET, label="logit difference")])
    weight = np.array([0.5, -0.2, 0.9])
    edges = new_edges(3, source=[0, 0, 1], target=[1, 3, 3], weight=weight, score=np.abs(weight))
    return Circuit(nodes, edges, {"method": "by hand"})


def every_kind():
    """One node of each kind, two targets, and edges that were tested."""
    inner = new_nodes(
        6,
        kind=["token", "embedding", "feature", "error", "head", "mlp"],
        site=["token", *(f"blocks.{at}" for at in (
            "0.hook_resid_pre", "1.hook_resid_post", "1.hook_resid_post", "2.attn.hook_result",
            "2.hook_mlp_out",
        ))],
        position=["3", "", "s2", "s2", "end", "end"],
        index=[17, 0, 5, 0, 7, 0],
        label=["Mary", "", "x" * 500, "", "", ""],
    )  # fmt: skip
    ends = new_nodes(2, TARGET, label=["Mary", "John"])
    edges = new_edges(
        3,
        source=[0, 2, 4],
        target=[2, 6, 7],
        weight=[1, 2, 3],
        score=[1, 2, 3],
        status=["confirmed", "refuted", "untested"],
        low=[0.5, -1, -np.inf],
        high=[1.5, 3, np.inf],
    )
    return Circuit(np.concatenate([inner, ends]), edges, {"method": "by hand"})


def same(a, b):
    tables = [(getattr(a, name), getattr(b, name)) for name in ("nodes", "edges")]
    dicts = [[each.settings, each.evidence, each.groups] for each in (a, b)]
    return all(np.array_equal(x, y) for x, y in tables) and dicts[0] == dicts[1]


def test_what_a_circuit_made_by_hand_says():
    circuit = by_hand()
    first, second = "blocks.0.hook_resid_pre/3", "blocks.0.hook_resid_post/9"
    last = "target:logit difference"
    assert circuit.ids() == [first, second, "blocks.0.hook_resid_post/1", last]
    features = {site: found.tolist() for site, found in circuit.features().items()}
    assert features == {Site("resid_pre", 0): [3], Site("resid_post", 0): [1, 9]}
    assert circuit.depths().tolist() == [0, 1, 1, 2]
    table = circuit.node_table()
    assert table["site"].tolist() == ["resid_pre 0", "resid_post 0", "resid_post 0", "target"]
    edges = circuit.edge_table()  # the strongest first
    assert edges["source"].tolist() == [second, first, first]
    assert edges["target_label"].tolist() == ["logit difference", "b", "logit difference"]
    assert edges.index.tolist() == [2, 0, 1]


def test_what_nodes_of_every_kind_are_called():
    circuit = every_kind()
    assert circuit.ids() == [
        "token:Mary@3",
        "embed",
        "blocks.1.hook_resid_post/5@s2",
        "blocks.1.hook_resid_post/error@s2",
        "a2.h7@end",
        "m2@end",
        "target:Mary",
        "target:John",
    ]
    assert circuit.depths().tolist() == [0, 1, 2, 2, 3, 4, 5, 5]
    assert circuit.node_table()["site"].tolist()[0] == "token"
    assert circuit.node_table()["label"][2] == "x" * 500
    placed = {place: units.tolist() for place, units in circuit.placed_features().items()}
    assert placed[Site("resid_post", 1), "s2"] == [5] and placed[Site("head_out", 2), "end"] == [7]
    assert circuit.edge_table()["status"].tolist() == ["untested", "refuted", "confirmed"]
    assert circuit.summary()[0].endswith("3 edges, targets: Mary, John")
    graph = circuit.to_networkx()
    assert graph.edges["token:Mary@3", "blocks.1.hook_resid_post/5@s2"]["status"] == "confirmed"
    kept = circuit.prune()  # what reaches either target
    assert kept.ids() == [circuit.ids()[i] for i in (0, 2, 4, 6, 7)]


def test_to_networkx_is_the_same_graph():
    circuit = made_up_circuit()
    graph = circuit.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert list(graph) == circuit.ids()
    assert all(nx.has_path(graph, node, END) for node in graph)
    weights = nx.to_numpy_array(graph, weight="weight")
    edges = circuit.edges
    np.testing.assert_allclose(weights[edges["source"], edges["target"]], edges["weight"])
    assert np.count_nonzero(weights) == len(edges)
    assert graph.graph["evidence"] == circuit.evidence


def test_pruning_by_hand():
    circuit = by_hand()
    assert circuit.prune().ids() == [circuit.ids()[i] for i in (0, 1, 3)]  # c goes: no path
    assert circuit.prune(max_features=1).ids() == [END]  # c has the best score, and no path
    assert circuit.prune(max_features=2).edges["weight"].tolist() == [np.float32(-0.2)]
    assert circuit.prune(min_score=0.4).ids() == circuit.prune(max_edges=2).ids()
    assert circuit.prune(max_edges=1).ids() == ["blocks.0.hook_resid_post/9", END]
    assert circuit.prune(max_features=0).ids() == [END]


@pytest.mark.parametrize(("share", "kept"), [(0, []), (0.5, [1]), (0.58, [1, 3]), (1, [1, 3, 9])])
def test_pruning_keeps_the_fewest_features_of_a_share(share, kept):
    circuit = by_hand()  # scores 2, 1 and 4, all of which drive the target here
    edges = new_edges(3, source=[0, 1, 2], target=3, weight=1, score=1)
    features = replace(circuit, edges=edges).prune(share=share).features().values()
    assert sorted(x for units in features for x in units.tolist()) == kept


@pytest.mark.parametrize("limits", [{"max_features": 12}, {"max_edges": 30}, {"min_score": 0.3}])
def test_what_pruning_keeps(limits):
    circuit = made_up_circuit(seed=1)
    pruned = circuit.prune(**limits)
    assert 1 < len(pruned.nodes) <= limits.get("max_features", 40) + 1
    assert len(pruned.edges) <= limits.get("max_edges", 110)
    assert (pruned.edges["score"] >= limits.get("min_score", 0)).all()
    graph = pruned.to_networkx()
    assert all(nx.has_path(graph, node, END) for node in graph)
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


@pytest.mark.parametrize(
    "circuit",
    [
        *(by_hand(), every_kind(), made_up_circuit(), by_hand().prune(max_edges=0)),
        every_kind().group("names", ["token:Mary@3", "embed"]).group("last", ["m2@end"]),
    ],
)
def test_a_file_gives_the_same_circuit_back(circuit, tmp_path):
    path = circuit.save(tmp_path / "circuit.json")
    assert same(Circuit.load(path), circuit)
    assert json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 4
    assert os.listdir(tmp_path) == ["circuit.json"]


@pytest.mark.parametrize(
    ("settings", "site", "feature", "name"),
    [
        ({"level": "features", "positions": "s2"}, "blocks.3.hook_resid_post", 5, "/5@s2"),
        ({"level": "features", "positions": "last"}, "blocks.0.hook_resid_pre", 5, "/5@last"),
        ({"level": "heads"}, "blocks.4.attn.hook_result", 1, "a4.h1"),
        ({"level": "components"}, "blocks.2.hook_mlp_out", 0, "m2"),
        ({"level": "components"}, "blocks.0.hook_resid_pre", 0, "embed"),
    ],
)
def test_a_file_of_version_1_opens(settings, site, feature, name, tmp_path):
    old = {
        **{"format": "circuit_toolkit.circuit", "schema_version": 1},
        **{"settings": settings, "evidence": {}},
        "nodes": [
            {"site": site, "feature": feature, "activation": 0.5, "score": 1.0, "label": "a"},
            {"site": TARGET, "feature": 0, "activation": 2.0, "score": 1.0, "label": "end"},
        ],
        "edges": [{"source": 0, "target": 1, "weight": -0.25, "score": 0.25}],
    }
    (tmp_path / "old.json").write_text(json.dumps(old))
    circuit = Circuit.load(tmp_path / "old.json")
    assert circuit.ids()[0].endswith(name) and circuit.ids()[1] == "target:end"
    assert circuit.edges["status"].tolist() == ["untested"] and circuit.edges["weight"][0] == -0.25
    assert circuit.groups == {}
    for damaged in ({"nodes": [{}]}, {"settings": []}, {"nodes": 3}):
        (tmp_path / "old.json").write_text(json.dumps(old | damaged))
        with pytest.raises(FileFormatError, match=r"damaged"):
            Circuit.load(tmp_path / "old.json")


def test_a_file_of_version_3_opens(tmp_path):
    path = every_kind().save(tmp_path / "circuit.json")
    written = json.loads(path.read_text(encoding="utf-8")) | {"schema_version": 3}
    del written["sha256"]  # it had none
    path.write_text(json.dumps(written))
    assert same(Circuit.load(path), every_kind())


def test_a_file_of_version_2_opens(tmp_path):
    circuit = every_kind()
    path = circuit.save(tmp_path / "circuit.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    del written["groups"], written["sha256"]
    path.write_text(json.dumps(written | {"schema_version": 2}))
    assert same(Circuit.load(path), circuit)
    path.write_text(json.dumps(resealed(written)))  # as version 4 it is damaged
    with pytest.raises(FileFormatError, match="groups"):
        Circuit.load(path)


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
        (lambda d: d | {"schema_version": 5}, "schema version 5"),
        (lambda d: d | {"format": "something"}, "holds no circuit"),
        (lambda d: [d], "holds no circuit"),
        (lambda d: d | {"nodes": d["nodes"][:-1]}, "must be targets"),
        (lambda d: d | {"nodes": []}, "damaged at nodes"),
        (lambda d: d | {"more": 1}, "more"),
        (lambda d: d | {"groups": {"a": "b"}}, "damaged at groups/a"),
        (lambda d: d | {"groups": {"a": ["b"]}}, "valid circuit: There is no node 'b'"),
        (lambda d: d | {"edges": [{**d["edges"][0], "source": 1.5}]}, "damaged at edges/0/source"),
        (lambda d: d | {"edges": [{**d["edges"][0], "weight": 1e300}]}, "damaged at edges/0"),
        (lambda d: d | {"edges": [{**d["edges"][0], "target": 70}]}, "outside"),
        (lambda d: {k: v for k, v in d.items() if k != "evidence"}, "evidence"),
    ],
)
def test_a_damaged_file_is_refused(change, words, tmp_path):
    path = by_hand().save(tmp_path / "circuit.json")
    path.write_text(json.dumps(resealed(change(json.loads(path.read_text())))))
    with pytest.raises(FileFormatError, match=words):
        Circuit.load(path)


def test_evidence_is_bound_to_its_tables(tmp_path):
    tested = by_hand().with_evidence({"ablation": {"faithfulness": 0.92, "completeness": 0.1}})
    path = tested.save(tmp_path / "circuit.json")
    whole = json.loads(path.read_text())
    less = whole | {"edges": [], "nodes": whole["nodes"][-1:], "groups": {}}
    path.write_text(json.dumps(less))
    with pytest.raises(FileFormatError, match="changed after it was saved"):
        Circuit.load(path)
    del less["sha256"]
    path.write_text(json.dumps(less))
    with pytest.raises(FileFormatError, match="no checksum"):
        Circuit.load(path)
    path.write_text(json.dumps(less | {"evidence": {}}))
    assert Circuit.load(path).verdict == "untested"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("evidence", {"fit": {"held_out_r2": 42.0}}, "fit/held_out_r2: 42.0 is greater"),
        ("evidence", {"fit": 3}, "fit: 3 is not of type"),
        ("evidence", {"ablation": {"faithfulness": "0.9"}}, "'0.9' is not of type 'number'"),
        ("evidence", {"ablation": {"random_faithfulness": [0.1, "b"]}}, "random_faithfulness/1"),
        ("evidence", {"interventions": {"n": 3}}, "'mean_change' is a required"),
        ("evidence", {"edges": {"confirmed": -1}}, "edges/confirmed: -1 is less"),
        ("settings", {"tokens": ["a", 2]}, "tokens/1"),
        ("settings", {"strength": "strong"}, "strength: 'strong'"),
    ],
)
def test_dicts_say_what_can_be(name, value, words):
    with pytest.raises(InputError, match=f"{name} cannot be as given at .*{words}"):
        replace(by_hand(), **{name: value})


def test_a_dict_may_say_more_and_know_nothing():
    evidence = {"fit": {"held_out_r2": float("nan"), "mine": [1]}, "mine": {"a": "b"}}
    assert replace(by_hand(), evidence=evidence).evidence["fit"] == {
        "held_out_r2": None,
        "mine": [1],
    }


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
        (lambda n: n[["site", "index"]], None, "dtype"),
        (lambda n: n[:0], None, "must be targets"),
        (lambda n: n[:-1], None, "must be targets"),
        (lambda n: changed(n, 0, kind=TARGET, site=TARGET), None, "must be targets"),
        (lambda n: changed(n, 0, kind="neuron"), None, "Unknown kind of node 'neuron'"),
        (lambda n: changed(n, 0, site=TARGET), None, "cannot stand at site 'target'"),
        (lambda n: changed(n, -1, site="resid_pre 0"), None, "cannot stand at site"),
        (lambda n: changed(n, 0, label=3), None, "must hold texts"),
        (lambda n: changed(n, 0, site="layer 3"), None, "not a site"),
        (lambda n: changed(n, 0, index=-1), None, "negative index"),
        (lambda n: changed(n, 2, index=9), None, "hook_resid_post/9 is there twice"),
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
        (None, lambda e: changed(e, 0, low=np.nan), "NaN"),
        (None, lambda e: changed(e, 0, status="likely"), "Unknown status 'likely'"),
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
    *verdict, line = evidence_lines({"ablation": {"evaluated_on": ON, **FOUND, **record}})
    assert line == said
    both = record.get("completeness", 0) is not None  # else no rule applies
    assert verdict == ["verdict: necessary, not sufficient"] * both


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
        (lambda c, folder: Circuit.load(folder), "is a folder"),
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
