"""`circuit-toolkit tasks`: figures of the tasks that a model can be asked, else the reason."""

import json

import pytest

import circuit_toolkit as ct
from circuit_toolkit.cli import main

SMALL = ["tasks", "--n", "12", "--seed", "3"]


def test_json_holds_what_the_tasks_say_of_the_model(capsys):
    assert main([*SMALL, "--task", "agreement,greater_than", "--test", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["split"], result["chat"]) == ("demo", "held-out", False)
    model = ct.load_model("demo")
    for row, name in zip(result["tasks"], ("agreement", "greater_than"), strict=True):
        task = ct.tasks.BUNDLED[name](model, n=12, seed=3, test=True)
        found = task.performance(model)
        assert (row["task"], row["n"], row["refused"]) == (name, 12, None)
        assert row["metric"] == task.metric and row["example"] == task.clean[0]
        assert row["answer"] == [model.tokenizer.decode([t]) for t in task.answers[0]]
        for key in ("accuracy", "chance", "mean", "corrupted_mean", "corrupted_accuracy"):
            assert row[key] == pytest.approx(getattr(found, key), abs=1e-6), key
        assert row["solved"] == found.solved


def test_without_json_a_table_is_printed_with_every_task(capsys):
    assert main(SMALL) == 0
    said = capsys.readouterr().out
    for name in ct.tasks.BUNDLED:
        assert f"| {name} | 12 | " in said
    assert "| by chance |" in said and "ranked at random" in said


def test_tasks_that_cannot_be_asked_say_why(capsys):
    assert main([*SMALL, "--task", "ioi", "--chat", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["tasks"]
    assert row["accuracy"] is None and "has no chat template" in row["refused"]
    assert main([*SMALL, "--task", "ioi", "--chat"]) == 0
    assert "ioi cannot be asked: The tokenizer of demo has no chat" in capsys.readouterr().out
    assert main([*SMALL, "--task", "ioi,chess"]) == 2
    assert "Unknown task 'chess'" in capsys.readouterr().err
