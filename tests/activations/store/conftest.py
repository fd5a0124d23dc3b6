"""A capture of 12 prompts into a folder, whole or interrupted."""

import pytest

from circuit_toolkit import capture
from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.tasks import ioi
from tests.activations.store.small_store import BATCH, Interruption


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=6, seed=3)


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes, task):
    return capture(tiny, tiny_saes, task, batch_size=BATCH, progress=False)


@pytest.fixture
def to(tiny, tiny_saes, task):
    """Capture into a folder; arguments of capture can be replaced."""

    def run(folder, **changes):
        given = {"model": tiny, "prompts": task, "dictionaries": tiny_saes, "batch_size": BATCH}
        return capture(**(given | changes), store=folder, progress=False)

    return run


@pytest.fixture
def folder(to, tmp_path):
    """Folder of a store of four shards."""
    return to(tmp_path / "store").folder


@pytest.fixture
def stop_after(monkeypatch):
    """Let a capture raise after some batches; gives the batches that were run since."""

    def after(n):
        run, seen = CapturePlan.activations, []

        def activations(self, rows, batch):
            if len(seen) == n:
                raise Interruption
            seen.append(rows)
            return run(self, rows, batch)

        monkeypatch.setattr(CapturePlan, "activations", activations)
        return seen

    return after
