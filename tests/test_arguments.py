"""Arguments: tables and data sets where prompts belong, and the column that was meant."""

import numpy as np
import pandas as pd
import pytest

from circuit_toolkit.arguments import as_prompts, one_of
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
