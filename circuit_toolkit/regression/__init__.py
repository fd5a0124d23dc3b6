"""Sparse linear and logistic regression with certificates; knows of no model."""

from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.labels.logistic import LogisticPath, logistic_path
from circuit_toolkit.regression.paths.adaptive import (
    adaptive_lasso,
    adaptive_logistic,
    adaptive_weights,
)
from circuit_toolkit.regression.paths.choose import (
    cross_validate,
    fold_labels,
    held_out_rows,
    one_standard_error,
    smallest_bic,
)
from circuit_toolkit.regression.paths.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.solvers.screening import Screening, screen_features
from circuit_toolkit.regression.statistics.gram import GramStatistics

__all__ = [
    "ConvergenceWarning",
    "GramStatistics",
    "LassoPath",
    "LogisticPath",
    "Screening",
    "adaptive_lasso",
    "adaptive_logistic",
    "adaptive_weights",
    "cross_validate",
    "fold_labels",
    "held_out_rows",
    "lasso_path",
    "logistic_path",
    "one_standard_error",
    "screen_features",
    "smallest_bic",
]
