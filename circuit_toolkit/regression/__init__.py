"""Sparse linear and logistic regression with certificates; knows of no model."""

from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.labels.logistic import LogisticPath, logistic_path
from circuit_toolkit.regression.paths.choose import CrossValidation, cross_validate, edge_budget
from circuit_toolkit.regression.paths.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.paths.refit import adaptive_weights, refit
from circuit_toolkit.regression.solvers.screening import Screening, screen_features
from circuit_toolkit.regression.statistics.folds import Folds, fold_labels
from circuit_toolkit.regression.statistics.gram import GramStatistics

__all__ = [
    "ConvergenceWarning",
    "CrossValidation",
    "Folds",
    "GramStatistics",
    "LassoPath",
    "LogisticPath",
    "Screening",
    "adaptive_weights",
    "cross_validate",
    "edge_budget",
    "fold_labels",
    "lasso_path",
    "logistic_path",
    "refit",
    "screen_features",
]
