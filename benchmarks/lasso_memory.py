"""Peak memory and cost of statistics over the number of rows, and against a dense product.

    OMP_NUM_THREADS=1 python benchmarks/lasso_memory.py

Blocks of rows of 16,384 features with 80 non-zeros each are drawn, added and dropped; each number
of rows runs in a process of its own. The Gram matrix takes 2 GiB, so allow 3. The dense product of
the same data, X'X in float64 by BLAS, is measured on 2,048 rows and scaled by their number.
"""

import resource
import subprocess
import sys
import time

import numpy as np
import scipy.sparse as sp

P, NON_ZEROS, BLOCK, TARGETS = 16_384, 80, 10_000, 16


def block(rng, n):
    """Draw rows (n, P) with NON_ZEROS each, as csr, and targets (n, TARGETS)."""
    columns = np.sort(rng.integers(0, P, (n, NON_ZEROS)), axis=1)
    rows = np.arange(n + 1) * NON_ZEROS
    X = sp.csr_array((rng.exponential(size=columns.size), columns.ravel(), rows), shape=(n, P))
    X.sum_duplicates()
    return X, rng.normal(size=(n, TARGETS))


def accumulate(n):
    """Print rows, seconds of CPU in statistics alone, and peak memory in GiB."""
    from circuit_toolkit.regression import GramStatistics
    from circuit_toolkit.regression.compiled import kernels

    kernels(wait=True)
    rng, drawing = np.random.default_rng(0), 0.0

    def blocks():
        nonlocal drawing
        for _ in range(n // BLOCK):
            begun = time.process_time()
            rows = block(rng, BLOCK)
            drawing += time.process_time() - begun
            yield rows

    begun = time.process_time()
    stats = GramStatistics.from_blocks(blocks())
    spent = time.process_time() - begun - drawing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert stats.n == n
    print(f"{n} {spent} {peak}")


def dense(n=2048):
    """CPU seconds of the dense product for each row."""
    X = block(np.random.default_rng(0), n)[0].toarray()
    begun = time.process_time()
    X.T @ X
    return (time.process_time() - begun) / n


def main():
    """Print a row for each number of rows."""
    if len(sys.argv) > 1:
        accumulate(int(sys.argv[1]))
        return
    each = dense()
    print("| rows | statistics, CPU s | peak, GiB | dense product, CPU s (scaled) | ratio |")
    print("|---|---|---|---|---|")
    for n in (100_000, 1_000_000):
        command = [sys.executable, __file__, str(n)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        _, spent, peak = map(float, out.split())
        print(
            f"| {n:,} | {spent:.1f} | {peak:.2f} | {each * n:.0f} | {each * n / spent:.0f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
