"""Paths over penalties: lasso, group lasso, and the choice of a strength."""
