"""The text of one token: tokens that differ have names that differ."""

import pytest
import transformers as T

from circuit_toolkit.models.token_texts import BROKEN, token_text

TEXT = "Once the cat in\tthe\n\nhat é, 猫 and 😀!  Two spaces."


@pytest.fixture(scope="module", params=["gpt2", "pythia", "stories260k", "bundled"])
def tokenizer(request, shared_data):
    if request.param == "bundled":
        return request.getfixturevalue("demo").tokenizer
    if request.param == "stories260k":
        return T.AutoTokenizer.from_pretrained(shared_data / "models" / request.param)
    kind = T.GPT2TokenizerFast if request.param == "gpt2" else T.AutoTokenizer
    return kind.from_pretrained(shared_data / "tokenizers" / request.param)


def test_different_tokens_have_different_names(tokenizer):
    """Also rows of the model behind those of the tokenizer, and runs of spaces, twice in Pythia's.

    The replacement mark is the name of what it is the text of, and of no other.
    """
    found = {}
    for token in range(len(tokenizer) + 3):
        found.setdefault(token_text(tokenizer, token), []).append(token)
    assert not {text: ids for text, ids in found.items() if len(ids) > 1} and "" not in found
    for text in [text for text in found if BROKEN in text]:
        pieces = tokenizer.convert_ids_to_tokens(found[text])
        assert all("ï¿½" in each or BROKEN in each for each in pieces)


def test_tokens_put_together_are_the_text(tokenizer):
    """Where the tokenizer keeps all of a text; bytes are put together as bytes."""
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id in ids and tokenizer.unk_token != tokenizer.eos_token:
        ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
        assert [token_text(tokenizer, token) for token in ids] == ["the", "cat"]
        return
    found = b""
    for token in ids:
        parts = token_text(tokenizer, token).split("<0x")
        found += parts[0].encode()
        for part in parts[1:]:
            found += bytes([int(part[:2], 16)]) + part[3:].encode()
    assert found.decode().removeprefix(" ") == TEXT


def test_a_space_before_a_word_is_part_of_its_token(tokenizer):
    ids = tokenizer("cat in the", add_special_tokens=False)["input_ids"]
    words = [token_text(tokenizer, token) for token in ids]
    assert "".join(words).split() == ["cat", "in", "the"] or words == ["cat", "in", "the"]
    of_pieces = "▁in" in tokenizer.get_vocab()
    assert (" in" in words) == (of_pieces or "Ġin" in tokenizer.get_vocab())


def test_control_characters_keep_their_own_text(tokenizer):
    for text in ("\n", "\t"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if ids and tokenizer.unk_token_id not in ids:  # the bundled language has lines alone
            assert "".join(token_text(tokenizer, token) for token in ids).strip(" ") == text
