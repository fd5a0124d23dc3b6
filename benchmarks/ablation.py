"""What mean ablation of a CircuitLasso circuit takes away on the bundled tasks, against chance.

For every task: the circuit of at most 40 features at strength 0.1, learnt on 512 pairs of the
training language, tested on 128 prompts of held-out material, beside 20 random sets of equally
many active features at the same sites. Prints rows for RESULTS.md.
"""

import time

import circuit_toolkit as ct

STRENGTH, MAX_FEATURES = 0.1, 40


def main() -> None:
    """Print one row a task."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    print(
        "| task | features | held-out R² | loss | random: mean, max of 20 | kept | fit s | test s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, make in ct.tasks.BUNDLED.items():
        task, held_out = make(model, n=512, seed=0), make(model, n=128, seed=1, test=True)
        began = time.perf_counter()
        acts = ct.capture(model, saes, task, progress=False)
        fit = ct.CircuitLasso().fit(acts, target=task)
        circuit = fit.circuit(STRENGTH, max_features=MAX_FEATURES)
        fitted = time.perf_counter()
        circuit = ct.ablation_evidence(model, saes, held_out, fit.rows, circuit)
        tested = time.perf_counter()
        row, fit_row = circuit.evidence["ablation"], circuit.evidence["fit"]
        print(
            f"| {name} | {row['n_features']} | {fit_row['held_out_r2']:.3f} | {row['loss']:.3f} "
            f"| {row['random_loss_mean']:.3f}, {max(row['random_loss']):.3f} | {row['kept']:.3f} "
            f"| {fitted - began:.1f} | {tested - fitted:.1f} |"
        )


if __name__ == "__main__":
    main()
