"""Sparse linear and logistic regression with certificates; knows of no model."""

from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.gram import GramStatistics
from circuit_toolkit.regression.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.logistic import LogisticPath, logistic_path
from circuit_toolkit.regression.screening import Screening, screen_features

__all__ = [
    "ConvergenceWarning",
    "GramStatistics",
    "LassoPath",
    "LogisticPath",
    "Screening",
    "lasso_path",
    "logistic_path",
    "screen_features",
]
