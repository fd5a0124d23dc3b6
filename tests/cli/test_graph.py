"""`circuit-toolkit graph` on the bundled model."""

import json

import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.cli import main
from circuit_toolkit.demo import __file__ as demo_file


@pytest.fixture(scope="module")
def prompt(demo):
    return ct.tasks.ioi(demo, n=1).clean[0]


def test_the_graph_is_written_and_reported(prompt, tmp_path, capsys, demo, demo_transcoders):
    out = tmp_path / "new"
    command = ["graph", prompt, "--out", str(out), "--max-features", "200", "--json"]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    circuit = Circuit.load(out / "graph.json")
    names = ("graph.html", "graph.json", "neuronpedia.json")
    assert sorted(result["files"]) == sorted(path.name for path in out.iterdir()) == [*names]
    assert result["n_nodes"] == len(circuit.nodes) and result["n_edges"] == len(circuit.edges)
    found = circuit.evidence["attribution"]
    for name in ("replacement", "completeness", "largest_error"):
        assert result[name] == found[name]
    assert 0 < result["largest_error"] < 1e-4 < result["replacement"] < result["completeness"] < 1
    assert 0 < result["seconds"] < 60 and 100 < result["peak_mb"] < 8000
    again = ct.attribution_graph(demo, demo_transcoders, prompt, max_features=200, progress=False)
    assert again.ids() == circuit.ids()
    features = circuit.nodes[circuit.nodes["kind"] == "feature"]
    assert (features["label"] != "").mean() > 0.9
    graph = json.loads((out / "neuronpedia.json").read_text())
    assert len(graph["nodes"]) == result["n_nodes"] and len(graph["links"]) == result["n_edges"]
    page = (out / "graph.html").read_text()
    assert circuit.settings["target"][0] in page and "200" in page


def test_targets_and_position_are_passed_on(prompt, tmp_path, capsys, demo):
    words = demo.words(demo.tokenize([prompt]))[0]
    command = ["graph", prompt, "--target", words[3], "--target", words[2], "--position", "5"]
    assert main([*command, "--max-features", "50", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"→ {words[3].strip()}, {words[2].strip()}" in said and "sums exact to" in said
    assert "replacement" in said and "active features" in said
    settings = Circuit.load(tmp_path / "graph.json").settings
    assert settings["position"] == 5 and settings["max_features"] == 50


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["the"], "is one token"),
        (["the zzz was"], "does not know 'zzz'"),
        (["the brother was", "--target", "the brother"], "must be one known token"),
        (["the brother was", "--position", "9"], "position is 9: the prompt has 4 tokens"),
        (["the brother was", "--max-features", "0"], "max_features must be at least 1"),
        (["the brother was", "--transcoders", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, message, tmp_path, capsys):
    out = tmp_path / "new"
    assert main(["graph", *command, "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
    assert not out.exists()


def test_transcoders_are_read_from_a_folder(tmp_path, capsys, demo):
    from pathlib import Path

    folder = Path(demo_file).parent / "dictionaries"
    command = ["graph", "the brother was", "--transcoders", str(folder), "--json"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["n_active"] > 100
