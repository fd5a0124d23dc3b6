"""What metadata say is believed, what they leave out is named, what does not fit is refused."""

import json
import warnings

import pytest
import torch

from circuit_toolkit.dictionaries import bind_dictionary, load_dictionaries
from circuit_toolkit.dictionaries.metadata import names_of, normal_name
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.models import Conventions, load_model
from circuit_toolkit.sites import Site
from tests.dictionaries.published import about, edit, family_model, fresh, write
from tests.families import PROCESSINGS, random_model, word_tokenizer

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*This SAE has non-empty")
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return family_model("gpt2")


@pytest.fixture
def folder(model, tmp_path):
    return write(tmp_path / "it", "topk", model.width, about(model, HOOK))


def silent(model, folder, **options):
    """What loading warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_dictionaries(model, folder, **options)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gpt2", "gpt2-small"),
        ("openai-community/gpt2", "gpt2-small"),
        ("EleutherAI/pythia-70m-deduped", "pythia-70m-deduped"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("/data/models--EleutherAI--pythia-70m/snapshots/a39f36b100fe", "pythia-70m"),
        ("C:\\models\\gpt2\\", "gpt2"),
    ],
)
def test_one_model_has_many_names(ours, theirs):
    assert normal_name(ours) == normal_name(theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gpt2", "gpt2-medium"),
        ("gpt2", "distilgpt2"),
        ("pythia-70m", "pythia-70m-deduped"),
        ("gemma-2-2b", "gemma-2-2b-it"),
        ("gemma-2-2b", "gemma-2b"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base"),
        ("Llama-3.1-8B", "Llama-3.1-8B-Instruct"),
    ],
)
def test_other_models_have_other_names(ours, theirs):
    assert normal_name(ours) != normal_name(theirs)


def test_a_local_folder_may_say_which_model_it_holds(tmp_path, folder):
    module = random_model("gpt2")
    module.save_pretrained(tmp_path / "mine")
    word_tokenizer().save_pretrained(tmp_path / "mine")
    edit(folder, model_name="gpt2-small")
    mine = load_model(str(tmp_path / "mine"))
    with pytest.raises(MismatchError, match="trained on 'gpt2-small'.*say check_model=False"):
        load_dictionaries(mine, folder)
    assert silent(mine, folder, check_model=False) == []
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    config["_name_or_path"] = "openai-community/gpt2"  # as transformers 4 wrote it
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config))
    assert {"gpt2", "mine"} <= names_of(mine)
    assert silent(mine, folder) == []


def test_full_metadata_pass_in_silence(model, folder):
    assert silent(model, folder) == []


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("model_name", "names no model: it is taken to be of 'GPT2LMHeadModel'"),
        ("prepend_bos", "does not say whether prompts began with"),
        ("model_from_pretrained_kwargs", "does not say how its model was processed"),
    ],
)
def test_silence_on_what_matters_is_named_once(model, folder, tmp_path, missing, said):
    edit(folder, **{missing: None})
    (warning,) = silent(model, folder)
    assert said in warning and "check_dictionaries" in warning
    other = write(tmp_path / "other", "topk", model.width, about(model, "hook_embed"))
    edit(other, **{missing: None})
    (warning,) = silent(model, tmp_path)
    assert warning.startswith("'other' and 1 more: its metadata")


def test_silence_on_processing_that_changes_nothing_is_no_matter(model, tmp_path):
    llama = family_model("llama")  # RMSNorm: nothing is centred; no biases of values
    for i, hook in enumerate([HOOK, "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"]):
        folder = write(tmp_path / f"llama-{i}", "topk", llama.width, about(llama, hook))
        edit(folder, model_from_pretrained_kwargs=None)
        assert silent(llama, folder) == []
    for i, (hook, config) in enumerate(
        [
            (HOOK, {"normalize_activations": "layer_norm"}),  # takes the mean away in any case
            ("blocks.1.ln2.hook_normalized", {}),
        ]
    ):
        folder = write(tmp_path / f"gpt2-{i}", "topk", model.width, about(model, hook), **config)
        edit(folder, model_from_pretrained_kwargs=None)
        assert silent(model, folder) == []
    folder = write(tmp_path / "z", "topk", model.width, about(model, "blocks.1.attn.hook_z"))
    edit(folder, model_from_pretrained_kwargs=None)
    assert len(silent(model, folder)) == 1  # GPT-2 has biases of values


def test_a_checkpoint_of_the_model_is_named(model, folder):
    edit(folder, model_from_pretrained_kwargs={"revision": "step3000"})
    (warning,) = silent(model, folder)
    assert "checkpoint of its model, {'revision': 'step3000'}" in warning


def test_conventions_are_those_of_the_metadata(model, folder):
    kwargs = PROCESSINGS["all"] | {"dtype": "bfloat16", "center_unembed": False}
    edit(folder, model_from_pretrained_kwargs=kwargs, prepend_bos=False)
    (dictionary,) = load_dictionaries(model, folder).values()
    assert dictionary.conventions == Conventions(True, True, False, True, prepend_bos=False)
    assert dictionary.metadata["hook_name"] == HOOK


def test_conventions_can_be_given(model, folder):
    edit(folder, model_from_pretrained_kwargs=None, prepend_bos=None)
    given = Conventions(center_writing_weights=True, prepend_bos=True)
    assert silent(model, folder, conventions=given) == []
    (dictionary,) = load_dictionaries(model, folder, conventions=given).values()
    assert dictionary.conventions == given and dictionary.reads.centre and dictionary.writes.centre
    edit(folder, prepend_bos=False)
    given = Conventions(fold_ln=True)
    (dictionary,) = load_dictionaries(model, folder, conventions=given).values()
    assert dictionary.conventions == Conventions(fold_ln=True, prepend_bos=False)


def test_what_cannot_be_read_is_refused_in_one_line(model, folder):
    config = json.loads((folder / "cfg.json").read_text())

    def refused(match, metadata=None, error=MismatchError, **settings):
        new = config | settings | {"metadata": config["metadata"] | (metadata or {})}
        (folder / "cfg.json").write_text(json.dumps(new))
        with pytest.raises(error, match=match) as caught:
            load_dictionaries(model, folder)
        assert "\n" not in str(caught.value)

    refused("reads head 3 alone", {"hook_head_index": 3})
    refused("reads 'blocks.1.attn.hook_q', which is no site", {"hook_name": "blocks.1.attn.hook_q"})
    refused("has layers 0 to 2", {"hook_name": "blocks.3.hook_resid_pre"})
    refused("has no activation of one token", {"hook_name": "blocks.1.attn.hook_pattern"})
    refused("save_inference_model", architecture="batchtopk")
    refused("'temporal', which cannot be read token by token", architecture="temporal")
    refused("'abstopk', which cannot be read token by token", architecture="abstopk", k=3)
    refused("width 33 at blocks.1.hook_resid_post, 'GPT2LMHeadModel' has 32", d_in=33)
    kwargs = {"refactor_factored_attn_matrices": True}
    place = {"hook_name": "blocks.1.attn.hook_z", "model_from_pretrained_kwargs": kwargs}
    refused("refactor_factored_attn_matrices", place)
    refused("architecture 'nonsense', which cannot", architecture="nonsense")
    refused("size mismatch|Error|k = 6", d_sae=5, error=FileFormatError)


def test_a_width_of_heads_is_that_of_all_heads(model, tmp_path):
    gemma = family_model("gemma2")  # 4 heads of 12, width 32
    folder = write(tmp_path / "z", "topk", 32, about(gemma, "blocks.1.attn.hook_z"))
    with pytest.raises(MismatchError, match=r"width 32 at .*hook_z, .* has 4 x 12"):
        load_dictionaries(gemma, folder)
    write(folder, "topk", 48, about(gemma, "blocks.1.attn.hook_z"))
    assert list(load_dictionaries(gemma, folder)) == [Site("attn_z", 1)]


def test_resid_mid_of_a_parallel_block_is_refused(tmp_path):
    pythia = family_model("pythia")
    folder = write(tmp_path / "mid", "topk", 32, about(pythia, "blocks.1.hook_resid_mid"))
    with pytest.raises(MismatchError, match="'mid' does not fit.*Use blocks.1.hook_resid_pre"):
        load_dictionaries(pythia, folder)


def test_a_transcoder_says_what_it_reconstructs(model, tmp_path):
    said = about(model, "blocks.1.ln2.hook_normalized")
    folder = write(tmp_path / "it", "transcoder", model.width, said)
    with pytest.raises(MismatchError, match="hook_name_out is missing.*'blocks.1.hook_mlp_out'"):
        load_dictionaries(model, folder)


def test_damaged_weights_are_named(model, folder):
    weights = folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match=f"{folder}/sae_weights.safetensors is no whole"):
        load_dictionaries(model, folder)
    weights.unlink()
    with pytest.raises(FileFormatError, match="sae_weights.safetensors is missing"):
        load_dictionaries(model, folder)
    (folder / "cfg.json").write_text("[1]")
    with pytest.raises(FileFormatError, match="holds no settings"):
        load_dictionaries(model, folder)


def test_pickles_are_never_read(model, tmp_path):
    for name in ("sae.pt", "sae.pkl", "weights.safetensors"):
        (tmp_path / name).write_bytes(b"x")  # the last has no cfg.json beside it
        with pytest.raises(InputError, match="Files that would run code"):
            load_dictionaries(model, tmp_path / name)


def test_faults_at_sites_that_nobody_wants_are_no_matter(model, folder, tmp_path):
    said = about(model, "blocks.9.hook_resid_post")
    write(tmp_path / "far", "topk", model.width, said)
    with pytest.raises(MismatchError, match="'far' does not fit"):
        load_dictionaries(model, tmp_path)
    assert list(load_dictionaries(model, tmp_path, sites=[HOOK])) == [Site("resid_post", 1)]
    with pytest.raises(MismatchError, match="'far' does not fit"):
        load_dictionaries(model, tmp_path, sites=["resid_post 9"])


def test_an_object_in_memory_is_bound_by_its_metadata(model, folder):
    sae = fresh(folder)
    dictionary = bind_dictionary(model, sae, "mine")
    (loaded,) = load_dictionaries(model, folder).values()
    x = torch.randn(5, model.width)
    assert torch.equal(dictionary.encode(x), loaded.encode(x)) and dictionary.name == "mine"
    assert dictionary.site == Site("resid_post", 1)
    with pytest.raises(InputError, match="got a TopKSAE. Bind an object of sae_lens"):
        load_dictionaries(model, sae)
    del sae.cfg.metadata.prepend_bos
    with pytest.warns(UserWarning, match="'mine': its metadata does not say whether prompts"):
        bind_dictionary(model, sae, "mine")
    sae.cfg.metadata.model_name = "gpt2-xl"
    with pytest.raises(MismatchError, match="trained on 'gpt2-xl'"):
        bind_dictionary(model, sae, "mine")


def test_the_bundled_dictionaries_load_in_silence(demo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_dictionaries(demo, sites=["resid_post 1", "mlp_in 2"])) == 2
