"""Whether two activations are the same, to the bit or to the rounding of other shapes."""

import numpy as np

from circuit_toolkit.activations.activations import Activations

ROUNDED = 4 * np.finfo(np.float32).eps  # a product of fewer rows may add in another order


def assert_same(a: Activations, b: Activations, rtol: float = 0.0) -> None:
    """Hold all of it equal, values of features and of the metric up to `rtol`."""
    assert a.sites == b.sites and a.tokens == b.tokens and dict(a.settings) == dict(b.settings)
    for site in a.sites:
        assert a.features[site].shape == b.features[site].shape
        for name in ("indices", "indptr"):
            assert_equal(getattr(a.features[site], name), getattr(b.features[site], name))
        assert_equal(a.features[site].data, b.features[site].data, rtol)
    for name in ("prompt", "position", "groups", "directions"):
        assert_equal(getattr(a, name), getattr(b, name))
    assert_equal(a.metric, b.metric, rtol)
    for name in ("labels", "named"):
        assert list(getattr(a, name)) == list(getattr(b, name))
        for key, values in getattr(a, name).items():
            assert_equal(values, getattr(b, name)[key])


def assert_equal(a, b, rtol: float = 0.0) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        if rtol:
            np.testing.assert_allclose(a, b, rtol=rtol, atol=0)
        else:
            np.testing.assert_array_equal(a, b)
