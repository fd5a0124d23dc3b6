"""Solvers of one lasso problem, and of many targets side by side."""
