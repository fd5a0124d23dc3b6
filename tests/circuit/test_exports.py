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
