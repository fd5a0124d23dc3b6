"""Arguments: tables and data sets where prompts belong, and the column that was meant."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuit_toolkit.arguments import as_prompts, one_of, refuse_surrogates
from circuit_toolkit.errors import InputError

TEXTS = ["Once upon a time", "She was happy"]


def data_sets():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"id": [1, 2], "text": TEXTS})
    said = table.rename_column("text", "said").remove_columns("id")
    return table, datasets.DatasetDict(train=table), datasets.DatasetDict(validation=said)


def test_a_table_or_data_set_is_refused_with_the_column_that_was_meant():
    table, splits, other = data_sets()
    for given, column in [
        (pd.DataFrame({"text": TEXTS}), "data['text']"),
        (pd.DataFrame({"a": TEXTS, "text": TEXTS}), "data['text']"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}, "data['input_ids']"),
        ({"said": TEXTS}, "data['said']"),
        (table, "data['text']"),
        (splits, "data['train']['text']"),
        (other, "data['validation']['said']"),
    ]:
        with pytest.raises(InputError) as error:
            as_prompts(given)
        assert f"Pass one column of it: {column}." in str(error.value)
        assert type(given).__name__ in str(error.value)
    with pytest.raises(InputError, match="got a dict with nothing in it"):
        as_prompts({})


def test_that_column_is_taken_whatever_it_is_of():
    table, splits, _ = data_sets()
    frame = pd.DataFrame({"text": TEXTS})
    for given in (
        table["text"],
        splits["train"]["text"],
        frame["text"],
        frame["text"].to_numpy(),
        iter(TEXTS),
        tuple(TEXTS),
    ):
        assert as_prompts(given) == TEXTS


@pytest.mark.parametrize("value", ["c", 1, True, ["a"], np.array(["a", "b"]), pd.Series(["a"])])
def test_a_choice_is_one_of_those_that_are_named(value):
    one_of("a", "way", "a", "b"), one_of(None, "way", None, "a")
    with pytest.raises(InputError, match="way must be one of None, 'a', 'b', got "):
        one_of(value, "way", None, "a", "b")
    with pytest.raises(InputError, match="way must be one of 'a', got None"):
        one_of(None, "way", "a")


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (7, r"Pass a task, such as .* or a list of str or of token ids"),
        ([5, 7, 9], r"a list in a list: \[\[5, 7, 9\]\]"),
        (np.array([5, 7, 9]), r"a list in a list: \[\[5, 7, 9\]\]"),
        (Path("texts.txt"), r"Pass what the file holds, such as path.read_text\(\).splitlines"),
        ([Path("texts.txt")], r"Pass what the file holds"),
        ([b"Once upon"], r"Pass text: data.decode\(\)"),
        ([{"id": 1, "text": TEXTS[0]}], r"\[row\['text'\] for row in data\]"),
        ([None], r"prompts\[0\] must be a text or a list of token ids, got None\."),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_way_out(given, way_out):
    with pytest.raises(InputError, match=way_out):
        as_prompts(given)


def test_a_stream_of_rows_is_refused_at_once_and_its_column_taken():
    datasets = pytest.importorskip("datasets")

    def rows():
        while True:  # as corpora are streamed: a list of it would never end
            yield {"text": TEXTS[0]}

    endless = datasets.IterableDataset.from_generator(rows)
    with pytest.raises(InputError, match=r"\[row\['text'\] for row in data\]"):
        as_prompts(endless)
    stream = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    with pytest.raises(InputError, match=r"IterableDataset with 'text'.*data\['text'\]"):
        as_prompts(stream)
    assert as_prompts(stream["text"]) == TEXTS


def test_what_a_tokenizer_returned_is_refused_padded_or_not(tiny):
    tokenizer = tiny.tokenizer
    even = tokenizer(["the boys", "the girls"])
    with pytest.raises(InputError, match=r"BatchEncoding with .*data\['input_ids'\]"):
        as_prompts(even)
    assert as_prompts(even["input_ids"]) == even["input_ids"]
    uneven = ["the boys", "the boys near the cabinet"]
    for padded in (
        tokenizer(uneven, padding=True),
        tokenizer(uneven, padding=True, return_tensors="pt"),
    ):
        with pytest.raises(InputError, match=r"holds padding.*pass the texts themselves"):
            as_prompts(padded)


def test_half_a_character_is_refused_and_a_whole_one_beside_it_is_not(tiny):
    for text in ("the \ud83d boys", "the boys \udc80"):
        with pytest.raises(InputError, match=r"half a character, '\\ud.* at \d+: .*Replace it"):
            tiny.tokenize([text])
        with pytest.raises(InputError, match="An answer holds half a character"):
            tiny.token_id(text)
    refuse_surrogates("the 😀 boys é", "A prompt")
