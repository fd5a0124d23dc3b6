"""Training finds planted features: better than any subspace of as many dimensions."""

import pytest
import torch

from benchmarks.demo.train_dictionaries import train_sae, train_transcoder
from circuit_toolkit.dictionaries import DictionaryConfig, load_dictionaries, save_dictionary
from circuit_toolkit.dictionaries.training.trainers import BatchTopKTraining, SaeTraining
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site
from tests.tiny import WIDTH

K, PLANTED = 3, 48
CONFIG = DictionaryConfig(n_features=64, k=K, steps=400, batch=256, learning_rate=5e-3)
METADATA = {
    "model_name": "GPT2LMHeadModel",
    "hook_name": "blocks.1.hook_resid_post",
    "hook_name_out": "blocks.1.hook_resid_post",
    "prepend_bos": True,
    "model_from_pretrained_kwargs": {},
}


def planted(n=4096, seed=0):
    """Codes (n, PLANTED) with exactly K active, and unit directions (PLANTED, WIDTH)."""
    rng = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(PLANTED, WIDTH, generator=rng), dim=1)
    active = torch.rand(n, PLANTED, generator=rng).topk(K).indices
    codes = torch.zeros(n, PLANTED)
    codes.scatter_(1, active, 1 + torch.rand(n, K, generator=rng))
    return codes, directions


def explained(y, reconstruction):
    return float(1 - (y - reconstruction).pow(2).sum() / (y - y.mean(0)).pow(2).sum())


def pca(y, k):
    """Share of variance in the best k dimensions."""
    variances = torch.linalg.svdvals(y - y.mean(0)) ** 2
    return float(variances[:k].sum() / variances.sum())


@pytest.fixture(scope="module")
def sae():
    codes, directions = planted()
    return train_sae(7 * codes @ directions + 2, CONFIG, METADATA)


def test_an_autoencoder_finds_planted_features(sae):
    codes, directions = planted(seed=0)
    x = 7 * codes @ directions + 2
    acts = sae.encode(x).to_dense()
    score = explained(x, sae.decode(acts))
    assert score > 0.75 > pca(x, K) + 0.3, (score, pca(x, K))
    assert (acts > 0).sum(1).float().mean() == pytest.approx(K, abs=0.05)
    rows = torch.nn.functional.normalize(sae.W_dec, dim=1)
    found = (directions @ rows.T).amax(1)  # (PLANTED,) best cosine
    assert (found > 0.9).float().mean() > 0.7


def test_an_autoencoder_is_ready_to_be_saved_and_used(sae, tiny, tmp_path):
    save_dictionary(sae, tmp_path / "trained")
    (dictionary,) = load_dictionaries(tiny, tmp_path).values()
    assert dictionary.site == Site("resid_post", 1) and dictionary.n_features == 64
    codes, directions = planted(n=300, seed=0)
    x = 7 * codes @ directions + 2  # in the units it was trained in: no scale is left over
    assert explained(x, dictionary.decode(dictionary.encode(x))) > 0.75


@pytest.fixture(scope="module")
def transcoder():
    codes, directions = planted()
    return train_transcoder(5 * codes @ directions, 0.2 * outputs(codes), CONFIG, METADATA)


def outputs(codes):
    """What an MLP of PLANTED neurons would write, (n, WIDTH)."""
    rng = torch.Generator().manual_seed(5)
    return codes.relu() @ torch.randn(PLANTED, WIDTH, generator=rng) + 3


def test_a_transcoder_finds_what_maps_one_to_the_other(transcoder):
    codes, directions = planted()
    x, y = 5 * codes @ directions, 0.2 * outputs(codes)
    acts = transcoder.encode(x)
    score = explained(y, transcoder.decode(acts))
    assert score > 0.6 > pca(y, K) + 0.15, (score, pca(y, K))
    assert (acts > 0).sum(1).float().mean() == pytest.approx(K, rel=0.25)
    norms = transcoder.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("dead", [0, 5, 40])
def test_loss_and_gradients_are_those_of_sae_lens(dead):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    from circuit_toolkit.dictionaries.training.topk import SparseTopKTrainingSAE

    rng = torch.Generator().manual_seed(0)
    theirs, ours = (
        kind(TopKTrainingSAEConfig(d_in=16, d_sae=96, k=4))
        for kind in (TopKTrainingSAE, SparseTopKTrainingSAE)
    )
    with torch.no_grad():  # decoder rows of any norm, a bias: nothing may cancel
        theirs.W_dec.mul_(1 + torch.rand(96, 1, generator=rng))
        theirs.b_dec.copy_(torch.randn(16, generator=rng))
        theirs.b_enc.copy_(0.1 * torch.randn(96, generator=rng))
    ours.load_state_dict(theirs.state_dict())
    batch = TrainStepInput(
        sae_in=torch.randn(200, 16, generator=rng),
        coefficients={},
        dead_neuron_mask=torch.arange(96) < dead,
        n_training_steps=0,
        is_logging_step=False,
    )
    found = [each.training_forward_pass(batch) for each in (theirs, ours)]
    for each in found:
        each.loss.backward()
    for name in ("loss", "sae_out", "feature_acts"):
        torch.testing.assert_close(*(getattr(each, name) for each in found))
    for (name, one), two in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


def test_training_is_seeded():
    codes, directions = planted(n=512)
    config = DictionaryConfig(n_features=16, k=2, steps=20, batch=128)
    x = codes @ directions
    one, two = (train_transcoder(x, x, config, METADATA).W_enc for _ in range(2))
    assert torch.equal(one, two)
    one, two = (train_sae(x, config, METADATA).W_enc for _ in range(2))
    assert torch.equal(one, two)


def test_saved_training_goes_on_through_decay_resampling_and_dead_features(tmp_path):
    codes, directions = planted(n=2048)
    x = codes @ directions
    parts = x.split(64)
    config = DictionaryConfig(n_features=128, k=2, steps=540, batch=64, learning_rate=2e-2)

    def train(training, steps):
        for step in range(training.step, steps):
            training.update(*[parts[step % len(parts)]] * n)
        return training

    for n, begin in (
        (1, lambda: SaeTraining(parts, config, METADATA)),
        (2, lambda: BatchTopKTraining(x, 2 * x, config, METADATA)),
    ):
        half = train(begin(), 340)  # what is dead begins anew at steps 200 and 400
        (folder := tmp_path / str(n)).mkdir()
        half.save(folder)
        resumed = begin()
        resumed.load(folder)
        assert resumed.step == 340
        silent = half.trainer.n_forward_passes_since_fired if n == 1 else half.silent
        assert (silent > 40).any()
        one, two = (train(each, 540).finish().state_dict() for each in (half, resumed))
        assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_too_few_tokens_and_other_shapes_are_refused():
    x = torch.randn(100, 8)
    small = DictionaryConfig(n_features=8, k=2, steps=2, batch=50)
    for bad in (x[:20], x[0], x[None]):
        with pytest.raises(InputError, match="must have shape"):
            train_sae(bad, small, METADATA)
        with pytest.raises(InputError, match="must have shape"):
            train_transcoder(bad, bad, small, METADATA)
    with pytest.raises(InputError, match="agree in shape"):
        train_transcoder(x, x[:60], small, METADATA)
