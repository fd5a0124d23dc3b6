"""Refuse numbers of the user's that cannot be, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError


def check_whole(name: str, value: Any, least: int, *, other: str = "") -> None:
    """Refuse what is no whole number, or too small a one.

    Parameters
    ----------
    name : str
        What it is a value of.
    value : object
        What was given.
    least : int
        The smallest that will do.
    other : str
        What else may be passed, such as `, or 'all'`.

    Raises
    ------
    InputError
        If it will not do.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(
            f"{name} must be at least {least} and a whole number{other}, got {value!r:.80}."
        )


def check_number(name: str, value: Any) -> None:
    """Refuse what is no number, NaN included.

    Parameters
    ----------
    name : str
        What it is a value of.
    value : object
        What was given.

    Raises
    ------
    InputError
        If it will not do.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise InputError(f"{name} must be a number, got {value!r:.80}.")


def feature_numbers(features: Sequence[int] | np.ndarray | int) -> np.ndarray:
    """Give numbers of features as an array.

    Parameters
    ----------
    features : int or sequence of int
        What was given.

    Returns
    -------
    ndarray of int64, shape (k,)

    Raises
    ------
    InputError
        If one is no whole number.
    """
    found = np.atleast_1d(np.asarray(features))
    if found.size and (found.ndim > 1 or found.dtype.kind not in "iu"):
        raise InputError(f"Features are whole numbers such as [3, 17], got {features!r:.80}.")
    return found.astype(np.int64)
