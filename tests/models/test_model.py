"""Loading, tokenizing, and what is refused."""

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from circuit_toolkit.demo.tokenizer import build_tokenizer
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import ARCHITECTURES, Architecture, load_model
from circuit_toolkit.sites import Site
from tests.tiny import LAYERS, TEXTS, WIDTH, tiny_hf


def test_a_module_tells_its_sizes(tiny):
    assert (tiny.n_layers, tiny.width, tiny.context) == (LAYERS, WIDTH, 64)
    assert repr(tiny) == "Model('GPT2LMHeadModel', 3 layers, width 32, cpu)"


def test_a_saved_folder_loads_as_the_same_model(tmp_path, tiny):
    tiny_hf().save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    batch, again = tiny.tokenize(TEXTS), loaded.tokenize(TEXTS)
    assert torch.equal(batch.ids, again.ids) and torch.equal(batch.mask, again.mask)
    with torch.no_grad():
        ours, theirs = tiny.hf(batch.ids).logits, loaded.hf(batch.ids).logits
    assert torch.equal(ours, theirs)
    assert loaded.name == str(tmp_path)


def test_prompts_are_padded_on_the_left_with_one_bos_each(tiny):
    batch = tiny.tokenize(TEXTS)
    tokenizer = tiny.tokenizer
    for ids, mask in zip(batch.ids.tolist(), batch.mask.tolist(), strict=True):
        n = sum(mask)
        assert mask == [0] * (len(mask) - n) + [1] * n
        assert ids[: len(ids) - n] == [tokenizer.pad_token_id] * (len(ids) - n)
        assert ids.index(tokenizer.bos_token_id) == len(ids) - n
        assert ids.count(tokenizer.bos_token_id) == 1


def test_words_are_the_tokens_without_padding(tiny):
    assert tiny.words(tiny.tokenize(TEXTS))[1:] == [
        ["<bos>", "the", "boys", "near", "the", "cabinet"],
        [
            "<bos>",
            "the",
            "war",
            "lasted",
            "from",
            "the",
            "year",
            "17",
            "32",
            "to",
            "the",
            "year",
            "17",
        ],
        ["<bos>", "Anna"],
    ]


@pytest.mark.parametrize("prompts", [[], [""], ["Anna", "  "], [None]])
def test_empty_prompts_are_refused(tiny, prompts):
    with pytest.raises(InputError, match="prompt"):
        tiny.tokenize(prompts)


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("the zebra sleeps", "zebra"),
        ("the year 7", "7"),
        ("the year 173", "3"),
        ("the café", "caf"),
        ("Anna % Mary", "%"),
        ("7", "7"),
    ],
)
def test_unknown_words_are_named(tiny, prompt, word):
    with pytest.raises(InputError, match=f"does not know '{word}'"):
        tiny.tokenize(["Anna", prompt])


def test_a_prompt_may_fill_the_context_and_no_more(tiny):
    assert tiny.tokenize([" ".join(["the"] * 63)]).ids.shape == (1, 64)
    with pytest.raises(InputError, match="65 tokens, GPT2LMHeadModel takes at most 64"):
        tiny.tokenize(["Anna", " ".join(["the"] * 64)])


def test_an_answer_is_one_known_token(tiny):
    assert tiny.tokenizer.decode([tiny.token_id("Mary")]) == "Mary"
    for word in ("1732", "zebra", "", "Mary Anna"):
        with pytest.raises(InputError, match="must be one known token"):
            tiny.token_id(word)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("head_out", 0), "no site of kind 'head_out'"),
        (Site("resid_post", LAYERS), "has layers 0 to 2"),
    ],
)
def test_sites_that_the_model_lacks_are_refused(tiny, site, message):
    with pytest.raises(InputError, match=message):
        tiny.check_site(site)


def neox(vocabulary: int = 2000) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    )


def test_an_unknown_family_is_refused_and_its_layout_can_be_passed():
    with pytest.raises(InputError, match=r"No layout is known for model type 'gpt_neox'.*gpt2"):
        load_model(neox(), build_tokenizer())
    layout = Architecture(
        "gpt_neox.final_layer_norm",
        {"resid_post": ("gpt_neox.layers.{}", "output"), "logits": ("lm_head", "output")},
        frozenset(),
    )
    model = load_model(neox(), build_tokenizer(), architecture=layout)
    with pytest.raises(InputError, match="no site of kind 'embed'"):
        model.check_site(Site("embed"))


def test_a_layout_of_another_family_is_refused():
    with pytest.raises(MismatchError, match="GPTNeoXForCausalLM does not have"):
        load_model(neox(), build_tokenizer(), architecture=ARCHITECTURES["gpt2"])


def test_model_and_tokenizer_must_belong_together():
    with pytest.raises(MismatchError, match="tokens, the model 100"):
        load_model(neox(100), build_tokenizer())
    with pytest.raises(InputError, match="needs its tokenizer"):
        load_model(tiny_hf())


@pytest.mark.parametrize("name", ["no/such-model", "nowhere"])
def test_a_model_that_is_not_there_is_refused_offline(name, tmp_path):
    with pytest.raises(InputError, match="No model could be loaded"):
        load_model(name)
    with pytest.raises(InputError, match="No model could be loaded"):
        load_model(tmp_path)
