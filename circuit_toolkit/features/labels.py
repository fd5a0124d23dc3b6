"""Name features by the words on which they fire and the words that they promote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from circuit_toolkit.activations.activations import Activations, Positions
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import expect, number, whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import can_promote, decoder_rows, unembedding_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.descriptions.words import spelled, unspaced
from circuit_toolkit.features.word_shares import heavy, label_of, sharing, word_shares
from circuit_toolkit.models import Model
from circuit_toolkit.models.special_tokens import is_said
from circuit_toolkit.sites import Site

PROMPTS = 5  # in which a context word must be: of fewer a correlation says little
CORRELATION = 0.2  # from which a context word is named
SURE = 4.0  # standard errors of a correlation, or deviations of a promoted word
WITHIN, ARROW = " … ", " ⇒ "  # behind context words, before promoted words


def feature_labels(acts: Activations | ActivationStore, n_words: int = 3) -> dict[Site, list[str]]:
    """Name every feature by the words that carry most of its activation.

    Features of a site that would have the same name are told apart by what is special to each: its
    words are weighed against those of the others, by their part in the Kullback-Leibler divergence,
    p log(p / q), where p is a word's share of the activation and q the mean of its shares in the
    others. The heaviest word stays, and one or two follow of which it has twice as much as these.

    Tokens of outlying size, such as an attention sink, at which nearly all features are active, are
    left out, see `Activations.inlying`.

    Parameters
    ----------
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    n_words : int
        At most so many words; one with under a twentieth of the activation is left out, unless
        all are; one that tells features apart, with under a hundredth.

    Returns
    -------
    dict of Site to list of str
        One label for each feature; empty where it never fires on these prompts. It ends in "…"
        where its words carry less than half of the activation; signs stand in quotes.

    Raises
    ------
    InputError
        If the rows are not tokens.
    """
    expect(acts, "acts", "Activations", "ActivationStore")
    return word_shares(acts).labels(whole(n_words, "n_words", 0))


def described_labels(
    descriptions: FeatureDescriptions, names: Mapping[Site, Sequence[str]]
) -> dict[Site, list[str]]:
    """Name features by what their weights say, else, in brackets, as they are named otherwise.

    Parameters
    ----------
    descriptions : FeatureDescriptions
        From `WeightLens`.
    names : dict of Site to sequence of str
        Other names, such as `feature_labels(acts)`.

    Returns
    -------
    dict of Site to list of str
        For the sites of `names`, as `CircuitLasso.fit` and `feature_card` take them.
    """
    expect(descriptions, "descriptions", "FeatureDescriptions")
    said = descriptions.labels()
    return {
        site: [
            words or (name and f"({name})")
            for words, name in zip(said.get(site, [""] * len(those)), those, strict=True)
        ]
        for site, those in names.items()
    }


def promoted_words(
    model: Model,
    dictionary: Dictionary,
    features: np.ndarray,
    n_words: int = 3,
    min_z: float = -np.inf,
) -> list[list[str]]:
    """Return which next words a feature promotes most, by its direct path to the logits.

    The logit lens on decoder rows (nostalgebraist, 2020): `W_dec` through the last norm's weight
    and the unembedding. What later layers make of the feature is left out, and special tokens but
    the end of a text, see `special_tokens`.

    Parameters
    ----------
    model : Model
        The model.
    dictionary : Dictionary
        Whose features they are; it must write to the residual stream.
    features : ndarray of int, shape (k,)
        Which ones.
    n_words : int
        At most so many words each.
    min_z : float
        Leave out words whose effect is fewer standard deviations above the mean of all words.

    Returns
    -------
    list of k lists of str
        Strongest first.
    """
    rows = decoder_rows(model, dictionary)[torch.as_tensor(features)]  # (k, D)
    effects = rows @ unembedding_rows(model).T  # (k, V)
    effects = (effects - effects.mean(1, keepdim=True)) / effects.std(1, keepdim=True)
    tokens = torch.from_numpy(np.flatnonzero(is_said(model)))
    best = effects[:, tokens.to(effects.device)].topk(n_words, dim=1)
    ids = tokens[best.indices.cpu()]
    return [
        [model.word(t) for t, z in zip(*each, strict=True) if z >= min_z]
        for each in zip(ids.tolist(), best.values.tolist(), strict=True)
    ]


def context_words(
    acts: Activations, site: Site, n_words: int = 3, min_correlation: float = 0.2
) -> list[list[str]]:
    """Return which words of a prompt go with a feature's activation, whatever it fires on."""
    return [
        [word for word, correlation in words if correlation >= min_correlation]
        for words in _context(acts, site, n_words)
    ]


def _context(acts: Activations, site: Site, n_words: int = 3) -> list[list[tuple[str, float]]]:
    """Return the words of a prompt that go best with each feature, and their correlation."""
    if len(acts.prompt) != acts.n_prompts:
        raise InputError("Context needs one row a prompt: acts.pooled('last').")
    rows = np.repeat(np.arange(acts.n_prompts), [len(words) for words in acts.tokens])
    vocabulary, columns = np.unique(
        [unspaced(word) for words in acts.tokens for word in words], return_inverse=True
    )
    present = np.zeros((acts.n_prompts, len(vocabulary)))
    present[rows, columns] = 1
    present[:, present.sum(axis=0) < PROMPTS] = 0
    fired = acts.features[site].toarray()  # (prompts, F)
    scale = np.outer(present.std(axis=0), fired.std(axis=0)) * acts.n_prompts  # (V, F)
    covariance = (present - present.mean(axis=0)).T @ (fired - fired.mean(axis=0))
    correlation = np.divide(covariance, scale, out=np.zeros(scale.shape), where=scale > 1e-12)
    best = np.argsort(-correlation, axis=0)[:n_words]  # (n_words, F)
    return [
        [(str(vocabulary[w]), float(correlation[w, f])) for w in best[:, f]]
        for f in range(fired.shape[1])
    ]


def named_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    acts: Activations,
    positions: Positions = "last",
    promoted_from: float = 0.5,
) -> dict[Site, list[str]]:
    """Name features by the context and the words on which they fire, and by what they promote.

    Features of a site that would have the same name are told apart as in `feature_labels`, and
    where that is not enough, by weaker context (correlations beyond four standard errors), then by
    what they promote at any depth. `how_to_read` explains the names in a circuit.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those of `acts`.
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    positions : str or sequence of str
        Where the context is told for, see `Activations.pooled`; those of the fit, of several the
        last one.
    promoted_from : float
        Share of the model's depth from which a label also tells words that are promoted by at
        least four standard deviations.

    Returns
    -------
    dict of Site to list of str
        For example `Emma, Kate … to ⇒ Emma`: fires on "to" in prompts that have Emma or Kate in
        them, and promotes Emma. Where it fires ends in ", …" as in `feature_labels`.
    """
    dictionaries = as_dictionaries(model, dictionaries)
    expect(acts, "acts", "Activations", "ActivationStore")
    promoted_from = number(promoted_from, "promoted_from", 0, 1)
    shares = word_shares(acts)
    activating, labels = shares.heaviest(3), shares.labels()
    rows = acts.pooled(positions if isinstance(positions, str) else positions[-1])
    weak = min(CORRELATION, SURE / np.sqrt(rows.n_prompts))
    for site, names in labels.items():
        context = _context(rows, site)
        for i, words in enumerate(context):
            names[i] = _in_context(words, CORRELATION, activating[site][i], names[i])
        live = np.unique(acts.features[site].indices)
        if site.kind == "resid_post" and (site.layer + 1) / model.n_layers > promoted_from:
            for i, said in _promoted(model, dictionaries[site], live).items():
                names[i] = f"{names[i]}{said}".lstrip()

        def with_weak_context(i: int, words=context, fires=activating[site], names=names) -> str:
            start, arrow, said = names[i].partition(ARROW)
            return _in_context(words[i], weak, fires[i], start) + arrow + said

        _rename(names, with_weak_context)
        if unclear := [i for rows_ in sharing(names) for i in rows_ if ARROW not in names[i]]:
            said = _promoted(model, dictionaries[site], np.array(unclear))
            _rename(names, lambda i, names=names, said=said: names[i] + said.get(i, ""))
    return labels


def _rename(names: list[str], better: Callable[[int], str]) -> None:
    """Give features that share a name a better one, where no other has that."""
    taken = {*names}
    for features in sharing(names):
        for i in features:
            if (name := better(i)) not in taken:
                names[i] = name
                taken.add(name)


def _in_context(
    words: Sequence[tuple[str, float]],
    least: float,
    activating: Sequence[tuple[str, float]],
    alone: str,
) -> str:
    """Return where a feature fires, behind the words that go with it; without such, `alone`."""
    fires = heavy(activating)
    others = [spelled(word) for word, r in words if r >= least and word not in dict(fires)]
    return f"{', '.join(others)}{WITHIN}{label_of(fires[:2])}" if others else alone


def _promoted(model: Model, dictionary: Dictionary, features: np.ndarray) -> dict[int, str]:
    """Return what is added to the names of features that promote words, if they can."""
    if not can_promote(dictionary):
        return {}
    found = promoted_words(model, dictionary, features, min_z=SURE)
    words = [list(dict.fromkeys(map(spelled, each))) for each in found]
    pairs = zip(features.tolist(), words, strict=True)
    return {i: f"{ARROW}{', '.join(said)}" for i, said in pairs if said}
