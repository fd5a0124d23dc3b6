"""Regression of labels: logistic paths and their certificates."""
