"""Whether two activations are the same to the bit."""

import numpy as np

from circuit_toolkit.activations.activations import Activations


def assert_same(a: Activations, b: Activations) -> None:
    assert a.sites == b.sites and a.tokens == b.tokens and dict(a.settings) == dict(b.settings)
    for site in a.sites:
        assert a.features[site].shape == b.features[site].shape
        for name in ("data", "indices", "indptr"):
            assert_equal(getattr(a.features[site], name), getattr(b.features[site], name))
    for name in ("prompt", "position", "groups", "metric", "directions"):
        assert_equal(getattr(a, name), getattr(b, name))
    for name in ("labels", "named"):
        assert list(getattr(a, name)) == list(getattr(b, name))
        for key, values in getattr(a, name).items():
            assert_equal(values, getattr(b, name)[key])


def assert_equal(a, b) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
