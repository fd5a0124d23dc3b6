"""What the bundled model and its dictionaries can do, on what training never saw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from benchmarks.descriptions.roles import role_f1, role_matrix
from circuit_toolkit.demo.grammar import Grammar, Sentence
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.fidelity import ce_recovered, explained_variance, next_token_loss
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.tasks import BUNDLED

# The whole range of a family, where the task for circuits takes a part of it.
_WIDEST = {
    "ioi": {"mixed": False},
    "greater_than": {"years": (2, 98)},
    "docstring": {"apart": False},
}


def evaluate_model(model: Model, n: int = 1000, seed: int = 12345) -> dict[str, dict[str, float]]:
    """Score the model on every task, held-out material only.

    Parameters
    ----------
    model : Model
        The bundled model.
    n : int
        Prompts a task.
    seed : int
        Seed of the grammar.

    Returns
    -------
    dict
        By task: `accuracy` (the answer beats every wrong answer), the mean metric, and
        `top1` (the answer, or one of the answers, beats every word there is). `induction`:
        next-word accuracy in the second half of repeated random words, from its second word on.
    """
    scores = {}
    for name, make in BUNDLED.items():
        task = make(model, n=n, seed=seed, test=True, **_WIDEST.get(name, {}))
        logits = torch.cat(
            [
                run(model, model.tokenize(task.clean[start : start + 250]), [LOGITS])[LOGITS][:, -1]
                for start in range(0, n, 250)
            ]
        )
        best = logits.argmax(1).tolist()
        scores[name] = {
            "accuracy": float(task.accuracy(logits, range(n)).float().mean()),
            task.metric: float(task.score(logits, range(n)).mean()),
            "top1": float(np.mean([b in a for b, a in zip(best, task.answers, strict=True)])),
        }
    scores["induction"] = {"accuracy": _induction(model, n // 2, seed)}
    return scores


def _induction(model: Model, n: int, seed: int) -> float:
    sentences = list(Grammar(seed).sentences(n, "repeated"))
    right = total = 0
    for start in range(0, n, 100):
        part = sentences[start : start + 100]
        batch = model.tokenize([sentence.text for sentence in part])
        logits = run(model, batch, [LOGITS])[LOGITS]
        hits = logits[:, :-1].argmax(-1) == batch.ids[:, 1:]  # (B, T - 1), on the word that follows
        for row, sentence in enumerate(part):
            asked = len(sentence.words) // 2 - 1
            right += int(hits[row, -asked:].sum())
            total += asked
    return right / total


def evaluate_dictionaries(
    model: Model, dictionaries: Iterable[Dictionary], n: int = 4000, seed: int = 54321
) -> dict[str, dict[str, float]]:
    """Score dictionaries on texts that they were not trained on.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : iterable of Dictionary
        Autoencoders and transcoders.
    n : int
        Number of texts; every eighth counts for `ce_recovered`, every fourth for `role_f1`.
    seed : int
        Seed of the grammar.

    Returns
    -------
    dict
        By site: `ce_recovered`, the share of the loss of zero ablation that the spliced
        reconstruction wins back (sae_lens's definition; <bos> is left alone); `l0`, active
        features a token; `dead`, share of features that never fire; `explained_variance`;
        `role_f1`, share of live features that one role of the grammar explains with F1 >= .8
        (see `role_f1`).
    """
    sentences = sorted(Grammar(seed).sentences(n), key=lambda sentence: len(sentence.words))
    batches = _batches(model, sentences)
    few = _batches(model, sentences[::8])
    explained = np.concatenate([[i % 4 == 0] * len(s.words) for i, s in enumerate(sentences)])
    roles, _ = role_matrix(sentences[::4])
    base = next_token_loss(model, few)
    table = {}
    for dictionary in dictionaries:
        read = [dictionary.site, dictionary.out]
        x, y = [], []
        for batch in batches:
            values, mask = run(model, batch, read), token_mask(model, batch)
            x.append(values[dictionary.site][mask])
            y.append(values[dictionary.out][mask])
        acts = dictionary.encode(torch.cat(x))
        live = (acts > 0).any(0)
        f1, _ = role_f1(acts[torch.from_numpy(explained)].numpy(), roles)
        table[str(dictionary.site)] = {
            "ce_recovered": ce_recovered(model, few, dictionary, base),
            "l0": float((acts > 0).sum(1).float().mean()),
            "dead": float((~live).float().mean()),
            "explained_variance": explained_variance(dictionary, torch.cat(x), torch.cat(y)),
            "role_f1": float((f1[live.numpy()] >= 0.8).mean()),
        }
    return table


def _batches(model: Model, sentences: list[Sentence]) -> list[Batch]:
    texts = [sentence.text for sentence in sentences]
    return [model.tokenize(texts[start : start + 250]) for start in range(0, len(texts), 250)]
