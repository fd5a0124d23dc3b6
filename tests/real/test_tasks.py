"""The tasks on models that nobody here trained: they are done, and fall without the evidence."""

import re

import pytest

from circuit_toolkit.tasks import BUNDLED, Task

# Measured accuracy of 100 prompts is .84 to 1.00 (docstring of SmolLM2 is the lowest); the figures
# below leave two standard errors of 16 prompts.
LEAST = {"ioi": 0.8, "greater_than": 0.9, "docstring": 0.64, "agreement": 0.75}


@pytest.fixture(params=["smollm2", "gemma3"])
def real(request):
    return request.getfixturevalue(request.param)


def ids(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", LEAST)
def test_the_model_does_the_task_and_the_evidence_is_why(real, name):
    task = BUNDLED[name](real, n=16)
    found = task.performance(real)
    assert found.accuracy >= LEAST[name] > found.chance + 0.2
    assert found.corrupted_accuracy is not None and found.corrupted_mean is not None
    assert found.corrupted_accuracy <= found.accuracy - 0.2
    assert found.corrupted_mean <= found.mean - 1
    for clean, answers, wrong in zip(task.clean, task.answers, task.wrong, strict=True):
        for token in {answers[0], wrong[0]}:  # said after the prompt it is this token and no other
            said = real.tokenizer.decode([*ids(real, clean), token])
            assert ids(real, said) == [*ids(real, clean), token]
            if name != "greater_than":
                assert said[len(clean)] == " "
    for places in task.positions.values():
        assert all(
            -len(ids(real, clean)) <= place < 0
            for clean, place in zip(task.clean, places, strict=True)
        )


def test_digits_of_years_are_where_the_positions_say(real):
    task = BUNDLED["greater_than"](real, n=20, years=(10, 89))
    for i, clean in enumerate(task.clean):
        split = [real.tokenizer.decode([token]) for token in ids(real, clean)]
        century, start = re.findall(r"year (\d\d)(\d\d)", clean)[0]
        named = {name: split[places[i]] for name, places in task.positions.items()}
        assert named == {"start": start[0], "ones": start[1], "century": century[1]}
        assert {real.tokenizer.decode([t]) for t in task.answers[i]} == {
            str(digit) for digit in range(int(start[0]) + 1, 10)
        }


def test_answers_are_taken_with_and_without_their_space(real):
    pair = ("When Mary and John left, John gave it to", "When Mary and John left, Anna gave it to")
    spaced = Task.from_pairs(real, [(*pair, " Mary", " John")])
    bare = Task.from_table(
        real, [{"clean": pair[0], "corrupted": pair[1], "answer": "Mary", "wrong": "John"}]
    )
    assert (spaced.answers, spaced.wrong) == (bare.answers, bare.wrong)
    assert spaced.performance(real).accuracy == 1


def test_an_instruct_model_does_the_tasks_as_chats(smollm2):
    for name in ("ioi", "agreement"):
        task = BUNDLED[name](smollm2, n=16)
        chat = task.as_chat(smollm2)
        assert chat.positions == task.positions
        for text in chat.clean:
            whole = smollm2.tokenize([text], bos=True).ids[0].tolist()
            assert whole[0] == smollm2.bos_id != whole[1]
            assert whole.count(smollm2.bos_id) == 3  # system, user and assistant begin with it
        assert chat.performance(smollm2).accuracy >= LEAST[name]
