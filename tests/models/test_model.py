"""Loading, tokenizing, and what is refused."""

from dataclasses import replace

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import ARCHITECTURES, LOGITS, load_model, run, token_mask
from circuit_toolkit.models.weights import output_matrix
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
    assert loaded.name == tmp_path.name


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
        (Site("head_out", LAYERS), "has layers 0 to 2"),
        (Site("resid_post", LAYERS), "has layers 0 to 2"),
    ],
)
def test_sites_that_the_model_lacks_are_refused(tiny, site, message):
    with pytest.raises(InputError, match=message):
        tiny.check_site(site)


class NewConfig(OPTConfig):
    """A family that is not in the table: OPT under another name."""

    model_type = "new_family"


def new_family(vocabulary: int = 2000) -> OPTForCausalLM:
    return OPTForCausalLM(
        NewConfig(
            vocab_size=vocabulary,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            ffn_dim=16,
            max_position_embeddings=16,
            word_embed_proj_dim=8,
        )
    )


OPT = ARCHITECTURES["opt"]


def test_an_unknown_family_is_refused_and_its_layout_can_be_passed():
    with pytest.raises(InputError, match=r"No layout is known for model type 'new_family'.*gpt2"):
        load_model(new_family(), build_tokenizer())
    model = load_model(new_family(), build_tokenizer(), architecture=OPT)
    batch = model.tokenize(TEXTS[1:2])
    sites = [Site("resid_pre"), Site("attn_out"), Site("mlp_out"), Site("resid_post")]
    values = run(model, batch, sites)
    assert (values[sites[3]] - sum(values[s] for s in sites[:3])).abs().max() <= 1e-6
    heads = run(model, batch, [Site("head_out")])[Site("head_out")].sum(2)
    bias = model.hf.get_submodule("model.decoder.layers.0.self_attn.out_proj").bias
    assert (values[sites[1]] - heads - bias).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["embed", "mlp_norm", "out_proj"])
def test_a_path_that_is_not_there_is_named(name):
    layout = replace(OPT, **{name: "nowhere"})
    with pytest.raises(MismatchError, match=f"puts {name} at '.*nowhere', which OPTForCausalLM"):
        load_model(new_family(), build_tokenizer(), architecture=layout)
    with pytest.raises(MismatchError, match="'twins' in the configuration"):
        load_model(new_family(), build_tokenizer(), architecture=replace(OPT, parallel="twins"))


def test_a_layout_of_another_family_is_refused():
    with pytest.raises(MismatchError, match="OPTForCausalLM does not have"):
        load_model(new_family(), build_tokenizer(), architecture=ARCHITECTURES["gpt2"])


def test_bos_is_there_once_or_not_at_all(tiny):
    bos = tiny.tokenizer.bos_token_id
    by_itself = tiny.tokenize(["Anna"]).ids[0].tolist()
    assert by_itself[0] == bos and bos not in by_itself[1:]
    assert tiny.tokenize(["Anna"], bos=True).ids[0].tolist() == by_itself
    assert tiny.tokenize(["Anna"], bos=False).ids[0].tolist() == by_itself[1:]
    silent = load_model(tiny_hf(), no_bos_tokenizer())
    assert silent.tokenize(["Anna"]).ids[0].tolist() == by_itself[1:]
    assert silent.tokenize(["Anna", "the boys"], bos=True).ids[0, -2:].tolist() == by_itself
    assert token_mask(silent, silent.tokenize(["Anna"], bos=True)).tolist() == [[False, True]]
    assert token_mask(silent, silent.tokenize(["Anna"])).tolist() == [[True]]


def no_bos_tokenizer():
    """The same vocabulary, but like GPT-2's: it has a bos token and does not begin with it."""
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None
    return tokenizer


def test_prompts_may_be_token_ids(tiny):
    batch = tiny.tokenize([[5, 6, 7], torch.tensor([8])])
    assert batch.ids.tolist()[0] == [5, 6, 7] and batch.ids[1, -1] == 8
    assert batch.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    for wrong in ([], [-1], [10**6], [1.5], 7):
        with pytest.raises(InputError, match="must be a text .*token ids"):
            tiny.tokenize([wrong])


def test_shapes_of_a_token_at_each_site(tiny):
    for site, shape in {
        Site("resid_post", 1): (WIDTH,),
        Site("attn_z", 0): (4, WIDTH // 4),
        Site("head_out", 2): (4, WIDTH),
        Site("logits"): (tiny.hf.config.vocab_size,),
    }.items():
        assert tiny.shape_at(site) == shape
        value = run(tiny, tiny.tokenize(TEXTS[:1]), [site])[site]
        assert value.shape[2:] == shape
    with pytest.raises(InputError, match="pairs of tokens"):
        tiny.shape_at(Site("attn_pattern", 0))


def test_a_model_without_weights_tells_its_layout_and_no_more(tmp_path):
    tiny_hf().save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    layout = load_model(tmp_path, remote=True)
    assert layout.remote and layout.n_layers == LAYERS and layout.device.type == "cpu"
    assert layout.tokenize(["Anna"]).ids.shape == (1, 2)
    with pytest.raises(InputError, match="not here.*remote=True"):
        output_matrix(layout, 0)
    with pytest.raises(InputError, match="name of a model that NDIF hosts"):
        load_model(tiny_hf(), build_tokenizer(), remote=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_and_placement_pass_through(tmp_path, dtype):
    tiny_hf().save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype=dtype, device_map="cpu")
    assert model.dtype == dtype
    for site, value in run(model, model.tokenize(TEXTS[:2]), [Site("mlp_in", 1), LOGITS]).items():
        assert value.dtype == torch.float32, site


def test_model_and_tokenizer_must_belong_together():
    with pytest.raises(MismatchError, match="tokens, the model 100"):
        load_model(new_family(100), build_tokenizer(), architecture=OPT)
    with pytest.raises(InputError, match="needs its tokenizer"):
        load_model(tiny_hf())


@pytest.mark.parametrize("name", ["no/such-model", "nowhere"])
def test_a_model_that_is_not_there_is_refused_offline(name, tmp_path):
    with pytest.raises(InputError, match="No model could be loaded"):
        load_model(name)
    with pytest.raises(InputError, match="No model could be loaded"):
        load_model(tmp_path)
