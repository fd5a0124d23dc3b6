"""Methods against exact patching of some edges, where all would be too many."""

import json

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.benchmark.methods import chosen_methods, run_methods
from circuit_toolkit.benchmark.sampled_edges import sampled_edges, sampled_rows
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.cli import main
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import edge_patching


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.agreement(demo, n=6, seed=0)


@pytest.fixture(scope="module")
def runs(demo, task):
    return run_methods(demo, task, chosen_methods(["eap_absolute", "eap"]), progress=False)


def test_what_is_patched_is_what_methods_rank_first_and_others_at_random(demo, task, runs):
    graph, circuits = graph_of(demo), {name: runs[name].circuit for name in ("eap", "eap_absolute")}
    got = sampled_edges(demo, circuits, strongest=5, others=20)
    for circuit in circuits.values():
        flat = edge_scores(circuit, graph)[graph.allowed.numpy()]
        assert set(np.argsort(-flat)[:5]) <= set(got.numbers)
    assert got.at_random.sum() == 20 and 20 <= len(got.numbers) <= 30
    strengths = got.patched(demo, task)
    exact = edge_scores(edge_patching(demo, task, progress=False), graph)
    want = exact[graph.allowed.numpy()][got.numbers]
    np.testing.assert_allclose(strengths, want, atol=1e-4)  # float32, in other batches
    np.testing.assert_allclose(got.scores(got.circuit(strengths, {})), want, atol=1e-4)


def test_rows_hold_methods_against_exact_patching_on_other_prompts(demo, task, runs):
    rows, truth = sampled_rows(demo, task, task, runs, true=20)
    by = {row["method"]: row for row in rows}
    assert set(by) == {"eap", "eap_absolute", "random", "edge_patching"}
    assert by["edge_patching"]["ap"] == pytest.approx(1) == by["edge_patching"]["found"]
    assert by["eap_absolute"]["ap"] > 0.8 > 0.3 > by["random"]["ap"]
    assert by["eap_absolute"]["rank_correlation"] > 0.7 > abs(by["random"]["rank_correlation"])
    assert by["edge_patching"]["kept"] > by["random"]["kept"] + 0.3
    assert truth["curves"]["eap"][-1] == pytest.approx(1, abs=1e-3)  # all edges keep the whole
    other = ct.tasks.agreement(demo, n=6, seed=1)
    held_out = {row["method"]: row for row in sampled_rows(demo, task, other, runs, true=20)[0]}
    assert 0.7 < held_out["edge_patching"]["ap"] < 1


def test_bench_of_a_model_whose_circuits_are_unknown(capsys, tmp_path, demo):
    demo.hf.save_pretrained(tmp_path)
    demo.tokenizer.save_pretrained(tmp_path)
    command = ["bench", "task", "agreement", "--model", str(tmp_path), "--n-prompts", "4"]
    command += ["--methods", "eap_absolute"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    methods = [row["method"] for row in result["cases"]]
    assert methods == ["eap_absolute", "random", "edge_patching"]
    for row in result["cases"]:
        assert 0 <= row["ap"] <= 1 and row["seconds"] >= 0 and np.isfinite(row["kept"])
    assert result["settings"]["truth"]["agreement"]["true"] == 100
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "| agreement | eap_absolute |" in said and "edges patched alone" in said
