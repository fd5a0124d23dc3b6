"""The loops of the engine, with and without a compiler."""

import pytest

from circuit_toolkit.regression import compiled
from tests.regression.problems import nothing_compiled


@pytest.fixture(params=["numpy", "compiled"])
def loops(request, monkeypatch):
    """Solve with and without the compiled loops; there is nothing to compile without numba."""
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "_compiling", nothing_compiled)
    else:
        pytest.importorskip("numba")
        while compiled.kernels(wait=True) is None:
            pass
