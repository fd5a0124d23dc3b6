"""Refuse numbers of the user's that cannot be, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from circuit_toolkit.errors import InputError


def check_whole(name: str, value: Any, least: int, *, other: str = "") -> None:
    """Refuse what is no whole number, or too small a one."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(
            f"{name} must be at least {least} and a whole number{other}, got {value!r:.80}."
        )


def check_number(name: str, value: Any) -> None:
    """Refuse what is no number, NaN included."""
    if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
        raise InputError(f"{name} must be a number, got {value!r:.80}.")


def feature_numbers(features: Sequence[int] | np.ndarray | int) -> np.ndarray:
    """Return numbers of features as an array."""
    found = np.atleast_1d(np.asarray(features))
    if found.size and (found.ndim > 1 or found.dtype.kind not in "iu"):
        raise InputError(f"Features are whole numbers such as [3, 17], got {features!r:.80}.")
    return found.astype(np.int64)
