"""Models as others hand them over: in training, quantised, from several threads, cut short."""

import asyncio
import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import circuit_toolkit as ct
from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.demo import __file__ as demo_file
from circuit_toolkit.dictionaries.dictionary import DEMO_DICTIONARIES
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.models.continuation import continued
from circuit_toolkit.sites import Site
from tests.tiny import TEXTS, tiny_hf

MID = Site("resid_post", 1)


@pytest.fixture()
def dropping():
    """A model half of whose values would drop out in training mode."""
    module = tiny_hf()
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.5
    return load_model(module, build_tokenizer())


def test_a_model_in_training_mode_runs_without_dropout_and_stays_in_it(dropping):
    batch = dropping.tokenize(TEXTS)
    plain = dropping.hf.eval()(input_ids=batch.ids[:1], attention_mask=batch.mask[:1]).logits
    expected = run(dropping, batch, [MID, LOGITS])
    said = continued(dropping, batch, 5)
    dropping.hf.train()
    dropping.hf.get_submodule("transformer.h.0").eval()
    before = [each.training for each in dropping.hf.modules()]
    for site, value in run(dropping, batch, [MID, LOGITS]).items():
        assert torch.equal(value, expected[site])
    torch.testing.assert_close(expected[LOGITS][:1], plain, rtol=0, atol=1e-4)  # logits up to 30
    assert torch.equal(continued(dropping, batch, 5), said)
    assert [each.training for each in dropping.hf.modules()] == before and any(before)
    with pytest.raises(ZeroDivisionError):  # nor does an edit that fails change it
        run(dropping, batch, [LOGITS], {MID: lambda x: x * (1 // 0)})
    assert [each.training for each in dropping.hf.modules()] == before
    noise = dropping.hf(input_ids=batch.ids, attention_mask=batch.mask).logits
    assert (noise - expected[LOGITS]).abs().max() > 1  # so it would have mattered


def work(model, saes, task):
    """Runs, interventions, gradients and writing, as arrays."""
    acts = ct.capture(model, saes, task, progress=False)
    with ct.intervened(model, ct.zero("attn_out 1")) as changed:
        logits = run(changed, changed.tokenize(task.clean), [LOGITS])[LOGITS]
    pattern = Site("attn_pattern", 1)
    seen = run(model, model.tokenize(task.clean), [pattern])[pattern]
    edges = ct.eap(model, task, progress=False).edges["weight"]
    text = ct.generate(model, task.clean[0], ct.zero("attn_out 2"), progress=False)
    return [
        *(each.toarray() for each in acts.features.values()),
        logits.numpy(),
        seen.numpy(),
        edges,
        [text.before, text.after],
    ]


def test_work_of_four_threads_and_of_asyncio_is_that_of_one(demo, demo_saes):
    tasks = [ct.tasks.ioi(demo, n=4, seed=seed) for seed in range(4)]
    few = dict([*demo_saes.items()][:2])
    serial = [work(demo, few, task) for task in tasks]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda task: work(demo, few, task), tasks))

    async def together():
        return await asyncio.gather(*(asyncio.to_thread(work, demo, few, task) for task in tasks))

    for found in (at_once, asyncio.run(together())):
        for ours, expected in zip(found, serial, strict=True):
            for mine, one in zip(ours, expected, strict=True):
                assert (mine == one) if isinstance(one, list) else (mine == one).all()


class FourBit(torch.nn.Linear):
    """What bitsandbytes puts in place of a linear map: packed bytes, which it unpacks to run."""

    def __init__(self, module):
        torch.nn.Module.__init__(self)
        packed = torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8)
        self.weight, self.bias = torch.nn.Parameter(packed, requires_grad=False), None
        self.unpacked = [module]

    def forward(self, x):
        return self.unpacked[0](x)


def test_a_quantised_model_is_refused_before_it_is_moved(monkeypatch):
    from tests.families import random_model, word_tokenizer

    for part, names in (("self_attn", ("q_proj", "o_proj")), ("", ("lm_head",))):
        module = random_model("llama")
        owner = module.get_submodule(f"model.layers.1.{part}") if part else module
        for name in names:
            setattr(owner, name, FourBit(getattr(owner, name)))
        monkeypatch.setattr(module, "to", None)  # bitsandbytes refuses it
        with pytest.raises(InputError, match=r"is a FourBit .* quantised.*module.dequantize\(\)"):
            load_model(module, word_tokenizer())


def test_a_folder_of_quantised_weights_says_what_it_needs(tmp_path):
    folder = tmp_path / "quantised"
    shutil.copytree(demo_file.replace("__init__.py", "model"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"quantised weights.*Load the model that is not quant"):
        load_model(folder)


def test_a_table_of_tokens_that_is_shorter_than_the_configuration_says_is_refused():
    tokenizer = build_tokenizer()
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    module = GPT2LMHeadModel(GPT2Config(vocab_size=100, **sizes))
    module.config.vocab_size = len(tokenizer)
    with pytest.raises(MismatchError, match=r"speaks of 1220 tokens, Embedding has 100 rows"):
        load_model(module, tokenizer)
    module = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    module.lm_head = torch.nn.Linear(32, 100, bias=False)
    with pytest.raises(MismatchError, match="Linear has 100 rows"):
        load_model(module, tokenizer)


def test_a_token_to_pad_with_needs_no_row_in_the_model():
    tokenizer, module = build_tokenizer(), tiny_hf()
    tokenizer.add_special_tokens({"pad_token": "<added>"})
    assert tokenizer.pad_token_id >= module.config.vocab_size
    model = load_model(module, tokenizer)
    batch, alone = model.tokenize(TEXTS[:2]), model.tokenize(TEXTS[1:2])
    assert int(batch.mask.min()) == 0 and int(batch.ids.max()) < model.d_vocab
    found = run(model, batch, [LOGITS])[LOGITS][1, -1]
    torch.testing.assert_close(found, run(model, alone, [LOGITS])[LOGITS][0, -1])


def test_dictionaries_are_refused_for_a_model_of_other_weights(demo, demo_saes):
    text = ["the boys near the cabinet"]

    def captured(model):
        return ct.capture(model, demo_saes, text, progress=False)

    expected = captured(demo)
    twice = captured(ct.load_model("demo"))
    for site, found in expected.features.items():
        assert (found != twice.features[site]).nnz == 0
    captured(ct.load_model("demo", dtype=torch.bfloat16))  # the same to rounding
    other = copy.deepcopy(demo)
    captured(other)
    with torch.no_grad():
        other.hf.get_submodule("transformer.h.2.mlp.c_fc").weight.mul_(1.1)  # trained further
    with pytest.raises(MismatchError, match=r"bound to another model \(demo\).*weights differ"):
        captured(other)
    again = ct.load_dictionaries(other, DEMO_DICTIONARIES)
    ct.capture(other, again, text, progress=False)  # whoever means it says so
    with torch.no_grad():
        other.hf.get_submodule("transformer.h.2.mlp.c_fc").weight.zero_()
    ct.capture(other, again, text, progress=False)  # the object they were bound to is changed
