"""All that is kept of one dictionary: weights, tests of single tokens, the permutation null."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import encoder_rows, stream_of
from circuit_toolkit.features.descriptions.inherited_tokens import Described, handed_down
from circuit_toolkit.features.descriptions.tables import (
    INHERITED,
    NULL,
    NULL_LINK,
    OUTPUT,
    TOKEN,
    SiteTables,
    table_of_columns,
)
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens.candidates import (
    output_candidates,
    permuted_rows,
    token_candidates,
    upstream_candidates,
)
from circuit_toolkit.weight_lens.single_token import LAYER_0
from circuit_toolkit.weight_lens.thresholds import Thresholds


def tables_of(
    model: Model,
    site: Site,
    dictionaries: Mapping[Site, Dictionary],
    limits: Thresholds,
    alone: sp.csr_array,
    unembedding: Tensor,
    inputs: Tensor | None,
    earlier: Sequence[Described],
    rng: np.random.Generator,
    n_permuted: int,
) -> SiteTables:
    """Find what stands out for the features of one dictionary, and what activates them."""
    dictionary = dictionaries[site]
    place = stream_of(model, dictionary)
    sources = [each for each in dictionaries.values() if each.out < place]
    rows = encoder_rows(model, dictionary)
    if place < LAYER_0:
        inputs = None  # the first layer has not run yet
    tokens, embedding_total = token_candidates(model, rows, limits, inputs=inputs)
    links, upstream_total = upstream_candidates(model, rows, sources, limits)
    shape = (len(rows), model.d_vocab)
    came = handed_down(links, limits.floor_feature, earlier, limits.upstream, shape)
    active = sp.csr_array(alone.multiply(came)).tocoo()
    # the permutation null: the same with permuted encoders, a token tested on the feature as it is
    drawn = np.sort(rng.choice(len(rows), min(n_permuted, len(rows)), replace=False))
    null, null_links = np.empty(0, NULL), np.empty(0, NULL_LINK)
    if len(drawn):
        permuted = permuted_rows(rows, drawn, int(rng.integers(2**31)))
        found, _ = token_candidates(model, permuted, limits, False, inputs)
        feature = drawn[found["feature"]]
        solo = looked_up(alone, feature, found["token"])
        null = table_of_columns(NULL, feature=feature, z=found["z"], solo=solo)
        found, _ = upstream_candidates(model, permuted, sources, limits)
        null_links = table_of_columns(NULL_LINK, feature=drawn[found["feature"]], z=found["z"])
    return SiteTables(
        kind=dictionary.kind,
        name=dictionary.name,
        tokens=table_of_columns(
            TOKEN,
            **{name: tokens[name] for name in OUTPUT.names or ()},
            solo=looked_up(alone, tokens["feature"], tokens["token"]),
        ),
        outputs=output_candidates(model, dictionary, unembedding, limits),
        links=links,
        inherited=table_of_columns(
            INHERITED, feature=active.row, token=active.col, solo=active.data
        ),
        null=null,
        null_links=null_links,
        embedding_total=embedding_total,
        upstream_total=upstream_total,
        sampled=np.isin(np.arange(len(rows)), drawn),
    )


def null_generator(seed: int, site: Site) -> np.random.Generator:
    """Return the generator of a site's permutation null, whatever else is described."""
    return np.random.default_rng([seed, zlib.crc32(str(site).encode())])


def looked_up(alone: sp.csr_array, features: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the activations of pairs of feature and token, shape (pairs,)."""
    if not len(features):
        return np.zeros(0, np.float32)
    return np.asarray(alone[features, tokens]).ravel().astype(np.float32)
