"""Faithfulness and completeness of CircuitLasso circuits on the bundled tasks, against chance.

For every task: the circuit of at most 40 features at strength 0.1, learnt on 512 pairs of the
training language, tested on 128 prompts of held-out material, beside 20 random sets of equally
many active features at the same sites. Prints rows for RESULTS.md.
"""

import time

import numpy as np

import circuit_toolkit as ct

STRENGTH, MAX_FEATURES = 0.1, 40


def main() -> None:
    """Print one row a task."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    print(
        "| task | features | held-out R² | faithfulness | random: mean, max of 20 | completeness "
        "| random: mean, min of 20 | fit s | test s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in ct.tasks.BUNDLED.items():
        task, held_out = make(model, n=512, seed=0), make(model, n=128, seed=1, test=True)
        began = time.perf_counter()
        acts = ct.capture(model, saes, task, progress=False)
        fit = ct.CircuitLasso().fit(acts, target=task)
        circuit = fit.circuit(STRENGTH, max_features=MAX_FEATURES)
        fitted = time.perf_counter()
        circuit = ct.evaluate(circuit, model, saes, held_out, fit.rows, progress=False)
        tested = time.perf_counter()
        row, r2 = circuit.evidence["ablation"], circuit.evidence["fit"]["held_out_r2"]
        alone, without = row["random_faithfulness"], row["random_completeness"]
        print(
            f"| {name} | {row['size']} | {r2:.3f} "
            f"| {row['faithfulness']:.3f} | {np.mean(alone):.3f}, {max(alone):.3f} "
            f"| {row['completeness']:.3f} | {np.mean(without):.3f}, {min(without):.3f} "
            f"| {fitted - began:.1f} | {tested - fitted:.1f} |"
        )


if __name__ == "__main__":
    main()
