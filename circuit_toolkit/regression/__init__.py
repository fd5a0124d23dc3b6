"""Sparse linear and logistic regression with certificates; knows of no model."""

from circuit_toolkit.regression.blocks import join_targets
from circuit_toolkit.regression.certificate import ConvergenceWarning
from circuit_toolkit.regression.choose import CrossValidation, cross_validate, edge_budget
from circuit_toolkit.regression.folds import Folds, fold_labels
from circuit_toolkit.regression.gram import GramStatistics
from circuit_toolkit.regression.group import GroupPath, group_lasso_path
from circuit_toolkit.regression.lasso import LassoPath, lasso_path
from circuit_toolkit.regression.logistic import LogisticPath, logistic_path
from circuit_toolkit.regression.multinomial import MultinomialPath, multinomial_path
from circuit_toolkit.regression.refit import adaptive_weights, refit
from circuit_toolkit.regression.screening import Screening, screen_features
from circuit_toolkit.regression.stability import Stability, stability_selection

__all__ = [
    "ConvergenceWarning",
    "CrossValidation",
    "Folds",
    "GramStatistics",
    "GroupPath",
    "LassoPath",
    "LogisticPath",
    "MultinomialPath",
    "Screening",
    "Stability",
    "adaptive_weights",
    "cross_validate",
    "edge_budget",
    "fold_labels",
    "group_lasso_path",
    "join_targets",
    "lasso_path",
    "logistic_path",
    "multinomial_path",
    "refit",
    "screen_features",
    "stability_selection",
]
