"""Whether setting a feature makes the model say what the feature is said to promote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.descriptions.scores import FeatureScores
from benchmarks.descriptions.token_lists import Tokens, Vocabulary
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.names import feature_at
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import intervened, put
from circuit_toolkit.models import Model
from circuit_toolkit.models.continuation import continued
from circuit_toolkit.sites import Site

FACTORS = (-50, -10, -1, 0, 1, 10, 50)
GOOD = 0.5  # clarity and responsiveness from which faithfulness is worth its runs


@dataclass(frozen=True)
class Steering:
    """How often the model says listed tokens while a feature is set.

    Parameters
    ----------
    rates : dict of float to float
        For each factor of the feature's maximum the share of prompts whose continuation holds a
        listed token.
    faithfulness : float
        `max(0, max_f r_f - r_0) / (1 - r_0)`; 0 where r_0 is 1. A surrogate, see `steer`.
    """

    rates: Mapping[float, float]
    faithfulness: float


def steer(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    feature: str | tuple[Site | str, int],
    tokens: Tokens,
    prompts: Sequence[str],
    maximum: float,
    *,
    factors: Sequence[float] = FACTORS,
    max_new_tokens: int = 10,
    temperature: float = 0.0,
    seed: int = 0,
) -> Steering:
    """Set a feature to multiples of its maximum and count what the model goes on with.

    FADE lets a language model rate continuations; here one counts if it holds a listed token,
    before the end-of-sequence token. The feature is set on every token of prompt and continuation
    but the beginning of the sequence, by the difference that this makes to what its dictionary
    writes: to the stream for an autoencoder, to the MLP's output for a transcoder.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        That of the feature.
    feature : str or (Site, int)
        Which.
    tokens : sequence of int or str
        What it is said to promote: ids, or words.
    prompts : sequence of str
        Where to begin; neutral ones.
    maximum : float
        Its largest activation, such as `FeatureExamples.maximum`.
    factors : sequence of float
        Of the maximum; 0, the feature switched off, must be among them.
    max_new_tokens : int
        Length of continuations, as far as the context goes.
    temperature : float
        0 takes the likeliest token; else the temperature of sampling.
    seed : int
        Of sampling; every factor draws the same numbers.

    Returns
    -------
    Steering

    Raises
    ------
    InputError
        If the feature or a token does not exist, there are no prompts or no factor 0, or a number
        makes no sense.
    """
    site, index = feature_at(feature)
    listed = torch.tensor(Vocabulary.of(model).ids(tokens))
    if 0 not in factors:
        raise InputError(f"Faithfulness compares with factor 0, the factors are {list(factors)}.")
    if not maximum > 0:
        raise InputError(f"The maximum of a feature must be above 0, got {maximum}.")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}.")
    if not 0 <= temperature < math.inf:  # false for nan too
        raise InputError(f"temperature must be 0 or more, and finite, got {temperature}.")
    start = model.tokenize(prompts, bos=shared_bos(dictionaries))
    if start.ids.shape[1] >= model.context:
        raise InputError("A prompt fills the context: there is no room to go on. Shorten it.")
    rates = {}
    for factor in factors:
        changes = [put(site, factor * maximum, features=[index])]
        with intervened(model, changes, dictionaries=dictionaries) as changed:
            said = continued(changed, start, max_new_tokens, temperature, seed)
        rates[factor] = float(torch.isin(said, listed).any(1).float().mean())
    silent = rates[0]
    gain = max(rates.values()) - silent  # not below 0: factor 0 is among them
    return Steering(rates, gain / (1 - silent) if silent < 1 else 0.0)


def with_faithfulness(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    scores: FeatureScores,
    tokens: Tokens,
    prompts: Sequence[str],
    maximum: float,
    *,
    always: bool = False,
    max_new_tokens: int = 10,
) -> FeatureScores:
    """Add faithfulness to scores, where clarity and responsiveness are at least .5.

    Parameters
    ----------
    model, dictionaries, tokens, prompts, maximum, max_new_tokens
        See `steer`.
    scores : FeatureScores
        Of the feature, see `feature_scores`.
    always : bool
        However low the other scores are.

    Returns
    -------
    FeatureScores
        Without faithfulness where it was not run.

    Raises
    ------
    InputError
        As `steer`.
    """
    if not always and not (scores.clarity >= GOOD and scores.responsiveness >= GOOD):
        return scores
    found = steer(
        *(model, dictionaries, scores.feature, tokens, prompts, maximum),
        max_new_tokens=max_new_tokens,
    )
    return replace(scores, faithfulness=found.faithfulness)
