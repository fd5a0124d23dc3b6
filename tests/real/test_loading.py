"""Real models load by their short names, and compute what transformers does with the same file."""

import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.packaged import packaged_file

IOI = "When Mary and John went to the store, John gave a drink to"


def next_words(model, k=3):
    logits = run(model, model.tokenize([IOI]), [LOGITS], last_logits=True)[LOGITS][0, -1]
    return [model.tokenizer.decode([i]) for i in logits.topk(k).indices.tolist()]


def test_smollm2_solves_ioi(smollm2):
    assert (smollm2.name, smollm2.n_layers, smollm2.width) == ("smollm2", 30, 576)
    assert (smollm2.n_heads, smollm2.d_head, smollm2.dtype) == (9, 64, torch.float32)
    assert next_words(smollm2)[0] == " Mary"
    assert smollm2.words(smollm2.tokenize(["1741"])) == [["1", "7", "4", "1"]]


def test_the_converted_folder_equals_the_file(smollm2):
    """Half a minute: transformers reads the file anew."""
    import transformers

    file = packaged_file("smollm2")
    place = {"gguf_file": file.name, "dtype": torch.float32}
    module = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **place)
    ours, theirs = smollm2.hf.state_dict(), module.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_gemma3_begins_with_its_token_and_solves_ioi(gemma3):
    assert gemma3.words(gemma3.tokenize(["Mary went"])) == [["<bos>", "Mary", " went"]]
    assert next_words(gemma3)[0] == " Mary"


def test_gemma3_fails_without_its_token(gemma3):
    """Why the family is warned about: without it, the wrong name is likelier."""
    task = ct.tasks.ioi(gemma3, n=16)
    differences = []
    for bos in (True, False):
        batch = gemma3.tokenize(task.texts[: len(task)], bos=bos)
        logits = run(gemma3, batch, [LOGITS], last_logits=True)[LOGITS][:, -1]
        differences.append(float(task.score(logits, range(len(task))).mean()))
    assert differences[0] > 2 and differences[1] < 0


def test_heads_and_bias_add_up_to_attention(smollm2, gemma3):
    from circuit_toolkit.sites import Site

    for model in (smollm2, gemma3):
        layer = 5
        sites = [Site("head_out", layer), Site("attn_out", layer)]
        values = run(model, model.tokenize([IOI]), sites)
        heads, whole = values[sites[0]].sum(-2), values[sites[1]]
        if model.architecture.attn_out == model.architecture.out_proj:
            assert torch.allclose(heads, whole, atol=1e-5 * float(whole.abs().max()))
        else:  # a norm stands behind attention
            assert not torch.allclose(heads, whole, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_half_precision_says_the_same(dtype):
    from tests.real.conftest import real_model

    assert next_words(real_model("smollm2", dtype=dtype))[0] == " Mary"
