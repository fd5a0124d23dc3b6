"""Cost of statistics, screening and lasso paths over samples, features and targets.

Sources: `p` features of which some 80 fire in a row; targets: `q` features of the next site, each
the sum of 8 sources with noise, above a threshold, so that they are as sparse. One axis at a time;
the others stay at their base. A path is that of `CircuitLasso`: 20 strengths down to .03, every
solution certified. Seconds are of one processor and leave out the making of the data; memory is the
peak of a fresh process over what it held at the start; sources: non-zeros a target at the weakest
strength, on average, which paths cost more for. Exponents are least squares on logarithms; a pair
of sites of 16,384 features each (8 GB) says how far they hold. Prints tables for RESULTS.md;
`--json FILE` keeps the figures, `--small` is a quick check.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch, here and in the processes

import numpy as np
import psutil
import scipy.sparse as sp
import torch

from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.circuit_lasso.regressions import TOL
from circuit_toolkit.regression import GramStatistics, lasso_path, screen_features

FIRING, SOURCES, ROWS = 80, 8, 10_000
BASE = {"samples": 100_000, "features": 2**12, "targets": 2**9}
AXES = {
    "samples": [10_000, 100_000, 1_000_000],
    "features": [2**i for i in range(10, 15)],
    "targets": [2**i for i in range(5, 13)],
}
PAIR = {"samples": 100_000, "features": 2**14, "targets": 2**14}  # two layers of 16k features
SMALL_BASE = {"samples": 10_000, "features": 2**10, "targets": 2**7}
SMALL = {
    "samples": [3_000, 10_000, 30_000],
    "features": [2**9, 2**10, 2**11],
    "targets": [2**5, 2**7, 2**9],
}
SMALL_PAIR = {"samples": 10_000, "features": 2**11, "targets": 2**11}
COSTS = ("statistics", "screening", "paths")


def blocks(n: int, p: int, q: int, spent: list[float]) -> Iterator[tuple]:
    """Return sources and targets a block of rows at a time, and note the seconds that it took."""
    rng = np.random.default_rng(0)
    B = sp.csc_array(
        (
            rng.gamma(2, 1, q * SOURCES),
            (rng.integers(0, p, q * SOURCES), np.repeat(np.arange(q), SOURCES)),
        ),
        shape=(p, q),
    )
    threshold = None
    for start in range(0, n, ROWS):
        began = time.process_time()
        rows = min(ROWS, n - start)
        entries = np.repeat(np.arange(rows), FIRING), rng.integers(0, p, rows * FIRING)
        X = sp.csr_array((rng.gamma(2, 1, rows * FIRING), entries), shape=(rows, p))
        Y = sp.csr_array(X @ B)
        Y.data *= rng.gamma(4, 0.25, Y.nnz)
        if threshold is None:  # which leaves as large a share of the targets as of the sources
            threshold = np.quantile(Y.data, max(0, 1 - rows * q * FIRING / p / Y.nnz))
        Y.data[Y.data < threshold] = 0
        Y.eliminate_zeros()
        spent.append(time.process_time() - began)
        yield X, Y


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(n: int, p: int, q: int) -> dict[str, float]:
    """Seconds of each step, and memory at its peak, in a process of its own."""
    torch.set_num_threads(1)
    warm = GramStatistics.from_blocks(blocks(ROWS, 256, 32, []))  # what the first call loads
    lasso_path(warm.standardised(), [0.5])
    spent: list[float] = []
    before, began = psutil.Process().memory_info().rss, time.process_time()
    stats = GramStatistics.from_blocks(blocks(n, p, q, spent))
    found = {"statistics": time.process_time() - began - sum(spent)}
    began = time.process_time()
    screen_features(stats)
    found["screening"] = time.process_time() - began
    began = time.process_time()
    path = lasso_path(stats.standardised(), list(CircuitLasso().grid), TOL)
    found["paths"] = time.process_time() - began
    found["bytes"] = peak() - before
    found["sources"] = path.coefficients[-1].nnz / q
    found["certified"] = float(path.converged.mean())
    return found


def exponent(x: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log x."""
    return float(np.polyfit(np.log(x), np.log(seconds), 1)[0])


def main() -> None:
    """Measure along each axis, print tables, and fit exponents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="small sizes, some seconds each")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    options = parser.parse_args()
    base, axes, pair = (SMALL_BASE, SMALL, SMALL_PAIR) if options.small else (BASE, AXES, PAIR)
    context = multiprocessing.get_context("spawn")
    results: dict[str, list[dict]] = {}
    exponents: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh:
        for axis, values in axes.items():
            rest = ", ".join(f"{base[name]:,} {name}" for name in base if name != axis)
            print(f"\n{rest}:\n")
            print(f"| {axis} | {' | '.join(f'{name} s' for name in COSTS)} | MiB | sources |")
            print("|---|---|---|---|---|---|", flush=True)
            results[axis] = []
            for value in values:
                size = base | {axis: value}
                found = fresh.submit(measure, *size.values()).result()
                results[axis].append(size | found)
                assert found["certified"] == 1, "not all solutions are certified"
                cells = [f"{value:,}", *(f"{found[name]:.2f}" for name in COSTS)]
                cells += [f"{found['bytes'] / 2**20:,.0f}", f"{found['sources']:.0f}"]
                print(f"| {' | '.join(cells)} |", flush=True)
            exponents[axis] = {
                name: exponent(values, [found[name] for found in results[axis]]) for name in COSTS
            }
        whole = fresh.submit(measure, *pair.values()).result()
    print(f"\n| exponent over | {' | '.join(COSTS)} |\n|---|---|---|---|")
    for axis, fitted in exponents.items():
        print(f"| {axis} | {' | '.join(f'{fitted[name]:.2f}' for name in COSTS)} |")
    at_base = next(each for each in results["targets"] if each["targets"] == base["targets"])
    print(f"\n{', '.join(f'{value:,} {name}' for name, value in pair.items())}, ", end="")
    print(f"{whole['bytes'] / 2**20:,.0f} MiB, {whole['sources']:.0f} sources:\n")
    print("| step | s | by the exponents s |\n|---|---|---|")
    for name in COSTS:
        factors = [(pair[axis] / base[axis]) ** exponents[axis][name] for axis in axes]
        print(f"| {name} | {whole[name]:.2f} | {at_base[name] * np.prod(factors):.2f} |")
    results["pair"] = [pair | whole]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"base": base, "points": results, "exponents": exponents}, file, indent=1)


if __name__ == "__main__":
    main()
