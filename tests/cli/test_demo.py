"""The command line, on the bundled model."""

import json

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.cli import main
from tests.small_case import write_case


def test_demo_prints_json_and_writes_the_circuit(tmp_path, capsys, demo):
    assert main(["demo", "--task", "agreement", "--out", str(tmp_path / "new"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    circuit = Circuit.load(result["files"]["circuit.json"])
    assert result["task"] == "agreement" and result["n_edges"] == len(circuit.edges)
    assert result["n_nodes"] == len(circuit.nodes) - 1 <= 60
    assert circuit.evidence == result["evidence"]
    ablation = result["evidence"]["ablation"]
    assert result["faithfulness"] == ablation["faithfulness"] >= 0.8
    assert result["completeness"] == ablation["completeness"] <= 0.2
    assert result["random_faithfulness"] < 0.5 < result["random_completeness"]
    assert result["verdict"] == circuit.verdict == "sufficient and necessary"
    assert sum(result["edges"].values()) == len(circuit.edges)
    assert ablation["evaluated_on"]["split"] == "held-out" and ablation["evaluated_on"]["seen"] == 0
    page = (tmp_path / "new" / "circuit.html").read_text()
    assert circuit.settings["target"] in page
    assert result["top_edges"] and result["top_nodes"][0]["label"]
    assert result["seconds"] > 0


def test_an_unknown_task_is_an_error_that_names_the_known_ones(capsys, tmp_path):
    assert main(["demo", "--task", "chess", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "chess" in said.err and "greater_than" in said.err and not said.out


def test_bench_of_a_folder_never_seen_prints_rows_and_means_as_json(tmp_path, capsys):
    for name in ("one/7", "two/11"):
        write_case(tmp_path / name)
    command = ["bench", "known-circuits", str(tmp_path), "--n-prompts", "10"]
    assert (
        main(
            [
                *command,
                "--methods",
                "eap_absolute,eap_ig_absolute,randomised_lasso",
                "--json",
            ]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    methods = ["eap_absolute", "eap_ig_absolute", "randomised_lasso"]
    methods += ["random", "empty"]
    assert [row["method"] for row in result["means"]] == methods
    assert [row["case"] for row in result["cases"]] == ["one/7"] * 5 + ["two/11"] * 5
    for row in result["cases"] + result["means"]:
        for key in ("edge_auroc", "edge_ap", "node_auroc", "shd", "shd_best", "seconds"):
            assert isinstance(row[key], int | float)
    assert result["settings"]["n_prompts"] == 10


def test_bench_prints_tables(tmp_path, capsys):
    write_case(tmp_path / "one" / "7")
    write_case(tmp_path / "one" / "8", numerical=True)
    command = ["bench", "known-circuits", str(tmp_path), "--n-prompts", "10"]
    assert main([*command, "--methods", "eap_absolute,eap_ig_absolute,attribution_patching"]) == 0
    said = capsys.readouterr().out
    assert "| one/8 | eap_ig_absolute |" in said and "Means over 2 cases" in said
    assert "| minus eap_ig_absolute |" in said and "oracle" in said


def test_bench_of_a_task_is_against_exact_patching(capsys):
    methods = ["--methods", "eap_absolute", "--n-prompts", "16", "--json"]
    assert main(["bench", "task", "agreement", *methods]) == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["means"]}
    # Attribution finds the strongest edges of this model well, and chance does not.
    assert rows["eap_absolute"]["ap_20"] > 0.8 and rows["eap_absolute"]["edge_auroc"] > 0.95
    assert rows["random"]["ap_20"] < 0.2 and rows["empty"]["shd"] == 40


def test_bench_says_what_is_wrong(tmp_path, capsys):
    assert main(["bench", "known-circuits", str(tmp_path)]) == 2
    assert "No known circuit" in capsys.readouterr().err
    assert main(["bench", "task", "chess"]) == 2
    assert "chess" in capsys.readouterr().err
    assert main(["bench", "task", "agreement", "--methods", "magic"]) == 2
    assert "eap_ig" in capsys.readouterr().err
