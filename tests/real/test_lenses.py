"""What features are called, and why they are active, on a real model."""

import numpy as np

import circuit_toolkit as ct
from circuit_toolkit.dictionaries.fidelity import is_inlying
from circuit_toolkit.models import run
from circuit_toolkit.sites import Site

TEXTS = ["Then, Mary and John went to the store.", "The old house stood near a river in Wales."]


def test_the_sum_of_activations_tells_the_tokens_of_outlying_norm(smollm2):
    """Coordinates of the stream as features; the first token's norm is a hundred times others'."""
    site = Site("resid_post", 15)
    acts = ct.capture(smollm2, [site], TEXTS, progress=False)
    batch = smollm2.tokenize(TEXTS)
    values = run(smollm2, batch, [site])[site][batch.mask.bool()]
    np.testing.assert_array_equal(acts.inlying(site), is_inlying(values).numpy())
    np.testing.assert_array_equal(acts.inlying(site), acts.position > 0)
    named = {word for name in ct.feature_labels(acts)[site] for word in name.split(", ")}
    assert not named & {"Then", "The"} and {"Mary", "river"} & named
