"""`circuit-toolkit train` and `find`: from a folder, texts and prompts to a tested circuit."""

import json

import pytest

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.cli import main
from circuit_toolkit.demo.grammar import Grammar


@pytest.fixture(scope="module")
def yours(demo, tmp_path_factory):
    """Folder of a model, as a user has it, with a table of prompts and a file of texts."""
    from circuit_toolkit import tasks

    folder = tmp_path_factory.mktemp("yours")
    demo.hf.save_pretrained(folder / "model")
    demo.tokenizer.save_pretrained(folder / "model")
    task = tasks.agreement(demo, n=48)
    columns = ("clean", "corrupted", "answer", "wrong")
    words = [[demo.word(ids[0]) for ids in each] for each in (task.answers, task.wrong)]
    rows = [dict(zip(columns, row, strict=True)) for row in
            zip(task.clean, task.corrupted, *words, strict=True)]  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(rows))
    texts = [sentence.text for sentence in Grammar(seed=1).sentences(300)]
    (folder / "texts.txt").write_text("\n".join(texts))
    return folder


def test_from_a_folder_and_texts_to_a_tested_circuit(yours, capsys):
    model, saes, sites = str(yours / "model"), str(yours / "saes"), "resid_post 3, resid_post 4"
    command = ["train", "--model", model, "--texts", str(yours / "texts.txt"), "--sites", sites]
    assert main([*command, "--folder", saes, "--steps", "40", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert [*trained["dictionaries"]] == ["blocks.3.hook_resid_post", "blocks.4.hook_resid_post"]

    command = ["find", "--model", model, "--dictionaries", saes, "--sites", "resid_post 4"]
    command += ["--prompts", str(yours / "pairs.json"), "--out", str(yours / "out"), "--json"]
    code = main(command)
    said = capsys.readouterr()
    result = json.loads(said.out)
    circuit = Circuit.load(result["files"]["circuit.json"])
    on = circuit.evidence["ablation"]["evaluated_on"]
    assert result["task"] == "pairs" and on["seen"] == 0 and on["n"] == 24
    assert {row["site"] for row in result["top_nodes"]} == {"resid_post 4"}
    assert code == ("neither" in result["verdict"])
    assert result["verdict"] == circuit.verdict


def test_what_is_missing_is_named_before_anything_is_loaded(yours, capsys, monkeypatch):
    monkeypatch.setattr("circuit_toolkit.models.load_model", None)
    assert main(["train", "--model", "mine", "--texts", str(yours / "texts.txt")]) == 2
    assert "--sites and --folder is missing" in capsys.readouterr().err
    assert main(["find", "--prompts", str(yours / "none.csv"), "--out", str(yours / "o")]) == 2
    assert "none.csv" in capsys.readouterr().err


def test_a_circuit_that_does_not_hold_is_exit_code_1(yours, capsys, monkeypatch):
    from circuit_toolkit.cli import find

    monkeypatch.setattr(find, "tone_of", lambda evidence: "error")
    command = ["find", "--sites", "resid_post 4", "--task", "agreement", "--n", "16"]
    assert main([*command, "--out", str(yours / "o")]) == 1
    said = capsys.readouterr()
    assert "verdict:" in said.out and "load the model" in said.err and "load the" not in said.out


def test_device_and_precision_reach_the_model(capsys, monkeypatch):
    import torch

    given = {}

    def load(name, **options):
        given.update(options, name=name)
        raise KeyboardInterrupt

    monkeypatch.setattr("circuit_toolkit.models.load_model", load)
    assert main(["tasks", "--model", "m", "--device", "cuda:1", "--dtype", "bfloat16"]) == 130
    assert given == {"name": "m", "device": "cuda:1", "dtype": torch.bfloat16}
