"""Hooks for TransformerLens: the bridge then computes what the toolkit computes."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
import circuit_toolkit.demo
from circuit_toolkit.circuit_lasso import CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import bridge_hooks, intervened, mean_ablation
from circuit_toolkit.models import LOGITS, load_model, run
from tests.families import PROMPTS, random_model, word_tokenizer
from tests.interventions.test_circuit_hooks import FLOAT32, some_edges, some_heads
from tests.interventions.test_hooked import CHANGES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def bridged(module, tokenizer, folder):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)  # the bridge wants one that was loaded
    return TransformerBridge.boot_transformers(str(folder), hf_model=module, tokenizer=loaded)


@pytest.fixture(scope="module")
def of_demo(demo, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = bridged(copy.deepcopy(demo.hf), demo.tokenizer, tmp_path_factory.mktemp("demo"))
        return load_model(bridge), bridge


@pytest.fixture(scope="module", params=["gpt2", "pythia", "llama", "gemma2", "olmo2", "granite"])
def of_family(request, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, folder = random_model(request.param).eval(), tmp_path_factory.mktemp("family")
        bridge = bridged(module, word_tokenizer(), folder)
        return load_model(bridge), bridge


@pytest.mark.parametrize("kind", [*CHANGES, "attn_pattern"])
def test_changes_of_every_kind_of_site(of_family, kind):
    model, bridge = of_family
    change = CHANGES[kind] if kind in CHANGES else ct.scale("attn_pattern 1", 0.5, heads=[1])
    if model.parallel and kind == "resid_mid":
        pytest.skip("a parallel block has no such site")
    if model.config.model_type in ("gemma2", "granite") and kind == "logits":
        with pytest.raises(InputError, match="caps or scales logits behind the last hook"):
            bridge_hooks(model, change, bridge)
        return
    batch = model.tokenize(PROMPTS, bos=True)
    with torch.no_grad(), intervened(model, change) as changed:
        expected = run(changed, batch, [LOGITS])[LOGITS]
        before = bridge(batch.ids, attention_mask=batch.mask)
        hooks = bridge_hooks(model, change, bridge)
        found = [
            bridge.run_with_hooks(batch.ids, attention_mask=batch.mask, fwd_hooks=hooks)
            for _ in range(2)
        ]
        after = bridge(batch.ids, attention_mask=batch.mask)
    real = batch.mask.bool()
    for each in found:
        # The bridge writes attention out, the toolkit lets torch fuse it.
        torch.testing.assert_close(each[real], expected[real], rtol=0, atol=FLOAT32)
    assert torch.equal(before, after)
    assert (expected - before)[real].abs().max() > 1e-3


@pytest.mark.parametrize("ablate", ["others", "circuit"])
def test_a_circuit_of_heads_scores_what_evaluate_says(of_demo, ablate):
    model, bridge = of_demo
    task, circuit = ct.tasks.agreement(model, n=24, seed=0), some_heads(model)
    said = ct.evaluate(circuit, model, None, task, draws=1, progress=False).evidence["ablation"]
    hooks = bridge_hooks(model, circuit, bridge, task=task, ablate=ablate)
    with torch.no_grad():  # texts one by one, as one would
        logits = [bridge.run_with_hooks(text, fwd_hooks=hooks)[0, -1] for text in task.clean]
    found = task.score(torch.stack(logits), range(24)).double().mean().item()
    expected = said["metric_circuit" if ablate == "others" else "metric_others"]
    assert found == pytest.approx(expected, abs=FLOAT32)
    assert abs(found - said["metric_model"]) > 0.05


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_a_circuit_of_features_scores_what_evaluate_says(of_demo, kind):
    model, bridge = of_demo
    folder = Path(circuit_toolkit.demo.__file__).parent / "dictionaries"
    every = ct.load_dictionaries(model, folder, kind=kind, check_model=False)
    dictionaries = {site: each for site, each in every.items() if site.layer in (2, 4)}
    task = ct.tasks.agreement(model, n=24, seed=0)
    acts = ct.capture(model, dictionaries, task, "all", progress=False)
    circuit = CircuitLasso(design="observational").fit(acts, task).circuit(0.05)
    circuit = ct.evaluate(circuit, model, dictionaries, task, acts, draws=1, progress=False)
    options = {"dictionaries": dictionaries, "acts": acts}
    bos = ct.dictionaries.shared_bos(dictionaries)
    batch = model.tokenize(task.clean, bos=bos)
    said = circuit.evidence["ablation"]
    for ablate, name in (("others", "metric_circuit"), ("circuit", "metric_others")):
        hooks = bridge_hooks(model, circuit, bridge, ablate=ablate, **options)
        with torch.no_grad():
            logits = bridge.run_with_hooks(
                batch.ids, attention_mask=batch.mask, fwd_hooks=hooks, prepend_bos=False
            )
        found = task.score(logits[:, -1], range(24)).double().mean().item()
        assert found == pytest.approx(said[name], abs=FLOAT32)
    assert abs(said["metric_circuit"] - said["metric_model"]) > 1e-3
    assert mean_ablation(acts, circuit.features(), complement=True)  # something was ablated


def test_a_text_may_begin_with_the_token_that_pads():
    model = load_model(random_model("gpt2"), word_tokenizer())
    model.tokenizer.pad_token = model.tokenizer.bos_token  # as GPT-2's tokenizer is used
    from circuit_toolkit.interventions.bridge import _batch_of

    found = _batch_of(model, torch.tensor([[1, 1, 1, 5], [1, 6, 7, 8], [6, 7, 8, 9]]))
    assert found.mask.tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_what_a_bridge_has_no_hooks_for_is_refused(of_demo, tmp_path):
    model, bridge = of_demo
    task = ct.tasks.agreement(model, n=4, seed=0)
    with pytest.raises(InputError, match="bridge must be a TransformerBridge .* got .*hooked"):
        bridge_hooks(model, ct.zero("mlp_out 1"), model.hf)
    with pytest.raises(InputError, match="an input of its own, .* no hooks: hooked"):
        bridge_hooks(model, some_edges(model), bridge, task=task)
    with pytest.raises(InputError, match="corrupted prompts: pass task="):
        bridge_hooks(model, some_heads(model), bridge)
    hooks = bridge_hooks(model, ct.zero("mlp_out 1"), bridge)
    padded = torch.tensor([[1, 5, 6, model.tokenizer.pad_token_id]])
    with pytest.raises(InputError, match="padded on the left"):
        bridge.run_with_hooks(padded, fwd_hooks=hooks)
    assert np.isfinite(bridge(padded).detach().numpy()).all()
    other = bridged(random_model("gpt2"), word_tokenizer(), tmp_path)
    other.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(InputError, match="compatibility mode computes with processed weights"):
        bridge_hooks(model, ct.zero("mlp_out 1"), other)
    few = load_model(random_model("gemma2"), word_tokenizer())
    with pytest.raises(InputError, match=r"This bridge has no hook blocks\.1\.ln2_post\.hook_out"):
        bridge_hooks(few, ct.zero("mlp_out 1"), bridge)
