"""Scores of the bundled model and its dictionaries, on cases with known answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

from benchmarks.demo.evaluate import (
    _induction,
    evaluate_dictionaries,
    evaluate_model,
    role_f1,
    role_matrix,
)
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.dictionaries import Dictionary, load_dictionaries
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED
from tests.tiny import WIDTH, K, tiny_hf


def test_f1_of_features_and_roles_by_hand():
    roles = sp.csc_array(np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [0, 0]], dtype=bool))
    acts = np.zeros((6, 4))
    acts[[0, 1], 0] = [3, 0.2]  # is role 0
    acts[[2, 3, 5], 1] = 1  # two of three of role 1, and one else: F1 = 4 / 6
    acts[:, 2] = [0.01, 0.01, 5, 4, 3, 0.01]  # role 1, once the floor is cut off
    f1, role = role_f1(acts, roles)
    np.testing.assert_allclose(f1, [1, 2 / 3, 1, 0])
    assert role[:3].tolist() == [0, 1, 1]


def test_roles_of_words_and_of_the_words_that_follow():
    sentences = list(Grammar(0).sentences(30))
    matrix, names = role_matrix(sentences)
    assert matrix.shape == (sum(len(s.words) for s in sentences), len(names))
    dense, row = matrix.toarray() > 0, 0
    for sentence in sentences:
        roles = sentence.roles()
        for place in range(len(roles)):
            here = {names[i] for i in np.flatnonzero(dense[row])}
            following = roles[place + 1] if place + 1 < len(roles) else set()
            assert here == {*roles[place], *(f"next: {role}" for role in following)}
            row += 1


def identity(tiny, site, out=None):
    sae = StandardSAE(StandardSAEConfig(d_in=WIDTH, d_sae=2 * WIDTH))
    eye = torch.eye(WIDTH)
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([eye, -eye], 1))
        sae.W_dec.copy_(torch.cat([eye, -eye], 1).T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    return Dictionary(sae.eval().requires_grad_(False), site, out or site, "identity")


def test_a_perfect_dictionary_recovers_everything(tiny):
    site = Site("resid_post", 1)
    (row,) = evaluate_dictionaries(tiny, [identity(tiny, site)], n=60).values()
    assert row["ce_recovered"] == pytest.approx(1, abs=1e-4)
    assert row["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert row["l0"] == pytest.approx(WIDTH, abs=0.5) and row["dead"] == 0
    assert 0 <= row["role_f1"] <= 1


def test_dictionaries_are_scored_at_what_they_write(tiny, tiny_saes, tiny_folder):
    transcoders = load_dictionaries(tiny, tiny_folder, kind="transcoder")
    table = evaluate_dictionaries(tiny, [*tiny_saes.values(), *transcoders.values()], n=60)
    assert list(table) == [str(site) for site in (*tiny_saes, *transcoders)]
    for site in tiny_saes:
        assert table[str(site)]["l0"] <= K
    # a random transcoder is no MLP: worse than the mean
    assert all(table[str(site)]["explained_variance"] < 0 for site in transcoders)
    assert all(np.isfinite(list(row.values())).all() for row in table.values())


def test_a_perfect_transcoder_recovers_everything(tiny):
    """It reads `mlp_norm` of its own run: what it is given is not what the MLP writes."""

    mlp = tiny_hf().transformer.h[1].mlp

    class Perfect:
        cfg = SimpleNamespace(normalize_activations="none")
        W_dec = torch.zeros(1)

        def turn_off_forward_pass_hook_z_reshaping(self):
            pass

        def encode(self, x):
            return torch.cat([x.relu(), (-x).relu()], -1)

        def decode(self, acts):
            return mlp(acts[..., :WIDTH] - acts[..., WIDTH:])

    transcoder = Dictionary(Perfect(), Site("mlp_norm", 1), Site("mlp_out", 1), "perfect")
    (row,) = evaluate_dictionaries(tiny, [transcoder], n=60).values()
    assert row["ce_recovered"] == pytest.approx(1, abs=1e-4)
    assert row["explained_variance"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("what", "score"), [("asked", 1.0), ("rest", 0.0)])
def test_induction_asks_for_the_second_half_from_its_second_word_on(tiny, monkeypatch, what, score):
    def knows(model, batch, read):
        """Logits that are right in the asked places alone, or in all the others alone."""
        n, length = batch.ids.shape
        logits = torch.zeros(n, length, len(model.tokenizer))
        logits[..., 0] = 1
        for row, words in enumerate(model.words(batch)):
            half = (len(words) - 1) // 2  # <bos>, then the same words twice
            for place in range(length - len(words), length - 1):
                word = place - (length - len(words))  # the next one is number `word` of 2 half
                if (word > half) == (what == "asked"):
                    logits[row, place, batch.ids[row, place + 1]] = 2
        return {read[0]: logits}

    monkeypatch.setattr("benchmarks.demo.evaluate.run", knows)
    assert _induction(tiny, 30, seed=0) == score


def test_the_random_model_does_no_task(tiny):
    scores = evaluate_model(tiny, n=100)
    assert set(scores) == {*BUNDLED, "induction"}
    for name, row in scores.items():
        assert 0 <= row["accuracy"] <= 1
        if name == "induction":
            assert row["accuracy"] < 0.1
        else:
            assert row["top1"] < 0.3
    assert "probability_difference" in scores["greater_than"]
