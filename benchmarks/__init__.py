"""Benchmarks: each script prints what it measured; RESULTS.md holds the figures."""
