"""Training: what is interrupted goes on as if it had not been, and what is there stays."""

import io
import itertools
from dataclasses import replace

import pytest
import torch

from benchmarks.demo import train_dictionaries
from benchmarks.demo.tokenizer import build_tokenizer
from benchmarks.demo.train import (
    LESSONS,
    POOL,
    Corpus,
    TrainingConfig,
    learning_rate,
    save,
    train,
)
from circuit_toolkit.dictionaries import DictionaryConfig, load_dictionaries
from circuit_toolkit.models import load_model

CONFIG = TrainingConfig(layers=1, heads=2, width=16, steps=8, batch=4, warmup=2)


def test_an_interrupted_training_ends_in_the_same_weights(tmp_path, monkeypatch):
    whole = train(CONFIG, tmp_path / "whole", io.StringIO(), checkpoint_every=3)

    def stopping(self, index, batch=Corpus.batch):
        if index == 5:
            raise KeyboardInterrupt
        return batch(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, tmp_path / "parts", io.StringIO(), checkpoint_every=3)
    resumed = train(CONFIG, tmp_path / "parts", io.StringIO(), checkpoint_every=3)
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)  # sums in another order
    with pytest.raises(SystemExit, match="another configuration"):
        train(TrainingConfig(layers=2), tmp_path / "parts", io.StringIO())


def test_batches_are_seeded_and_follow_the_lessons():
    vocabulary = build_tokenizer().get_vocab()
    one, two = Corpus(CONFIG, vocabulary), Corpus(CONFIG, vocabulary)
    assert torch.equal(one.batch(7), two.batch(7))
    assert torch.equal(one.batch(POOL + 1), two.batch(POOL + 1))
    assert not torch.equal(one.batch(0)[:, :5], one.batch(1)[:, :5])
    for ids in (one.batch(0), one.batch(LESSONS[1][0])):
        assert (ids[:, 0] == vocabulary["<bos>"]).all() and ids.shape[1] <= CONFIG.context
        assert ((ids == vocabulary["<eos>"]).sum(1) == 1).all()
    assert all(start % POOL == 0 for start, _ in LESSONS)


def test_the_learning_rate_rises_falls_and_rises_for_the_last_lesson():
    config = TrainingConfig()
    rates = [learning_rate(step, config) for step in range(config.steps)]
    last = LESSONS[-1][0]
    assert max(rates) == pytest.approx(config.learning_rate)
    assert rates[last] > rates[last - 1] and rates[-1] < 0.05 * config.learning_rate
    assert all(a >= b for a, b in itertools.pairwise(rates[config.warmup : last]))


def test_dictionaries_that_are_there_are_not_trained_again(tmp_path, monkeypatch):
    save(train(CONFIG, tmp_path / "scratch", io.StringIO()), tmp_path / "model")
    model = load_model(tmp_path / "model")
    config = DictionaryConfig(n_features=24, k=4, steps=4, batch=32)
    recipes = {
        "sae": train_dictionaries.Recipe(config, {"ioi": 1.0}),
        "transcoder": train_dictionaries.Recipe(replace(config, n_features=12)),
    }
    train_dictionaries.train_all(model, tmp_path / "all", recipes, n_texts=40, log=io.StringIO())
    saes = load_dictionaries(model, tmp_path / "all")
    transcoders = load_dictionaries(model, tmp_path / "all", kind="transcoder")
    assert [site.short for site in saes] == ["resid_pre 0", "resid_post 0"]
    assert [d.n_features for d in (*saes.values(), *transcoders.values())] == [24, 24, 12]
    monkeypatch.setattr(train_dictionaries, "train_sae", None)  # would fail if it were called
    monkeypatch.setattr(train_dictionaries, "train_transcoder", None)
    train_dictionaries.train_all(model, tmp_path / "all", recipes, n_texts=40, log=io.StringIO())
