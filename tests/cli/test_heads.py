"""`circuit-toolkit heads`, on the bundled model and where nothing is known."""

import json

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.benchmark.heads.reference import reference_heads
from circuit_toolkit.benchmark.metrics import average_precision, roc_auc
from circuit_toolkit.cli import main

SMALL = ["heads", "--task", "agreement", "--n", "16", "--seeds", "2"]


def test_json_holds_scores_and_what_they_are_measured_by(capsys):
    assert main([*SMALL, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    truth = reference_heads("agreement").reference()
    assert result["truth"]["n_heads"] == truth.sum() and result["chance"] == 0.5
    assert list(result["methods"])[:4] == [
        "change towards the answer",
        "attribution patching",
        "head codes",
        "untrained autoencoder",
    ]
    assert {(row["layer"], row["head"]) for row in result["heads"]} == {*np.ndindex(truth.shape)}
    scores = [row["score"] for row in result["heads"]]
    assert scores == sorted(scores, reverse=True)
    for row in result["heads"]:
        assert row["in_circuit"] == truth[row["layer"], row["head"]]
    # The means over seeds are those of the same fit made here.
    model = ct.load_model("demo")
    task = ct.tasks.agreement(model, n=16, seed=0)
    acts = ct.capture(model, "head_out", task, ["last", *task.positions], progress=False)
    fit = ct.HeadCodes(n_seeds=2).fit(acts, task)
    towards = ct.head_scores(model, task, progress=False)
    for row in result["heads"]:
        where = row["layer"], row["head"]
        assert row["score"] == pytest.approx(towards[where], rel=1e-4)
        assert row["head_codes"] == pytest.approx(fit.scores[where], rel=1e-4)
        assert row["attribution"] >= 0 and row["untrained"] >= 0
    for name, measure in (("node_auc", roc_auc), ("node_ap", average_precision)):
        each = [measure(truth.ravel(), one.ravel()) for one in fit.per_seed]
        assert result[name]["mean"] == pytest.approx(np.mean(each), abs=1e-6)
        assert result[name]["spread"] == pytest.approx(np.std(each), abs=1e-6)
    assert {"layer index", "untrained autoencoder", "activation patching"} <= set(
        result["baselines"]
    )
    for key in ("edge_auc", "seconds", "patching_seconds", "cpu_seconds", "patching_cpu_seconds"):
        assert result[key] > 0
    assert result["settings"]["n_seeds"] == 2
    ablation = result["evidence"]["ablation"]
    assert ablation["evaluated_on"]["split"] == "held-out" and ablation["evaluated_on"]["seen"] == 0
    assert ablation["unit"] == "head" and ablation["size"] == len(result["circuit"])
    assert result["evidence"]["edges"]["confirmed"] == len(result["edges"]) > 0
    assert result["verdict"] == "sufficient and necessary"


def test_without_json_a_table_is_printed(capsys):
    assert main(SMALL) == 0
    said = capsys.readouterr().out
    assert "| activation patching | interventions |" in said and "| a3.h3 |" in said
    ways = [
        "change towards the answer",
        "attribution patching",
        "head codes",
        "untrained",
        "chance",
    ]
    assert [said.index(f"\n| {way}") for way in ways] == sorted(
        said.index(f"\n| {way}") for way in ways
    )
    assert "The fewest heads that hold: a3.h3" in said and "confirmed |" in said
    assert "64 held-out agreement prompts" in said and "faithfulness" in said


def test_where_no_circuit_is_known_fields_are_null_and_the_reason_is_said(
    capsys, monkeypatch, tiny
):
    monkeypatch.setattr("circuit_toolkit.models.load_model", lambda name, **_: tiny)
    assert main([*SMALL, "--model", "mine", "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert "No circuit of 'agreement' is known in 'mine'" in said.err
    for key in ("truth", "node_auc", "node_ap", "edge_auc", "baselines", "patching_seconds"):
        assert result[key] is None
    assert len(result["heads"]) == 12 and result["seconds"] > 0
    assert "ablation" in result["evidence"] or "The circuit was not tested" in said.err
    assert main([*SMALL, "--model", "mine"]) == 0
    assert (
        "| head | change towards the answer | attribution patching | head codes |"
        in capsys.readouterr().out
    )


def test_what_is_wrong_is_said(capsys):
    assert main(["heads", "--task", "chess"]) == 2
    assert "greater_than" in capsys.readouterr().err
    assert main(["heads", "--task", "ioi", "--n", "3", "--seeds", "1"]) == 2
    assert "larger task" in capsys.readouterr().err
