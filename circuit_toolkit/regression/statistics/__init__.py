"""Sufficient statistics of a regression: what a pass over the data leaves behind."""
