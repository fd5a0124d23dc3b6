"""Whatever opens a file refuses what is none, at once: a pipe would never end."""

import os
import signal

import pytest

import circuit_toolkit as ct
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.benchmark.heads.effects import HeadEffects
from circuit_toolkit.benchmark.interpbench.cases import read_case, read_cases
from circuit_toolkit.circuit import Circuit
from circuit_toolkit.circuit_lasso import LassoFit
from circuit_toolkit.dictionaries import train_dictionaries
from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.panels.explorer.saving import read_session
from circuit_toolkit.tasks import Task

OPENERS = {
    "circuit.json": lambda model, path: Circuit.load(path),
    "graph.json": lambda model, path: Circuit.from_neuronpedia(path),
    "effects.json": lambda model, path: HeadEffects.load(path),
    "session.json": lambda model, path: read_session(path),
    "fit.safetensors": lambda model, path: LassoFit.load(path),
    "store": lambda model, path: ActivationStore.open(path),
    "found.parquet": lambda model, path: FeatureDescriptions.load(path),
    "found.json": lambda model, path: FeatureDescriptions.load(path),
    "task.csv": lambda model, path: Task.from_table(model, path),
    "task.jsonl": lambda model, path: Task.from_table(model, path),
    "model": lambda model, path: ct.load_model(path),
    "model.gguf": lambda model, path: ct.load_model(path),
    "dictionaries": ct.load_dictionaries,
    "sae.safetensors": ct.load_dictionaries,
    "case": lambda model, path: read_case(path),
    "cases": lambda model, path: read_cases(path),
    "text.txt": lambda model, path: train_dictionaries(
        model, ["resid_post 0"], path, n_features=64, k=4, steps=2, progress=False
    ),
}
KINDS = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.touch(),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPENERS)
def test_what_is_no_file_is_refused_at_once(tiny, name, kind, tmp_path, request):
    def late(*_):
        raise TimeoutError(f"{name} waits for a {kind}")

    KINDS[kind](tmp_path / name)
    before = signal.signal(signal.SIGALRM, late)
    request.addfinalizer(lambda: signal.signal(signal.SIGALRM, before))
    signal.alarm(20)
    try:
        with pytest.raises(ToolkitError) as caught:
            OPENERS[name](tiny, tmp_path / name)
    finally:
        signal.alarm(0)
    assert "\n" not in str(caught.value)
