"""Evidence by ablation: planted circuits carry the metric, random ones do not."""

import numpy as np
import pytest
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import EDGE, NODE, TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import ablation_evidence, random_features
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task, ioi
from tests.tiny import FEATURES, LAYERS, WIDTH, last_logits, task_it_does, tiny_hf

SITE = Site("resid_post", LAYERS - 1)
KEYS = {
    *("metric", "full", "ablated", "loss", "random_loss", "random_loss_mean"),
    *("kept", "ablation", "positions", "n", "n_features"),
}


def circuit_of(features):
    rows = [(str(site), i, 1, 1, "") for site, chosen in features.items() for i in chosen]
    nodes = np.array([*rows, (TARGET, 0, 0, 1, "m")], NODE)
    edges = np.array([(i, len(rows), 1, 1) for i in range(len(rows))], EDGE)
    return Circuit(nodes, edges, {"method": "made up"}, {"fit": {"held_out_r2": 0.5}})


@pytest.fixture(scope="module")
def planted(tiny):
    """A task whose metric is read off one direction, and a dictionary with that direction."""
    module = tiny_hf()
    texts = list(ioi(tiny, n=60, seed=0).clean)
    logits = torch.stack([last_logits(module, text) for text in texts])  # (60, V)
    right = tiny.token_id("Mary")
    differences = logits[:, [right]] - logits
    differences[:, right] = torch.nan  # the other word: one that is as often the likelier
    ratio = (differences.mean(0).abs() / differences.std(0)).nan_to_num(nan=torch.inf)
    wrong = int(ratio.argmin())
    scores = differences[:, wrong].numpy()
    order = np.argsort(-scores)
    clean, twins = order[:30], order[30:]
    head, norm = module.lm_head.weight, module.transformer.ln_f.weight
    d = (head[right] - head[wrong]) * norm
    d = (d - d.mean()).detach()
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.cat([d[:, None], torch.randn(WIDTH, WIDTH - 1)], 1)).Q  # (D, D)
    sae = StandardSAE(StandardSAEConfig(d_in=WIDTH, d_sae=2 * WIDTH))
    with torch.no_grad():  # both signs of each direction: relu(x q) q - relu(-x q) q = x
        sae.W_enc.copy_(torch.cat([Q, -Q], 1))
        sae.W_dec.copy_(torch.cat([Q, -Q], 1).T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    task = Task(
        "direction",
        tuple(texts[i] for i in clean),
        tuple(texts[i] for i in twins),
        ((right,),) * 30,
        ((wrong,),) * 30,
    )
    saes = {SITE: Dictionary(sae.eval().requires_grad_(False), SITE, SITE, "both signs")}
    return task, saes, capture(tiny, saes, task, progress=False)


def test_the_direction_that_is_read_carries_the_metric_and_others_do_not(tiny, planted):
    task, saes, acts = planted
    circuit = circuit_of({SITE: [0, WIDTH]})
    rows = acts.pooled("last")
    tested = ablation_evidence(tiny, saes, task, rows, circuit, draws=20)
    found = tested.evidence["ablation"]
    assert found["loss"] > 0.5 > 3 * abs(found["random_loss_mean"])
    assert found["loss"] > max(found["random_loss"])
    assert found["kept"] > 0.5
    assert found["full"] == pytest.approx(acts.metric[:30].mean(), rel=1e-4)
    assert found["n"] == 30 and found["n_features"] == 2 and found["positions"] == "last"


@pytest.fixture(scope="module")
def easy(tiny, tiny_saes):
    task = task_it_does(list(ioi(tiny, n=12, seed=1).clean))
    return task, capture(tiny, tiny_saes, task, progress=False)


def test_the_circuit_of_all_features_keeps_all_and_equals_its_random_sets(tiny, tiny_saes, easy):
    task, acts = easy
    active = {site: np.unique(acts.features[site].indices) for site in acts.sites}
    tested = ablation_evidence(tiny, tiny_saes, task, acts, circuit_of(active), draws=3)
    found = tested.evidence["ablation"]
    assert set(found) == KEYS and len(found["random_loss"]) == 3
    assert found["kept"] == pytest.approx(1, abs=1e-5)
    assert found["random_loss"] == pytest.approx([found["loss"]] * 3, abs=1e-6)
    assert found["loss"] == pytest.approx(1 - found["ablated"] / found["full"])
    assert found["random_loss_mean"] == pytest.approx(np.mean(found["random_loss"]))
    assert found["loss"] > 0.05 and found["metric"] == "logit_difference"
    assert found["ablation"] == "mean" and found["positions"] == "all"
    assert tested.evidence["fit"] == {"held_out_r2": 0.5}  # what was known stays
    assert any("ablat" in line for line in tested.summary())


def test_draws_are_seeded_and_as_many_as_asked(tiny, tiny_saes, easy):
    task, acts = easy
    circuit = circuit_of({site: [int(acts.features[site].indices[0])] for site in acts.sites})

    def losses(**settings):
        tested = ablation_evidence(tiny, tiny_saes, task, acts, circuit, **settings)
        return tested.evidence["ablation"]

    one, again = (losses(draws=3, n_prompts=5)["random_loss"] for _ in range(2))
    assert one == again != losses(draws=3, n_prompts=5, seed=1)["random_loss"]
    assert losses(draws=1, n_prompts=5)["n"] == 5


def test_random_features_are_active_ones_as_many_a_site(easy):
    _, acts = easy
    like = {acts.sites[0]: np.arange(5), acts.sites[2]: np.arange(9)}
    drawn = random_features(acts, like, np.random.default_rng(0))
    assert list(drawn) == list(like)
    for site, features in drawn.items():
        assert len(set(features.tolist())) == len(like[site])
        assert set(features.tolist()) <= set(acts.features[site].indices.tolist())
    with pytest.raises(InputError, match="are to be drawn. Capture more prompts"):
        random_features(acts, {acts.sites[0]: np.arange(FEATURES + 1)}, np.random.default_rng(0))
    with pytest.raises(InputError, match="was not captured"):
        random_features(acts, {Site("resid_mid", 0): [1]}, np.random.default_rng(0))


def test_what_cannot_be_tested_is_refused(tiny, tiny_saes, easy):
    task, acts = easy
    circuit = circuit_of({acts.sites[0]: [int(acts.features[acts.sites[0]].indices[0])]})
    with pytest.raises(InputError, match="has no features: choose a smaller strength"):
        ablation_evidence(tiny, tiny_saes, task, acts, circuit_of({}))
    worse = Task("hard", task.clean, (), task.wrong, task.answers)
    with pytest.raises(InputError, match=r"does not do 'hard': its mean logit_difference is -"):
        ablation_evidence(tiny, tiny_saes, worse, acts, circuit)
    for settings in ({"draws": 0}, {"n_prompts": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            ablation_evidence(tiny, tiny_saes, task, acts, circuit, **settings)
    elsewhere = circuit_of({Site("resid_mid", 1): [0]})
    with pytest.raises(InputError, match="was not captured"):
        ablation_evidence(tiny, tiny_saes, task, acts, elsewhere)
