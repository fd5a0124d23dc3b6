"""All that is kept of one dictionary, put together: weights, tests of tokens, chance."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import encoder_rows, stream_of
from circuit_toolkit.features.descriptions.inherited_tokens import Described, handed_down
from circuit_toolkit.features.descriptions.tables import (
    CHANCE,
    CHANCE_LINK,
    INHERITED,
    OUTPUT,
    TOKEN,
    SiteTables,
    filled,
)
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens.candidates import (
    output_candidates,
    permuted_rows,
    token_candidates,
    upstream_candidates,
)
from circuit_toolkit.weight_lens.single_token import looked_up
from circuit_toolkit.weight_lens.thresholds import Rule


class PermutationNull(NamedTuple):
    """How many encoders of a dictionary are also taken with their entries permuted, and a seed."""

    n: int
    seed: int


def tables_of(
    model: Model,
    site: Site,
    dictionaries: Mapping[Site, Dictionary],
    rule: Rule,
    solo: sp.csr_array,
    unembedding: Tensor,
    earlier: Sequence[Described],
    lots: PermutationNull,
) -> SiteTables:
    """Find what stands out for the features of one dictionary, and what activates them."""
    dictionary = dictionaries[site]
    place = stream_of(model, dictionary)
    sources = [each for each in dictionaries.values() if each.out < place]
    rows = encoder_rows(model, dictionary)
    tokens, embedding_total = token_candidates(model, rows, rule)
    links, upstream_total = upstream_candidates(model, rows, sources, rule)
    shape = (len(rows), model.hf.config.vocab_size)
    came = handed_down(links, rule.floor_feature, earlier, rule.upstream, shape)
    active = sp.csr_array(solo.multiply(came)).tocoo()
    chance, chance_links, sampled = _by_chance(model, site, rows, sources, rule, solo, lots)
    return SiteTables(
        kind=dictionary.kind,
        name=dictionary.name,
        tokens=filled(
            TOKEN,
            **{name: tokens[name] for name in OUTPUT.names or ()},
            solo=looked_up(solo, tokens["feature"], tokens["token"]),
        ),
        outputs=output_candidates(model, dictionary, unembedding, rule),
        links=links,
        inherited=filled(INHERITED, feature=active.row, token=active.col, solo=active.data),
        chance=chance,
        chance_links=chance_links,
        embedding_total=embedding_total,
        upstream_total=upstream_total,
        sampled=sampled,
    )


def _by_chance(
    model: Model,
    site: Site,
    rows: Tensor,
    sources: Sequence[Dictionary],
    rule: Rule,
    solo: sp.csr_array,
    lots: PermutationNull,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do the same with permuted encoders; a token is tested on the feature as it is."""
    rng = np.random.default_rng([lots.seed, zlib.crc32(str(site).encode())])
    chosen = np.sort(rng.choice(len(rows), min(lots.n, len(rows)), replace=False))
    sampled = np.isin(np.arange(len(rows)), chosen)
    if not len(chosen):
        return np.empty(0, CHANCE), np.empty(0, CHANCE_LINK), sampled
    permuted = permuted_rows(rows, chosen, int(rng.integers(2**31)))
    tokens, _ = token_candidates(model, permuted, rule, low=False)
    links, _ = upstream_candidates(model, permuted, sources, rule)
    feature = chosen[tokens["feature"]]
    chance = filled(
        CHANCE, feature=feature, z=tokens["z"], solo=looked_up(solo, feature, tokens["token"])
    )
    return chance, filled(CHANCE_LINK, feature=chosen[links["feature"]], z=links["z"]), sampled
