"""Models of other tools: what is inside computes what it computed before it was wrapped."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

import circuit_toolkit as ct
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model, load_model, run
from circuit_toolkit.sites import Site
from tests.families import PROMPTS, random_model, word_tokenizer

DEPRECATED = "ignore:LanguageModel is deprecated"
SITES = [Site("embed"), Site("head_out", 1), Site("mlp_in", 1), Site("mlp_out", 2)] + [
    Site("resid_post", layer) for layer in range(3)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)  # the bridge wants one that was loaded


def bridged(module, tokenizer):
    from transformer_lens.model_bridge import TransformerBridge

    name = tokenizer.name_or_path
    return TransformerBridge.boot_transformers(name, hf_model=module, tokenizer=tokenizer)


def assert_same(ours: Model, module: nn.Module, atol: float = 0.0) -> None:
    """Every site as in the module that was never wrapped, and the stream as it shows it itself."""
    plain = load_model(module, word_tokenizer())
    batch = ours.tokenize(PROMPTS, bos=True)
    found, expected = (run(each, batch, SITES) for each in (ours, plain))
    for site in SITES:
        real = batch.mask.bool()  # what stands on padding, kernels of attention agree on by chance
        torch.testing.assert_close(found[site][real], expected[site][real], rtol=0, atol=atol)
    ids = ours.tokenize(PROMPTS[:1], bos=True).ids
    with torch.no_grad():
        stream = module(ids, output_hidden_states=True).hidden_states  # after each block
    alone = run(ours, ours.tokenize(PROMPTS[:1], bos=True), [Site("resid_post", 1)])
    # Another mask and another order of products: float32 at activations of some 5.
    torch.testing.assert_close(alone[Site("resid_post", 1)], stream[2], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama", "gemma3"])
def test_a_bridge_of_transformer_lens_gives_the_model_that_it_was_booted_on(family, tokenizer):
    module = random_model(family)
    bridge = bridged(module, tokenizer)
    atol = 1e-5 if family == "gemma3" else 0  # the bridge asks for eager
    kinds = [type(each) for each in bridge.original_model.modules()]
    assert_same(load_model(bridge), random_model(family), atol)  # with its own tokenizer
    assert_same(load_model(module, word_tokenizer()), random_model(family), atol)
    assert [type(each) for each in bridge.original_model.modules()] == kinds  # theirs is untouched
    ids = torch.tensor([[1, 5, 9, 3]])
    # Features of the bos token are left out, here too.
    theirs = bridge.run_with_cache(ids, names_filter=["blocks.1.hook_mlp_out"])[1]
    ours = ct.capture(load_model(bridge), [Site("mlp_out", 1)], [[1, 5, 9, 3]], progress=False)
    found = torch.tensor(ours.features[Site("mlp_out", 1)].toarray())
    torch.testing.assert_close(found, theirs["blocks.1.hook_mlp_out"][0, 1:], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_bridge_with_processed_weights_is_refused(family, tokenizer):
    bridge = bridged(random_model(family), tokenizer)
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(InputError, match="compatibility mode computes with processed weights"):
        load_model(bridge)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_weights_that_only_the_bridge_reads_are_noticed(tokenizer):
    module = random_model("gpt2")
    bridge = bridged(module, tokenizer)
    bridge.enable_compatibility_mode(disable_warnings=True)
    bridge.compatibility_mode = False  # as if its weights had been processed in another way
    with pytest.raises(InputError, match="bridge around this module computes with processed"):
        load_model(bridge)


@pytest.mark.filterwarnings(DEPRECATED)
def test_a_model_of_nnsight_gives_its_module_and_tokenizer():
    from nnsight import LanguageModel

    given = LanguageModel(random_model("llama"), tokenizer=word_tokenizer())
    assert_same(load_model(given), random_model("llama"))
    assert load_model(given).name == "LlamaForCausalLM"
    assert load_model(given, word_tokenizer(bos=False)).tokenizer("a").input_ids[0] != 1
    with given.trace("a b"):  # and it goes on as it did
        out = given.lm_head.output.save()
    assert out.shape[-1] == given.config.vocab_size


@pytest.mark.filterwarnings(DEPRECATED)
def test_a_model_of_nnsight_without_weights_is_refused():
    from nnsight import LanguageModel

    from circuit_toolkit.models.sources import DEMO_FOLDER

    with pytest.raises(InputError, match=r"no weights yet.*dispatch=True"):
        load_model(LanguageModel(str(DEMO_FOLDER), tokenizer=word_tokenizer()))


@pytest.mark.filterwarnings(DEPRECATED)
def test_a_model_of_another_tool_is_no_model_yet():
    from nnsight import LanguageModel

    given = LanguageModel(random_model("gpt2"), tokenizer=word_tokenizer())
    with pytest.raises(InputError, match=r"got a LanguageModel. Pass what load_model\(...\)"):
        ct.capture(given, ["resid_post 0"], PROMPTS)  # pyright: ignore


def test_a_copy_of_a_model_with_an_adapter_is_merged():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(random_model("llama"), config).eval()
    before = copy.deepcopy(adapted.state_dict())
    ids = torch.tensor([[1, 5, 9, 3]])
    with torch.no_grad():
        found, expected = load_model(adapted, word_tokenizer()).hf(ids).logits, adapted(ids).logits
        plain = random_model("llama")(ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)  # the sum is rounded once more
    assert (expected - plain).abs().max() > 0.01
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


def test_an_adapter_that_cannot_be_merged_is_refused():
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapted = get_peft_model(random_model("llama"), config)
    with pytest.raises(InputError, match=r"cannot be merged.*get_base_model\(\)"):
        load_model(adapted, word_tokenizer())


class Own(nn.Module):
    """A module with a configuration of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"layers": 2}
        self.layer = nn.Linear(2, 2)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), Own()])
def test_a_plain_module_is_refused_with_the_way_out(module):
    message = r"A module of your own needs .* derive it from PreTrainedModel.*Architecture\("
    with pytest.raises(InputError, match=message):
        load_model(module, word_tokenizer())


def test_nnsight_may_be_imported_first():
    code = "import nnsight, circuit_toolkit as ct; m = ct.load_model('demo'); "
    code += "print(len(ct.load_dictionaries(m)), hasattr(object(), 'save'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "True"]
