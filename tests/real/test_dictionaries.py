"""What `circuit-toolkit train --model smollm2` left in the cache, if it was run here."""

import pytest

import circuit_toolkit as ct
from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.patching.placed_features import PlacedFeatures


@pytest.fixture(scope="module")
def saes(smollm2):
    if not any(cache_folder("smollm2").glob("*/cfg.json")):
        pytest.skip("no dictionaries in the cache: circuit-toolkit train --model smollm2")
    return ct.load_dictionaries(smollm2)


def test_six_autoencoders_hold_the_task(smollm2, saes):
    assert len(saes) == 6 and {each.kind for each in saes.values()} == {"sae"}
    assert len(ct.load_dictionaries(smollm2, kind="transcoder")) == 6
    runs = PlacedFeatures.of(smollm2, saes, ct.tasks.ioi(smollm2, n=24, seed=1, test=True))
    assert runs.metric_with({}).mean() <= 0.3 * runs.metric().mean()


def test_the_default_circuit_is_small_and_holds(smollm2, saes):
    task = ct.tasks.ioi(smollm2, n=48, seed=0)
    held_out = ct.tasks.ioi(smollm2, n=48, seed=1, test=True)
    circuit = ct.find_circuit(smollm2, saes, task, held_out, random_sets=2, progress=False)
    found = circuit.evidence["ablation"]
    assert len(circuit.nodes) - 1 <= 60
    assert found["faithfulness"] >= 0.75 and found["completeness"] <= 0.2  # .81 and .01 of 64
    assert circuit.evidence["edges"]["confirmed"] > circuit.evidence["edges"]["refuted"]
