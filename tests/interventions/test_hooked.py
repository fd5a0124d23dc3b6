"""Changes as plain hooks on a module compute what `intervene` computes."""

import copy

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.circuit_lasso import CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import hooked, intervened, mean_ablation, put, resample, zero
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.sites import Site
from tests.dictionaries.published import family_model
from tests.families import PROMPTS, random_model

CHANGES = {
    "resid_post": zero("resid_post 1"),
    "resid_mid": zero("resid_mid 1"),
    "resid_pre": zero("resid_pre 1", positions="last"),
    "embed": put("embed", 0.3),
    "heads": zero("head_out 1", heads=[0, 2]),
    "z": zero("attn_z 2", heads=[1]),
    "mlp_in": put("mlp_in 1", 0.5, positions=1),
    "mlp_out": zero("mlp_out 0"),
    "logits": put("logits", 2.0, positions="last"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "opt"])
def test_logits_are_those_of_the_toolkit_and_the_module_is_left_as_it_was(family, kind):
    model, module = family_model(family), random_model(family).eval()
    batch = model.tokenize(PROMPTS, bos=True)
    inputs, real = {"input_ids": batch.ids, "attention_mask": batch.mask}, batch.mask.bool()
    with torch.no_grad(), intervened(model, CHANGES[kind]) as changed:
        expected = run(changed, batch, [LOGITS])[LOGITS]
        before = module(**inputs).logits
        with hooked(model, CHANGES[kind], module) as same:
            assert same is module
            found = [module(**inputs).logits for _ in range(2)]
        after = module(**inputs).logits
    for each in found:
        # The same operations on the same numbers; padding is left to each.
        torch.testing.assert_close(each[real], expected[real], rtol=0, atol=1e-5)
    assert torch.equal(after, before)
    assert (expected - before).abs().max() > 1e-3
    assert not [each for each in module.modules() if each._forward_pre_hooks]


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_a_circuit_alone_scores_what_evaluate_says(demo, kind):
    dictionaries = {
        site: each
        for site, each in ct.load_dictionaries(demo, kind=kind).items()
        if site.layer in (2, 4) and site.kind in ("resid_post", "mlp_in")
    }
    task = ct.tasks.agreement(demo, n=24, seed=0)
    acts = ct.capture(demo, dictionaries, task, "all", progress=False)
    active = {site: np.unique(acts.features[site].indices)[::2] for site in dictionaries}
    fit = CircuitLasso(design="observational").fit(acts, task)
    circuit = fit.circuit(0.05)
    circuit = ct.evaluate(circuit, demo, dictionaries, task, acts, draws=1, progress=False)
    expected = circuit.evidence["ablation"]
    batch = demo.tokenize(task.clean, bos=ct.dictionaries.shared_bos(dictionaries))
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    module = copy.deepcopy(demo.hf)
    rows = range(len(task.clean))
    for ablate, name in (("others", "metric_circuit"), ("circuit", "metric_others")):
        changes = mean_ablation(acts, circuit.features(), complement=ablate == "others")
        for what, options in ((changes, {}), (circuit, {"acts": acts, "ablate": ablate})):
            with (
                torch.no_grad(),
                hooked(demo, what, module, dictionaries=dictionaries, **options),
            ):
                logits = module(**inputs).logits[:, -1]
            found = task.score(logits, rows).double().mean().item()
            assert found == pytest.approx(expected[name], abs=1e-5)  # float32, other batches
    with pytest.raises(InputError, match="Features outside a circuit are set to means: pass acts="):
        hooked(demo, circuit, dictionaries=dictionaries).__enter__()
    with pytest.raises(InputError, match="acts are for a circuit"):
        hooked(demo, changes, dictionaries=dictionaries, acts=acts).__enter__()
    assert active and abs(expected["metric_circuit"] - expected["metric_model"]) > 1e-3


def test_calls_that_hooks_cannot_place_are_refused():
    model = family_model("llama")
    ids = torch.tensor([[1, 5, 9, 3]])
    with hooked(model, zero("mlp_out 1")) as module:
        for inputs, message in [
            ({"inputs_embeds": torch.zeros(1, 2, 32)}, r"wants input_ids of shape \(B, T\)"),
            ({"input_ids": ids, "attention_mask": torch.ones(1, 5)}, "use_cache=False"),
            ({"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 0]])}, "on the left"),
        ]:
            with pytest.raises(InputError, match=message):
                module(**inputs)
        module(ids)
    with pytest.raises(InputError, match="module must be a module of transformers, got 3"):
        hooked(model, zero("mlp_out 1"), 3).__enter__()  # pyright: ignore
    with pytest.raises(InputError, match="corrupted prompts: pass task="):
        hooked(model, resample(Site("mlp_out", 1))).__enter__()
    patterns = pytest.raises(InputError, match="Attention patterns .*intervene")
    with hooked(model, zero("attn_pattern 1")) as module, patterns:
        module(ids)
    assert module(ids).logits.isfinite().all()
