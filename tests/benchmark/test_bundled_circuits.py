"""The circuits of the bundled tasks hold when they are ablated, and random ones do not."""

import numpy as np
import pytest

import circuit_toolkit as ct


@pytest.mark.parametrize("name", ["ioi", "greater_than", "agreement"])
def test_ablating_a_circuit_takes_the_metric_away_and_random_sets_do_not(demo, demo_saes, name):
    make = ct.tasks.BUNDLED[name]
    task, held_out = make(demo, n=512, seed=0), make(demo, n=96, seed=2, test=True)
    acts = ct.capture(demo, demo_saes, task, progress=False)
    fit = ct.CircuitLasso(folds=0).fit(acts, target=task)
    circuit = fit.circuit(strength=0.1)
    assert 0 < len(circuit.nodes) - 1 <= 60
    circuit = ct.evaluate(
        circuit, demo, demo_saes, held_out, fit.rows, draws=6, n_prompts=96, seed=3, progress=False
    )
    found = circuit.evidence["ablation"]
    assert found["completeness"] <= 0.3
    assert np.mean(found["random_completeness"]) >= 0.85
    on = found["evaluated_on"]
    assert on["split"] == "held-out" and on["seed"] == 2 and on["seen"] == 0 and on["n"] == 96
    assert circuit.evidence["fit"]["held_out_r2"] > 0.3


def test_a_label_is_explained_by_what_the_text_says_of_it(demo, demo_saes):
    """The profession is in what a person does, and not in the name: only whole texts tell it."""
    last = dict(list(demo_saes.items())[-1:])  # what the label reads; no chain to fit
    auroc = {}
    for whole in (True, False):
        task = ct.tasks.bios(demo, n=400, strength=0.5, title=False, whole=whole)
        acts = ct.capture(demo, last, task, progress=False)
        fit = ct.CircuitLasso(positions="mean").fit(acts, target="profession=nurse")
        auroc[whole] = fit.held_out
    # Six nurses are held out with their corrupted prompts: where nothing tells them the AUROC is .5
    # with a standard error of .12, and the best of 20 strengths is above that.
    assert abs(auroc[False].mean() - 0.5) < 0.2 and auroc[True].max() >= 0.9
    assert auroc[True].max() > auroc[False].max() + 0.2
