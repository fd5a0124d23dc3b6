"""The command line, on the bundled model."""

import json

from circuit_toolkit.circuits.circuit import Circuit
from circuit_toolkit.cli import main


def test_demo_prints_json_and_writes_the_circuit(tmp_path, capsys, demo):
    assert main(["demo", "--task", "agreement", "--out", str(tmp_path / "new"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    circuit = Circuit.load(result["files"]["circuit.json"])
    assert result["features"] == len(circuit.nodes) - 1 <= 60
    assert circuit.evidence == result["evidence"]
    assert result["evidence"]["ablation"]["loss"] >= 0.7
    assert result["evidence"]["ablation"]["random_loss_mean"] <= 0.15
    page = (tmp_path / "new" / "circuit.html").read_text()
    assert circuit.settings["target"] in page
    assert result["top_edges"] and result["top_features"][0]["label"]
    assert sum(result["seconds"].values()) > 0


def test_an_unknown_task_is_an_error_that_names_the_known_ones(capsys, tmp_path):
    assert main(["demo", "--task", "chess", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "chess" in said.err and "greater_than" in said.err and not said.out
