"""What one row of a prompt costs and explains: its last token against the mean over its tokens.

Agreement on the bundled model, 512 pairs: features that were fitted, seconds for the whole path
of all sites, largest relative duality gap, held-out R² at strength 0.1. Prints rows for RESULTS.md.
"""

import time

import circuit_toolkit as ct


def main() -> None:
    """Print one row a choice."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    task = ct.tasks.agreement(model, n=512, seed=0)
    acts = ct.capture(model, saes, task, progress=False)
    print("| tokens | features a site | whole path s | largest gap | held-out R² |")
    print("|---|---|---|---|---|")
    for positions in ("last", "mean"):
        began = time.perf_counter()
        fit = ct.CircuitLasso(positions=positions).fit(acts, target=task, labels={})
        seconds = time.perf_counter() - began
        sizes = [len(screening.kept) for screening in fit.screening.values()]
        gap = max(path.gap.max() for path in (*fit.chain.values(), *fit.readout.values()))
        r2 = fit.circuit(0.1).evidence["fit"]["held_out_r2"]
        print(
            f"| {positions} | {min(sizes)} to {max(sizes)} | {seconds:.1f} | {gap:.0e} | {r2:.3f} |"
        )


if __name__ == "__main__":
    main()
