"""The tokenizer splits every text of the grammar into exactly its words."""

import pytest
from transformers import AutoTokenizer

from benchmarks.demo.tokenizer import SPECIAL, build_tokenizer
from circuit_toolkit.demo.grammar import VOCABULARY, Grammar


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("kind", [None, *Grammar.kinds])
def test_texts_split_into_their_words(tokenizer, kind):
    for sentence in Grammar(7).sentences(2000 if kind is None else 200, kind):
        words = [word.text for word in sentence.words]
        assert tokens(tokenizer, sentence.text) == ["<bos>", *words], sentence.text
        assert len(words) < tokenizer.model_max_length


@pytest.mark.parametrize("kind", ["ioi", "greater_than", "docstring", "agreement", "bios"])
def test_prompts_split_into_the_words_before_the_question(tokenizer, kind):
    for sentence in Grammar(8).sentences(200, kind, test=True):
        words = [word.text for word in sentence.words[: sentence.question.at]]
        assert tokens(tokenizer, sentence.prompt) == ["<bos>", *words]


def test_every_word_is_one_token_and_comes_back(tokenizer):
    assert len(tokenizer) == len(VOCABULARY) + len(SPECIAL)
    for word in VOCABULARY:
        (token,) = tokenizer(word, add_special_tokens=False)["input_ids"]
        assert token != tokenizer.unk_token_id
        assert tokenizer.decode([token]) == word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in 1732", ["in", "17", "32"]),
        ("the store, then", ["the", "store", ",", "then"]),
        ("7", ["<unk>"]),
        ("the year 173", ["the", "year", "17", "<unk>"]),
        ("17321", ["17", "32", "<unk>"]),
        ("a\tb\n the", ["a", "<unk>", "the"]),
        ("café!", ["<unk>", "<unk>", "!"]),
        ("the % store", ["the", "<unk>", "store"]),
    ],
)
def test_nothing_but_white_space_is_left_out(tokenizer, text, expected):
    assert tokens(tokenizer, text) == ["<bos>", *expected]


def test_it_is_the_same_from_a_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for sentence in Grammar(9).sentences(50):
        assert again(sentence.text)["input_ids"] == tokenizer(sentence.text)["input_ids"]
    assert again.padding_side == "left" and again.pad_token_id == 0
