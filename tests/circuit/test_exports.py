import json
import os
from dataclasses import replace

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from circuit_toolkit.circuit import Circuit, exports
from circuit_toolkit.errors import InputError
from tests.circuit.made_up import made_up_circuit
from tests.circuit.prompt_graph import prompt_graph
from tests.circuit.test_circuit import by_hand, every_kind

CIRCUITS = [prompt_graph, every_kind, made_up_circuit, lambda: by_hand().prune(max_edges=0)]


def read(path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values={"low": [""], "high": [""]})


def odd_labels() -> Circuit:
    circuit = prompt_graph()
    nodes = circuit.nodes.copy()
    nodes["label"][5:10] = ["a\nb", 'x,"y"', "NA", "\u2028é🙂", " <b>&amp; "]
    return replace(circuit, nodes=nodes)


@pytest.mark.parametrize("make", [*CIRCUITS, odd_labels])
def test_tables_come_back(make, tmp_path):
    circuit = make()
    assert circuit.to_csv(tmp_path / "new") == tmp_path / "new"
    assert sorted(os.listdir(tmp_path / "new")) == ["edges.csv", "nodes.csv"]
    nodes, edges = (read(tmp_path / "new" / f"{name}.csv") for name in ("nodes", "edges"))
    assert nodes["id"].tolist() == circuit.ids()
    assert nodes["group"].tolist() == circuit.node_table()["group"].tolist()
    for name in circuit.nodes.dtype.names:
        want = circuit.nodes[name]
        assert nodes[name].astype(want.dtype if want.dtype != "O" else str).tolist() == (
            want.tolist()
        )
    row = {name: i for i, name in enumerate(circuit.ids())}
    assert [row[each] for each in edges["source"]] == circuit.edges["source"].tolist()
    assert [row[each] for each in edges["target"]] == circuit.edges["target"].tolist()
    np.testing.assert_array_equal(edges["weight"].astype("f4"), circuit.edges["weight"])
    tested = np.isfinite(circuit.edges["low"])
    np.testing.assert_array_equal(edges["low"].notna(), tested)
    np.testing.assert_array_equal(edges["low"][tested].astype("f4"), circuit.edges["low"][tested])


@pytest.mark.parametrize("make", [*CIRCUITS, odd_labels])
def test_parquet_tables_come_back(make, tmp_path):
    circuit = make()
    folder = circuit.to_parquet(tmp_path / "new")
    assert sorted(os.listdir(folder)) == ["edges.parquet", "nodes.parquet"]
    nodes, edges = (pd.read_parquet(folder / f"{name}.parquet") for name in ("nodes", "edges"))
    assert nodes["id"].tolist() == circuit.ids()
    for name in circuit.nodes.dtype.names:
        assert nodes[name].tolist() == circuit.nodes[name].tolist()
    ids = np.array(circuit.ids(), dtype=object)
    for name in ("source", "target"):
        assert edges[name].tolist() == ids[circuit.edges[name]].tolist()
    for name in ("weight", "score", "status"):
        assert edges[name].tolist() == circuit.edges[name].tolist()
    tested = np.isfinite(circuit.edges["low"])
    np.testing.assert_array_equal(edges["low"].notna(), tested)
    np.testing.assert_array_equal(edges["high"][tested], circuit.edges["high"][tested])


def test_parquet_tables_replace_nothing_but_tables(tmp_path):
    circuit, folder = prompt_graph(), tmp_path / "tables"
    circuit.to_parquet(folder)
    circuit.prune(max_edges=1).to_parquet(folder)
    assert len(pd.read_parquet(folder / "edges.parquet")) == 1
    pd.DataFrame({"mine": [1]}).to_parquet(folder / "nodes.parquet")
    for content in (None, b"no table"):
        if content:
            (folder / "nodes.parquet").write_bytes(content)
        with pytest.raises(InputError, match="nodes.parquet is there and no table of a circuit"):
            circuit.to_parquet(folder)
    assert (folder / "nodes.parquet").read_bytes() == b"no table"


WRITERS = {
    "graphml": (nx.write_graphml, nx.read_graphml),
    "gexf": (nx.write_gexf, nx.read_gexf),
    "gml": (nx.write_gml, nx.read_gml),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("make", CIRCUITS)
def test_a_plain_graph_goes_through_the_writers_of_networkx(make, form, tmp_path):
    circuit, (write, read) = make(), WRITERS[form]
    graph = circuit.to_networkx(plain=True)
    write(graph, tmp_path / "graph")
    found = read(tmp_path / "graph")
    assert list(found) == list(graph) == circuit.ids() and list(found.edges) == list(graph.edges)
    for ends, row in graph.edges.items():
        assert found.edges[ends]["weight"] == pytest.approx(row["weight"], rel=1e-6)
        assert {"low", "high"} & row.keys() == {
            name for name in ("low", "high") if np.isfinite(circuit.to_networkx().edges[ends][name])
        }
    assert json.loads(graph.graph["settings"]) == circuit.settings


@pytest.mark.parametrize("make", CIRCUITS)
def test_a_graph_goes_through_node_link_json(make):
    graph = make().to_networkx(plain=True)
    found = nx.node_link_graph(json.loads(json.dumps(nx.node_link_data(graph))))
    assert nx.utils.graphs_equal(found, graph)


def test_tables_replace_nothing_but_tables(tmp_path):
    circuit, folder = prompt_graph(), tmp_path / "tables"
    circuit.to_csv(folder)
    circuit.prune(max_edges=1).to_csv(folder)
    assert len(read(folder / "edges.csv")) == 1
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="mine.txt"):
        circuit.to_csv(folder)
    (folder / "mine.txt").unlink()
    (folder / "nodes.csv").write_text("my,own\n1,2\n")
    with pytest.raises(InputError, match="nodes.csv is there and no table of a circuit"):
        circuit.to_csv(folder)
    assert (folder / "nodes.csv").read_text() == "my,own\n1,2\n"
    assert len(read(folder / "edges.csv")) == 1
    with pytest.raises(InputError, match="is no folder"):
        circuit.to_csv(folder / "edges.csv")


def test_tables_are_written_both_or_neither(tmp_path, monkeypatch):
    folder = prompt_graph().to_csv(tmp_path / "tables")
    before = (folder / "nodes.csv").read_bytes()
    write = pd.DataFrame.to_csv

    def fails_on_edges(table, path, **options):
        if path.name == "edges.csv":
            raise OSError("disk full")
        return write(table, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", fails_on_edges)
    with pytest.raises(OSError, match="disk full"):
        by_hand().to_csv(folder)
    assert (folder / "nodes.csv").read_bytes() == before
    assert os.listdir(tmp_path) == ["tables"]


@pytest.mark.parametrize("make", [*CIRCUITS, odd_labels])
def test_graphml_comes_back(make, tmp_path):
    circuit = make()
    want = circuit.to_networkx()
    found = nx.read_graphml(circuit.to_graphml(tmp_path / "circuit.graphml"))
    assert isinstance(found, nx.DiGraph) and not found.is_multigraph()
    assert list(found) == list(want)
    assert dict(found.nodes(data=True)) == dict(want.nodes(data=True))
    known = {
        (source, target): {key: value for key, value in row.items() if abs_finite(value)}
        for source, target, row in want.edges(data=True)
    }
    assert {(s, t): row for s, t, row in found.edges(data=True)} == known
    assert json.loads(found.graph["settings"]) == circuit.settings
    assert json.loads(found.graph["evidence"]) == circuit.evidence


def abs_finite(value) -> bool:
    return isinstance(value, str) or np.isfinite(value)


def test_what_xml_cannot_hold_is_written_out(tmp_path):
    circuit = prompt_graph()
    nodes = circuit.nodes.copy()
    nodes["label"][0] = "\x00\r\uffff"
    path = replace(circuit, nodes=nodes).to_graphml(tmp_path / "circuit.graphml")
    first, *_ = nx.read_graphml(path).nodes(data=True)
    assert first[1]["label"] == r"\x00\r\uffff" and first[0] == r"token:\x00\r\uffff@0"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = prompt_graph().to_graphml(tmp_path / "circuit.graphml")
    before = path.read_bytes()
    monkeypatch.setattr(nx, "write_graphml_xml", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        exports.write_graphml(by_hand(), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["circuit.graphml"]
