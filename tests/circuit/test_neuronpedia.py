import json
import os
import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

from circuit_toolkit.circuit import Circuit, new_nodes
from circuit_toolkit.circuit.neuronpedia import writing
from circuit_toolkit.circuit.neuronpedia.schema import OURS, SCHEMA, fault
from circuit_toolkit.circuit.neuronpedia.sources import SOURCE_SETS
from circuit_toolkit.circuit.neuronpedia.writing import cantor
from circuit_toolkit.errors import FileFormatError, InputError
from tests.circuit.made_up import made_up_attribution, made_up_circuit
from tests.circuit.prompt_graph import AT_MARY, EARLY, LATE, SAYS_JOHN, SAYS_NAME, prompt_graph
from tests.circuit.test_circuit import every_kind, same


def two_directions() -> Circuit:
    """Two targets that are no words, and so have one index."""
    circuit = prompt_graph()
    nodes = circuit.nodes.copy()
    nodes["label"][-2:] = ["logit(John) - logit(Mary)", 'a "quoted" one']
    nodes["index"][-2:] = 0
    return replace(circuit, nodes=nodes)


def two_sites_of_a_layer() -> Circuit:
    """A feature of an autoencoder beside one of a transcoder, of one layer, index and token."""
    circuit = prompt_graph()
    more = new_nodes(1, site="blocks.2.hook_resid_pre", position="4", index=17, label="of a stream")
    nodes = np.concatenate([circuit.nodes[:8], more, circuit.nodes[8:]])
    edges = circuit.edges.copy()
    for end in ("source", "target"):
        edges[end] += edges[end] >= 8
    return replace(circuit, nodes=nodes, edges=edges)


CIRCUITS = {
    "whole": prompt_graph,
    "no supernodes": lambda: replace(prompt_graph(), groups={}),
    "pruned": lambda: prompt_graph().prune(max_features=4),
    "one target": lambda: prompt_graph().prune(max_edges=0),
    "pinned": lambda: prompt_graph(pinned=[SAYS_NAME]),
    "pinned none": lambda: prompt_graph(pinned=[]),
    "pinned one that is gone": lambda: prompt_graph(pinned=["x", SAYS_NAME]),
    "two directions": two_directions,
    "two sites of a layer": two_sites_of_a_layer,
}


@pytest.mark.parametrize("make", CIRCUITS.values(), ids=CIRCUITS)
def test_a_circuit_comes_back_whole(make, tmp_path):
    circuit = make()
    graph = circuit.to_neuronpedia()
    assert fault(graph) is None
    assert len({node["node_id"] for node in graph["nodes"]}) == len(circuit.nodes)
    assert same(Circuit.from_neuronpedia(graph), circuit)
    path = circuit.to_neuronpedia(tmp_path / "graph.json")
    assert json.loads(path.read_text(encoding="utf-8")) == graph
    assert same(Circuit.from_neuronpedia(path), circuit)
    assert os.listdir(tmp_path) == ["graph.json"]


def test_what_the_viewers_read_by_hand():
    graph = prompt_graph().to_neuronpedia(slug="mary", description="a note")
    metadata, nodes = graph["metadata"], {node["node_id"]: node for node in graph["nodes"]}
    assert metadata["slug"] == "mary" and metadata["schema_version"] == 1
    assert metadata["prompt_tokens"][2] == " Mary" and metadata["prompt"] == "When Mary and John"
    assert metadata["pruning_settings"] == {"node_threshold": 0.8, "edge_threshold": 0.98}
    assert metadata["info"]["description"] == "a note"
    assert list(nodes)[:7] == ["E_0_0", "E_8_1", "E_21_2", "E_9_3", "E_34_4", "0_5_2", "0_5_4"]
    assert list(nodes)[7:] == ["0_-1_3", "2_17_4", "2_3_4", "2_-1_4", "4_34_4", "4_21_4"]
    feature = nodes["2_17_4"]
    assert feature["feature_type"] == "cross layer transcoder" and feature["layer"] == "2"
    assert feature["feature"] == cantor(2, 17) == 19 * 20 // 2 + 17
    assert feature["clerp"] == 'says "John"' and feature["ctx_idx"] == 4
    assert nodes["0_-1_3"]["feature_type"] == "mlp reconstruction error"
    logit = nodes["4_34_4"]  # of three layers, 0 to 2
    assert logit["clerp"] == 'Output "John" (p=0.600)' and logit["token_prob"] == 0.6
    assert logit["is_target_logit"] and not nodes["4_21_4"]["is_target_logit"]
    # The largest shares are .31 and .25, then .125: each node counts itself and all before it.
    influence = [nodes[name]["influence"] for name in ("0_5_2", "2_17_4", "2_3_4", "4_34_4")]
    assert influence == [0.31, 0.56, 0.685, None]
    assert graph["qParams"]["supernodes"] == [["names", "0_5_2", "2_17_4"], ["rest", "0_-1_3"]]
    assert graph["qParams"]["pinnedIds"] == ["0_5_2", "0_-1_3", "2_17_4", "4_34_4", "4_21_4"]
    assert {"source": "2_17_4", "target": "4_34_4"}.items() <= graph["links"][7].items()


@pytest.mark.parametrize(
    ("layer", "index", "pair"),
    [(0, 6200, 19229300), (0, 35, 665), (25, 3029, 4668014), (13, 10445, 54700556)],
)
def test_features_are_numbered_as_neuronpedia_numbers_them(layer, index, pair):
    assert cantor(layer, index) == pair  # taken from a graph that Neuronpedia serves


def test_an_error_and_a_feature_have_ids_of_their_own():
    """The common generator gives feature 5 of layer 0 and the error of layer 5 one id, 0_5_3."""
    circuit = prompt_graph()
    nodes = circuit.nodes.copy()
    nodes["position"][5] = "3"
    nodes["site"][10] = "blocks.5.hook_mlp_out"
    nodes["position"][10] = "3"
    circuit = replace(circuit, nodes=nodes, groups={})
    assert {"0_5_3", "5_-1_3"} <= {n["node_id"] for n in circuit.to_neuronpedia()["nodes"]}
    assert same(Circuit.from_neuronpedia(circuit.to_neuronpedia()), circuit)


@pytest.mark.parametrize("position", [-1, 3, -2])
def test_targets_stand_at_the_token_that_is_explained(position):
    circuit = prompt_graph()
    n = len(circuit.settings["tokens"])
    circuit = replace(circuit, settings={**circuit.settings, "position": position})
    graph = circuit.to_neuronpedia()
    logits = [node for node in graph["nodes"] if node["feature_type"] == "logit"]
    expected = position if position >= 0 else n + position
    assert logits and all(node["ctx_idx"] == expected for node in logits)
    assert all(node["node_id"].rstrip("_").endswith(f"_{expected}") for node in logits)
    assert same(Circuit.from_neuronpedia(graph), circuit)


def test_features_are_linked_where_neuronpedia_has_them():
    release = "gemma-scope-2b-pt-transcoders: layer_{}/width_16k/average_l0_76"
    known = {EARLY: release.format(0), LATE: release.format(2)}
    of_gemma = prompt_graph(model="google/gemma-2-2b", transcoders=known)
    metadata = of_gemma.to_neuronpedia()["metadata"]
    assert metadata["scan"] == "gemma-2-2b"
    assert metadata["feature_details"] == {"neuronpedia_source_set": "gemmascope-transcoder-16k"}
    mixed = prompt_graph(model="google/gemma-2-2b", transcoders=known | {LATE: "mine: 2"})
    assert "feature_details" not in mixed.to_neuronpedia()["metadata"]
    metadata = mixed.to_neuronpedia(scan="mine", source_set="set-16k")["metadata"]
    assert metadata["scan"] == "mine"
    assert metadata["feature_details"] == {"neuronpedia_source_set": "set-16k"}
    assert "feature_details" not in prompt_graph().to_neuronpedia()["metadata"]


def test_what_was_edited_in_a_viewer_is_read():
    circuit = prompt_graph()
    graph = circuit.to_neuronpedia()
    graph["nodes"][8]["clerp"] = "my label"
    graph["qParams"]["supernodes"] = [["mine", "2_3_4", "0_5_4"]]
    graph["qParams"]["pinnedIds"] = ["2_3_4"]
    found = Circuit.from_neuronpedia(graph)
    assert found.nodes["label"][8] == "my label"
    assert found.groups == {"mine": [f"{EARLY}/5@4", SAYS_NAME]}
    assert found.settings == circuit.settings | {"pinned": [SAYS_NAME]}
    again = found.to_neuronpedia(pinned=[AT_MARY])
    assert again["qParams"]["pinnedIds"] == ["0_5_2"]
    assert Circuit.from_neuronpedia(again).settings["pinned"] == [AT_MARY]


def test_supernodes_that_ours_cannot_hold_are_read_as_far_as_they_go():
    graph = prompt_graph().to_neuronpedia()
    graph["qParams"]["supernodes"] = [
        *(["supernode", "2_3_4", "4_34_4"], ["supernode", "2_3_4", "0_5_4"]),
        *(["", "0_5_2", "9_9_9"], ["gone", "9_9_9"]),
    ]
    with pytest.warns(UserWarning, match="4 members of supernodes were left out"):
        found = Circuit.from_neuronpedia(graph)
    assert found.groups == {
        "supernode": [SAYS_NAME],
        "supernode (2)": [f"{EARLY}/5@4"],
        "supernode (3)": [AT_MARY],
    }


def foreign() -> dict:
    """Return a graph as circuit-tracer 0.5.0 writes it, with that program's fields."""

    def node(name, kind, layer, at, feature, js, **more):
        rest = {"run_idx": 0, "reverse_ctx_idx": 0, "clerp": "", "activation": None}
        rest |= {"token_prob": 0.0, "is_target_logit": False, "influence": None}
        given = {"node_id": name, "feature_type": kind, "layer": layer, "ctx_idx": at}
        return given | {"feature": feature, "jsNodeId": js} | rest | more

    def feature(layer, index, at, activation):
        js = f"{layer}_{index}-0"
        name, pair = f"{layer}_{index}_{at}", cantor(layer, index)
        more = {"activation": activation}
        return node(name, "cross layer transcoder", str(layer), at, pair, js, **more)

    def error(layer, at):
        name, kind = f"0_{layer}_{at}", "mlp reconstruction error"
        return node(name, kind, str(layer), at, -1, f"{layer}_{at}-0")

    def logit(index, word, chance):
        more = {"clerp": f'Output "{word}" (p={chance:.3f})', "token_prob": chance}
        return node(f"27_{index}_2", "logit", "27", 2, index, f"L_{index}-2", **more)

    nodes = [
        *(feature(3, 16000, 2, 1.5), feature(0, 5, 1, 2.5), feature(3, 7, 2, 0.5), error(1, 2)),
        *(
            node(f"E_{v}_{i}", "embedding", "E", i, i, f"E_{v}-{i}")
            for i, v in enumerate([2, 7, 9])
        ),
        *(logit(11, " Mary", 0.7), logit(12, "\n", 0.2)),
    ]
    links = [
        *(("E_7_1", "0_5_1", 2.0), ("E_2_0", "0_5_1", -1.0), ("0_5_1", "3_16000_2", -1.0)),
        *(("0_1_2", "3_16000_2", 0.5), ("E_9_2", "3_7_2", 1.0), ("0_5_1", "3_7_2", 3.0)),
        *(("3_16000_2", "27_11_2", 3.0), ("3_7_2", "27_11_2", -1.0), ("3_7_2", "27_12_2", 1.0)),
        *(("E_9_2", "27_12_2", 1.0), ("0_5_1", "27_11_2", 0.5)),
    ]
    return {
        "metadata": {
            **{"slug": "tiny", "scan": "gemma-2-2b", "transcoder_list": [], "schema_version": 1},
            **{"prompt_tokens": ["<bos>", "A", " b"], "prompt": "A b", "node_threshold": 0.8},
            "feature_details": {"neuronpedia_source_set": "gemmascope-transcoder-16k"},
        },
        "qParams": {
            **{"pinnedIds": ["0_5_1"], "supernodes": [["pair", "0_5_1", "3_7_2"]]},
            **{"linkType": "both", "clickedId": "", "sg_pos": ""},
        },
        "nodes": nodes,
        "links": [dict(zip(("source", "target", "weight"), link, strict=True)) for link in links],
    }


def test_a_graph_of_circuit_tracer_is_read():
    graph = foreign()
    assert fault(graph) is None
    circuit = Circuit.from_neuronpedia(graph)
    assert circuit.ids() == [
        *("token:<bos>@0", "token:A@1", "token:b@2", f"{EARLY}/5@1"),
        "blocks.1.hook_mlp_out/error@2",
        *("blocks.3.ln2.hook_normalized/16000@2", "blocks.3.ln2.hook_normalized/7@2"),
        *("target:Mary", r"target:'\n'"),
    ]
    assert circuit.nodes["index"].tolist() == [2, 7, 9, 5, 0, 16000, 7, 11, 12]
    assert circuit.nodes["activation"].tolist()[:7] == [1, 1, 1, 2.5, 0, 1.5, 0.5]
    weights = circuit.to_networkx().edges(data="weight")
    assert sorted(weight for *_, weight in weights) == sorted(e["weight"] for e in graph["links"])
    assert ("token:A@1", f"{EARLY}/5@1", 2.0) in list(weights)
    settings = circuit.settings
    assert settings["token_ids"] == [2, 7, 9] and settings["probabilities"] == [0.7, 0.2]
    assert settings["scope"] == "prompt" and settings["node_share"] == 0.8
    assert circuit.groups == {"pair": [f"{EARLY}/5@1", "blocks.3.ln2.hook_normalized/7@2"]}
    assert settings["pinned"] == [f"{EARLY}/5@1"]
    again = circuit.to_neuronpedia()
    for key in ("slug", "scan", "feature_details", "prompt_tokens", "node_threshold"):
        assert again["metadata"][key] == graph["metadata"][key]
    assert same(Circuit.from_neuronpedia(again), circuit)


def test_influence_is_that_of_all_paths_to_the_logits():
    circuit = Circuit.from_neuronpedia(foreign())
    n, edges = len(circuit.nodes), circuit.edges
    shares = np.zeros((n, n))  # row: target
    shares[edges["target"], edges["source"]] = np.abs(edges["weight"])
    total = shares.sum(1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    start = np.array([0.0] * 7 + [0.7, 0.2])
    reached = start @ np.linalg.inv(np.eye(n) - shares)  # p + p A + p A^2 + ...
    inner = reached[:7] / reached[:7].sum()
    np.testing.assert_allclose(circuit.nodes["score"][:7], inner, rtol=1e-6)
    carried = (shares * reached[:, None])[edges["target"], edges["source"]]
    np.testing.assert_allclose(edges["score"], carried, rtol=1e-6)


def test_cumulative_influence_becomes_the_share_of_one_node():
    graph = foreign()
    cumulative = dict(
        zip(["0_5_1", "3_16000_2", "3_7_2", "E_7_1"], [0.4, 0.7, 0.8, 0.95], strict=True)
    )
    for node in graph["nodes"]:
        if node["feature_type"] != "logit":
            node["influence"] = cumulative.get(node["node_id"], 1.0)
    table = Circuit.from_neuronpedia(graph).node_table().set_index("id")["score"]
    assert table[f"{EARLY}/5@1"] == pytest.approx(0.4)
    assert table["blocks.3.ln2.hook_normalized/16000@2"] == pytest.approx(0.3)
    assert table["blocks.3.ln2.hook_normalized/7@2"] == pytest.approx(0.1)
    assert table["token:A@1"] == pytest.approx(0.1)  # not .15: less than the one before it


def edited(change) -> dict:
    graph = foreign()
    change(graph)
    return graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["nodes"][0].update(feature_type="lorsa"), "of type 'lorsa'"),
        (lambda g: g["nodes"][1].update(node_id="0_1_2"), "2 nodes have the id '0_1_2'.*error"),
        (lambda g: g["links"][0].update(target="0_9_1"), "from 'E_7_1' to '0_9_1' has no target"),
        (lambda g: g["links"][0].update(source="x"), "from 'x' to '0_5_1' has no source"),
        (
            lambda g: g["links"].append({"source": "3_7_2", "target": "0_5_1", "weight": 1.0}),
            "against the order of computation",
        ),
        (
            lambda g: g["links"].append({"source": "3_7_2", "target": "3_16000_2", "weight": 1.0}),
            "against the order of computation",
        ),
        (lambda g: g["links"].append(g["links"][0]), "there twice"),
        (lambda g: g["nodes"][0].update(layer="E7"), "layer 'E7', which is no number"),
        (lambda g: g["nodes"][0].update(layer="9" * 5000), "which is no number"),
        (lambda g: g["nodes"][0].update(ctx_idx=3), "at token 3 of 3"),
        (lambda g: g["nodes"][0].update(ctx_idx=-1), "at token -1"),
        (lambda g: g["nodes"][0].update(node_id="a", feature=5), "names no feature of layer 3: 5"),
        (lambda g: g["nodes"][7].update(feature=10**12), "too large"),
        (lambda g: g.update(nodes=g["nodes"][:7], links=[]), "no node is a logit"),
        (lambda g: g["links"][0].update(weight="1"), "links/0/weight"),
        (lambda g: g["links"][0].update(weight=1e300), "links/0/weight"),
        (lambda g: g["nodes"][0].update(feature="5"), "nodes/0/feature"),
        (lambda g: g["qParams"].update(supernodes=[["a", 3]]), "qParams/supernodes/0/1"),
        (lambda g: g.update(nodes=[]), "at nodes"),
        (lambda g: g.update(metadata=[]), "at metadata"),
        (lambda g: g["metadata"].update({OURS: {}}), "circuit_toolkit"),
        (
            lambda g: g["metadata"].update({OURS: {"settings": {}, "evidence": {}}}),
            "nodes.*: 'circuit_toolkit' is a required property",
        ),
    ],
)
def test_a_broken_graph_is_refused(change, message, tmp_path):
    with pytest.raises(FileFormatError, match=message) as caught:
        Circuit.from_neuronpedia(edited(change))
    assert "\n" not in str(caught.value)
    (tmp_path / "graph.json").write_text(json.dumps(edited(change)))
    with pytest.raises(FileFormatError, match="graph.json"):
        Circuit.from_neuronpedia(tmp_path / "graph.json")


def test_every_key_that_the_format_requires_is_missed():
    paths = [()]
    paths += [("metadata",), ("nodes", 0), ("links", 0)]
    required = 0
    for path in paths:
        place, rules = foreign(), SCHEMA
        for step in path:
            place = place[step]
            rules = rules["items"] if isinstance(step, int) else rules["properties"][step]
        for key in rules["required"]:
            graph = foreign()
            inner = graph
            for step in path:
                inner = inner[step]
            del inner[key]
            with pytest.raises(FileFormatError, match=f"'{key}' is a required"):
                Circuit.from_neuronpedia(graph)
            required += 1
    assert required == 4 + 4 + 7 + 3  # as Neuronpedia's schema has them


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"NaN", b"[]", b"3"])
def test_what_is_no_graph_is_refused(content, tmp_path):
    path = tmp_path / "graph.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="graph.json"):
        Circuit.from_neuronpedia(path)


def test_wrong_sources_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        Circuit.from_neuronpedia(tmp_path / "no.json")
    with pytest.raises(InputError, match="Pass a path, or the graph as a dict; got 3"):
        Circuit.from_neuronpedia(3)
    with pytest.raises(FileFormatError, match="prompt_graph.py is not readable JSON"):
        Circuit.from_neuronpedia(__file__.replace("test_neuronpedia", "prompt_graph"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (made_up_circuit, "settings have no tokens. Neuronpedia's format holds the graph of one"),
        (every_kind, "nodes of kind embedding, head, mlp. Neuronpedia's"),
        (lambda: prompt_graph(tokens=["a"]), "at position '1', of 1 tokens"),
        (lambda: moved("S2"), "at position 'S2', of 5 tokens"),
    ],
)
def test_circuits_of_another_kind_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make().to_neuronpedia()


def moved(position: str) -> Circuit:
    circuit = prompt_graph()
    nodes = circuit.nodes.copy()
    nodes["position"][5] = position
    return replace(circuit, nodes=nodes, groups={})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slug": "a b"}, "slug must be two or more letters"),
        ({"slug": "../x"}, "slug must be two or more letters"),
        ({"slug": 3}, "slug must be two or more letters, digits, - or _, got 3"),
        ({"scan": 3}, "metadata/scan: 3 is not"),
        ({"pinned": SAYS_JOHN}, "pinned must be a list of ids"),
        ({"pinned": ["x"]}, "no node 'x' to pin"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        prompt_graph().to_neuronpedia(**options)


def test_a_graph_that_neuronpedia_cannot_take_is_refused(monkeypatch, tmp_path):
    circuit, path = prompt_graph(), tmp_path / "graph.json"
    size = len(path.read_bytes()) if circuit.to_neuronpedia(path) else 0
    monkeypatch.setattr(writing, "MAX_BYTES", size - 1)
    with pytest.raises(InputError, match=f"{size:,} bytes and Neuronpedia reads .*prune"):
        circuit.to_neuronpedia()
    monkeypatch.setattr(writing, "MAX_BYTES", size)
    monkeypatch.setattr(writing, "MIN_BYTES", size + 1)
    with pytest.raises(InputError, match="Prune the circuit less"):
        circuit.to_neuronpedia(path)
    monkeypatch.setattr("circuit_toolkit.circuit.neuronpedia.reading.MAX_BYTES", size - 1)
    with pytest.raises(FileFormatError, match="more than such a file can"):
        Circuit.from_neuronpedia(path)


def test_the_graph_that_is_read_stays_as_it_is():
    graph = prompt_graph().to_neuronpedia()
    before = deepcopy(graph)
    Circuit.from_neuronpedia(graph)
    assert graph == before


def test_source_sets_are_those_of_the_registry_of_sae_lens():
    directory = get_pretrained_saes_directory()
    for release, (model, source_set) in SOURCE_SETS.items():
        pages = directory[release].neuronpedia_id
        for name in directory[release].saes_map:  # each has a page, in the layer that it names
            of_model, layer, of_set = re.fullmatch(r"([^/]+)/(\d+)-(.+)", pages[name]).groups()
            assert (of_model, of_set) == (model, source_set)
            assert int(layer) == int(re.search(r"layer_(\d+)", name)[1])


def tested_graph():
    graph = made_up_attribution(8, 16).to_neuronpedia()
    circuit = Circuit.from_neuronpedia(graph)
    edges = circuit.edges.copy()
    edges["status"][0] = "confirmed"
    found = {"ablation": {"faithfulness": 0.92, "completeness": 0.1}}
    return replace(circuit, edges=edges, evidence=found).to_neuronpedia()


def test_evidence_is_bound_to_nodes_and_links():
    graph = tested_graph()
    assert Circuit.from_neuronpedia(graph).evidence["ablation"]["faithfulness"] == 0.92
    less = {**graph, "links": graph["links"][1:]}
    with pytest.warns(UserWarning, match="its evidence is of other nodes and links"):
        assert not Circuit.from_neuronpedia(less).evidence
    graph["metadata"]["circuit_toolkit"]["evidence"]["ablation"]["faithfulness"] = 0.99
    with pytest.warns(UserWarning, match="Test the circuit again"):
        found = Circuit.from_neuronpedia(graph)
    assert not found.evidence and set(found.edges["status"]) == {"untested"}


def test_what_a_viewer_changes_leaves_the_evidence(recwarn):
    graph = json.loads(json.dumps(tested_graph()), parse_float=lambda text: short(float(text)))
    graph["nodes"].reverse()
    graph["links"].reverse()
    named = next(node for node in graph["nodes"] if node["feature_type"].startswith("cross"))
    named["clerp"] = "mine"
    found = Circuit.from_neuronpedia(graph)
    assert found.evidence and "mine" in found.nodes["label"] and not recwarn.list


def short(number):
    """As JavaScript writes numbers: 1 for 1.0."""
    return int(number) if number.is_integer() else number
