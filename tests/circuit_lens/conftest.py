"""Texts for the bundled model, and its activations on them."""

import pytest

import circuit_toolkit as ct


@pytest.fixture(scope="module")
def texts(demo):
    both = ct.tasks.docstring(demo, n=60).texts + ct.tasks.agreement(demo, n=60).texts
    return [*both, *ct.tasks.ioi(demo, n=30).texts]


@pytest.fixture(scope="module")
def acts(demo, demo_transcoders, texts):
    return ct.capture(demo, demo_transcoders, texts, progress=False)
