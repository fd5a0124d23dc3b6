"""Accuracy, metric and chance of a model on a task are what a loop over its prompts gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks import BUNDLED, Task
from tests.tiny import last_logits


@pytest.mark.parametrize("name", ["ioi", "greater_than"])
def test_performance_is_that_of_prompts_one_by_one(tiny, name):
    task = BUNDLED[name](tiny, n=7)
    found = task.performance(tiny, batch_size=4)
    assert (found.n, len(found.correct), len(found.metric)) == (7, 14, 14)
    for row, text in enumerate(task.texts):
        logits = last_logits(tiny.hf, text)
        right, wrong = list(task.answers[row % 7]), list(task.wrong[row % 7])
        assert found.correct[row] == (logits[right].max() > logits[wrong].max())
        if name == "ioi":
            metric = logits[right].mean() - logits[wrong].mean()
        else:
            metric = logits.softmax(0)[right].sum() - logits.softmax(0)[wrong].sum()
        # float32 through three layers, padded and not
        assert found.metric[row] == pytest.approx(float(metric), abs=1e-4)
    assert found.accuracy == found.correct[:7].mean() and found.solved == found.correct[:7].sum()
    assert found.mean == pytest.approx(found.metric[:7].mean())
    assert found.corrupted_mean == pytest.approx(found.metric[7:].mean())
    assert found.corrupted_accuracy == found.correct[7:].mean()
    assert f"{found.solved} of 7 solved" in repr(found)


def test_chance_is_the_accuracy_of_random_logits(tiny):
    task = BUNDLED["docstring"](tiny, n=200)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(20 * 200, len(tiny.tokenizer), generator=rng)
    by_chance = float(task.accuracy(logits, np.arange(4000)).float().mean())
    chance = task.performance(tiny, batch_size=100).chance
    assert by_chance == pytest.approx(chance, abs=4 * (0.25 / 4000) ** 0.5)  # four standard errors
    assert chance < 0.4


def test_prompts_that_a_model_fails_are_left_out_and_counted(tiny):
    task = BUNDLED["agreement"](tiny, n=40)
    solved = task.performance(tiny).correct[:40]
    assert 0 < solved.sum() < 40
    with pytest.warns(UserWarning, match=rf"{40 - solved.sum()} of 40 prompts of 'agreement' are"):
        kept = task.solved_by(tiny)
    assert kept.clean == tuple(np.array(task.clean)[solved])
    assert kept.corrupted == tuple(np.array(task.corrupted)[solved])
    assert kept.unsolved == 40 - len(kept) == kept.record()["unsolved"]
    assert f"{kept.unsolved} unsolved left out" in repr(kept) and "unsolved" not in repr(task)
    assert kept.solved_by(tiny).unsolved == kept.unsolved  # no warning: all are solved
    assert kept.performance(tiny).accuracy == 1


def test_what_cannot_be_measured_is_refused(tiny):
    task = BUNDLED["agreement"](tiny, n=40)
    failed = task.select(np.flatnonzero(~task.performance(tiny).correct[:40]))
    with pytest.raises(InputError, match="solves none of"):
        failed.solved_by(tiny)
    labels = Task("own", task.clean, metric=None, labels={"a": ("b",) * 40})
    with pytest.raises(InputError, match="has no answers"):
        labels.performance(tiny)
    with pytest.raises(InputError, match="model must be a Model"):
        task.solved_by("demo")  # pyright: ignore[reportArgumentType]
    alone = replace(task, corrupted=()).performance(tiny)
    assert alone.corrupted_accuracy is None and alone.corrupted_mean is None
    assert "corrupted" not in repr(alone)
