"""Labelled texts: columns and classes of CoLA and Bias in Bios, other data sets, no network."""

import json

import numpy as np
import pytest

from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.hub import _KNOWN

datasets = pytest.importorskip("datasets")

COLA = [("The boy sleeps.", 1), ("Boy the sleeps.", 0), ("She likes him.", 1), ("Him she.", 0)]
BIOS = [("She treats patients in a clinic.", 13, 1), ("He teaches physics.", 21, 0)]


def cola(rows=COLA):
    features = datasets.Features(
        {
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["unacceptable", "acceptable"]),
            "idx": datasets.Value("int32"),
        }
    )
    columns = {"sentence": [s for s, _ in rows], "label": [y for _, y in rows]}
    return datasets.Dataset.from_dict({**columns, "idx": range(len(rows))}, features=features)


def biographies(rows=BIOS):
    return datasets.Dataset.from_dict(
        {"hard_text": [r[0] for r in rows], "profession": [r[1] for r in rows]}
        | {"gender": [r[2] for r in rows]}
    )


def as_dict(task, label):
    return dict(zip(task.clean, task.labels[label], strict=True))


def test_acceptability_is_a_label_of_two_classes(gpt2):
    task = Task.from_hub(gpt2, "cola", data=cola())
    assert as_dict(task, "acceptable") == {s: ("no", "yes")[y] for s, y in COLA}
    assert task.metric is None and task.answers == task.corrupted == () and len(task) == 4
    assert repr(task) == "Task('cola', 4 prompts without corrupted prompts, no metric)"
    assert max(np.unique(task.labels["acceptable"])) == "yes"  # the class that a fit says yes to


def test_biographies_have_a_profession_and_a_gender(gpt2):
    task = Task.from_hub(gpt2, "bias_in_bios", data=biographies())
    assert as_dict(task, "profession") == {BIOS[0][0]: "nurse", BIOS[1][0]: "professor"}
    assert as_dict(task, "gender") == {BIOS[0][0]: "female", BIOS[1][0]: "male"}
    professions = _KNOWN["bias_in_bios"]["classes"]["profession"]
    assert len(professions) == 28 and list(professions) == sorted(professions)
    with pytest.raises(InputError, match="'profession' of 'bias_in_bios' must be from 0 to 27"):
        Task.from_hub(gpt2, "bias_in_bios", data=biographies([("a b", 28, 0)]))


@pytest.mark.parametrize("how", ["saved", "saved splits", "json", "parquet", "splits in hand"])
def test_local_copies_are_read_in_place_of_the_hub(gpt2, tmp_path, how):
    splits = datasets.DatasetDict({"train": cola(COLA[:2]), "validation": cola(COLA[2:])})
    data = tmp_path / "copy"
    if how == "saved":
        cola(COLA[2:]).save_to_disk(data)
    elif how == "saved splits":
        splits.save_to_disk(data)
    elif how == "splits in hand":
        data = splits
    else:
        data.mkdir()
        for split, rows in (("train", COLA[:2]), ("validation", COLA[2:])):
            if how == "parquet":
                cola(rows).to_parquet(data / f"{split}.parquet")
            else:
                lines = [json.dumps({"sentence": s, "label": y}) for s, y in rows]
                (data / f"{split}.jsonl").write_text("\n".join(lines))
    task = Task.from_hub(gpt2, "cola", data=data, split="validation")
    assert as_dict(task, "acceptable") == {s: ("no", "yes")[y] for s, y in COLA[2:]}
    if "splits" in how:
        with pytest.raises(InputError, match="no split 'dev', only train, validation"):
            Task.from_hub(gpt2, "cola", data=data, split="dev")


def test_any_other_data_set_by_its_columns(gpt2):
    own = datasets.Dataset.from_dict({"said": ["a", "b"], "mood": ["good", "bad"], "n": [3, 4]})
    task = Task.from_hub(gpt2, "own", data=own, text="said", labels=["mood", "n"])
    assert as_dict(task, "mood") == {"a": "good", "b": "bad"}
    assert as_dict(task, "n") == {"a": "3", "b": "4"} and task.name == "own"
    for options, message in [
        ({}, r"Pass text=, the column of the texts in 'own': \['said', 'mood', 'n'\]"),
        ({"text": "said"}, "Pass labels=, the columns of classes in 'own'"),
        ({"text": "told", "labels": ["n"]}, "'own' has no column 'told' among"),
        ({"text": "said", "labels": ["x"]}, "'own' has no column 'x' among"),
    ]:
        with pytest.raises(InputError, match=message):
            Task.from_hub(gpt2, "own", data=own, **options)
    declared = Task.from_hub(gpt2, "glue-like", data=cola())  # one text column, one of classes
    assert set(declared.labels) == {"label"}
    assert set(declared.labels["label"]) == {"unacceptable", "acceptable"}
    with pytest.raises(InputError, match="data must be a data set or a folder, got a list"):
        Task.from_hub(gpt2, "own", data=[1])


def test_texts_are_drawn_by_the_seed_and_without_replacement(gpt2):
    data = cola([(f"Number {i}.", i % 2) for i in range(60)])
    task, again, other = (
        Task.from_hub(gpt2, "cola", data=data, n=20, seed=seed) for seed in (0, 0, 1)
    )
    assert task.clean == again.clean != other.clean and len({*task.clean}) == 20
    for text, label in as_dict(task, "acceptable").items():
        assert label == ("no", "yes")[int(text[7:-1]) % 2]


def test_texts_that_do_not_fit_are_left_out_and_counted(gpt2):
    data = cola([*COLA, ("word " * 200, 1), ("  ", 0)])
    with pytest.warns(UserWarning, match="Texts of 'cola' .* left out: 2") as caught:
        task = Task.from_hub(gpt2, "cola", data=data)
    assert caught[0].filename == __file__ and {*task.clean} == {s for s, _ in COLA}
    assert gpt2.tokenize(task.clean, bos=True).ids.shape[1] <= gpt2.context
    lengths = {s: gpt2.tokenize([s], bos=True).ids.shape[1] for s in ("Go", "Go on", "Go on on")}
    assert list(lengths.values()) == [2, 3, 4]
    with pytest.warns(UserWarning, match="left out: 1"):
        short = Task.from_hub(gpt2, "cola", data=cola([(s, 1) for s in lengths]), max_tokens=3)
    assert {*short.clean} == {"Go", "Go on"}
    with pytest.raises(InputError, match="None of the 6 texts has from 1 to 1 tokens"):
        Task.from_hub(gpt2, "cola", data=data, max_tokens=2)
    for bad in ({"n": 0}, {"max_tokens": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            Task.from_hub(gpt2, "cola", data=data, **bad)


def test_hidden_labels_are_refused(gpt2):
    with pytest.raises(InputError, match="Split 'test' of 'cola' has no 'label': use another"):
        Task.from_hub(gpt2, "cola", data=cola([("a b", -1)]), split="test")


@pytest.mark.parametrize("name", ["cola", "bias_in_bios", "somebody/something"])
def test_without_a_network_the_error_says_what_to_do(gpt2, name):
    with pytest.raises(InputError, match=r"could not be loaded from .*pass data=") as caught:
        Task.from_hub(gpt2, name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_holds_no_data_is_named(gpt2, tmp_path):
    with pytest.raises(InputError, match="could not be loaded from .*nothing"):
        Task.from_hub(gpt2, "cola", data=tmp_path / "nothing")
