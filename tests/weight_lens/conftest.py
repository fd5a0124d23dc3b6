import pytest

from circuit_toolkit.models import Model
from tests.weight_lens.planted import still_model


@pytest.fixture(scope="session")
def still() -> Model:
    return still_model()
