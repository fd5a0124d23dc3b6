"""Training on a stream: read once, block by block, resumable, and without outlying tokens."""

from itertools import cycle

import pytest
import torch

from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.dictionaries import load_dictionaries, train_dictionaries
from circuit_toolkit.dictionaries.training import streaming
from circuit_toolkit.dictionaries.training.batches import ActivationReader
from circuit_toolkit.dictionaries.training.trainers import (
    BatchTopKTraining,
    DictionaryConfig,
    SaeTraining,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site
from tests.dictionaries.training.test_train import Stop, equal, stopping
from tests.dictionaries.training.test_trainers import METADATA, explained, planted
from tests.tiny import WIDTH

TEXTS = [sentence.text for sentence in Grammar(3).sentences(200)]
SITES = ["resid_post 0", "resid_post 1"]
TOKENS = 300  # in a block
SHORT = {
    "n_features": 48,
    "k": 4,
    "steps": 30,
    "batch": 32,
    "progress": False,
    "memory": TOKENS * 2 * WIDTH * 4,
}


def test_a_stream_is_read_once_in_blocks_and_no_further_than_needed(tiny, monkeypatch):
    read, taken, original = [], [], ActivationReader._gathered

    def gathered(self, sites, numbers):
        read.append((len(sites), int(self.tokens.counts[numbers].sum())))
        return original(self, sites, numbers)

    monkeypatch.setattr(ActivationReader, "_gathered", gathered)
    monkeypatch.setattr(streaming, "AT_A_TIME", 8)
    endless = (taken.append(text) or text for text in cycle(TEXTS))
    found = train_dictionaries(tiny, SITES, endless, **SHORT, rule="batchtopk")
    assert list(found) == [Site.parse(name) for name in SITES]
    assert all(n == 2 and 250 < tokens <= TOKENS for n, tokens in read)
    steps = [tokens // 32 for _, tokens in read]
    assert sum(steps[:-1]) < 30 <= sum(steps)  # the last block is needed
    assert len(taken) < 2 * sum(tokens for _, tokens in read) / 8  # a text has some ten tokens


@pytest.mark.parametrize(("rule", "training"), [("topk", SaeTraining), ("batchtopk", None)])
def test_an_interrupted_stream_ends_as_if_it_had_not_been(
    tiny, tmp_path, monkeypatch, rule, training
):
    how = {**SHORT, "rule": rule, "passes": 2, "checkpoint_every": 10}
    texts = lambda: cycle(TEXTS)  # noqa: E731 - begun anew by each call
    whole = train_dictionaries(tiny, SITES, texts, **how)
    with monkeypatch.context() as patch:
        stopping(patch, training or BatchTopKTraining, "update", at=55)  # in the second block
        with pytest.raises(Stop):
            train_dictionaries(tiny, SITES, texts, **how, folder=tmp_path)
    assert len(list(tmp_path.glob("checkpoints/*/[0-9]*"))) == 2
    resumed = train_dictionaries(tiny, SITES, texts, **how, folder=tmp_path)
    assert all(equal(resumed[site], whole[site]) for site in whole)
    assert not (tmp_path / "checkpoints").exists()
    assert all(equal(each, whole[s]) for s, each in load_dictionaries(tiny, tmp_path).items())


def test_a_file_is_a_stream_of_lines(tiny, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(TEXTS), encoding="utf-8")
    one = train_dictionaries(tiny, SITES, path, **SHORT)
    two = train_dictionaries(tiny, SITES, iter(TEXTS), **SHORT)
    assert all(equal(one[site], two[site]) for site in one)


def test_a_stream_that_ends_early_says_how_many_steps_there_were(tiny):
    with pytest.raises(InputError, match=r"ended after \d+ of 3000 steps of 32 tokens. Pass more"):
        train_dictionaries(tiny, SITES, iter(TEXTS), **{**SHORT, "steps": 3000})
    with pytest.raises(InputError, match="fewer than one batch"):
        train_dictionaries(tiny, SITES, iter([]), **SHORT)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_attention_sinks_do_not_decide_the_scale_or_the_features(precision):
    codes, directions = planted()
    x = 7 * codes @ directions + 2
    sink = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)) * 3000
    beside = x.clone()
    beside[::20] = sink * (1 + torch.rand(len(x[::20]), 1))
    config = DictionaryConfig(64, 3, 400, 256, 5e-3, rule="batchtopk", precision=precision)
    training = BatchTopKTraining(beside, beside, config, METADATA)
    for i in range(400):
        training.update(beside[(i * 251 + torch.arange(256)) % len(x)])
    sae = training.finish()
    rest = torch.arange(len(x)) % 20 != 0
    # With the sinks left in, it explains nothing of the others: they are 1e-6 of the variance.
    assert explained(x[rest], sae.decode(sae.encode(x[rest]))) > 0.7


def test_gradients_by_hand_are_those_of_autograd():
    codes, directions = planted(n=256)
    x, y = codes @ directions, codes.roll(1, 1) @ directions
    config = DictionaryConfig(64, 3, 400, 256, 5e-3, rule="batchtopk")
    training = BatchTopKTraining(x, y, config, METADATA)
    W_enc, b_enc, W_dec, b_dec = (w.detach().clone().requires_grad_() for w in training.weights)
    inputs = (x - training.mean_x) / training.scale_x
    outputs = (y - training.mean_y) / training.scale_y
    acts = torch.relu(inputs @ W_enc + b_enc)
    acts = acts * (acts >= acts.flatten().topk(3 * 256).values[-1])
    loss = (outputs - acts @ W_dec - b_dec).pow(2).sum(1).mean()
    loss.backward()
    assert float(training.update(x, y)) == pytest.approx(float(loss), rel=1e-5)
    for mine, theirs in zip(training.weights, (W_enc, b_enc, W_dec, b_dec), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)
