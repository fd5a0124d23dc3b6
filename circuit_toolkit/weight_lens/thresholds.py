"""Which contributions stand out: presets, own thresholds, and how far they reach."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from circuit_toolkit.arguments import number, one_of, whole
from circuit_toolkit.errors import InputError

# `code` is what the authors' released code does, `paper` what the paper states; a value in braces
# is by `config.model_type`, "" being every other. `robust` is ours,
# for vocabularies of some thousand words: of normal scores a quarter of one in 1,000 passes 3.5 by
# chance, and 60 of 256,000.
PRESETS: dict[str, dict[str, Any]] = {
    "code": {
        "theta_token": 5.5,
        "theta_feature": 4.0,
        "pool_tokens": 1000,
        "pool_features": 100,
        "robust": False,
        "upstream": {"gpt2": "first", "": "all"},
    },
    "paper": {
        "theta_token": {"gpt2": 4.0, "": 4.5},
        "theta_feature": 3.0,
        "pool_tokens": None,
        "pool_features": 100,
        "robust": False,
        "upstream": {"gpt2": "first", "": "all"},
    },
    "robust": {
        "theta_token": 3.5,
        "theta_feature": 3.5,
        "pool_tokens": None,
        "pool_features": None,
        "robust": True,
        "upstream": "all",
    },
}


@dataclass(frozen=True)
class Thresholds:
    """What stands out, for one model.

    Parameters
    ----------
    preset : str
        Where the values come from, unless they were given.
    theta_token, theta_feature : float
        A token, or a feature of an earlier layer, stands out from this z-score on.
    pool_tokens, pool_features : int or None
        z-scores are taken inside so many of the largest contributions; None: of all.
    robust : bool
        Median and median absolute deviation, in place of mean and standard deviation.
    upstream : {"first", "all"}
        Layers whose descriptions are inherited.
    slack : float
        What stands out by so much less is kept as well, so that thresholds can be moved later.
    """

    preset: str
    theta_token: float
    theta_feature: float
    pool_tokens: int | None
    pool_features: int | None
    robust: bool
    upstream: Literal["first", "all"]
    slack: float

    @property
    def floor_token(self) -> float:
        """The lowest threshold of tokens that needs no new run."""
        return self.theta_token - self.slack

    @property
    def floor_feature(self) -> float:
        """The lowest threshold of features that needs no new run."""
        return self.theta_feature - self.slack


def thresholds_for(
    preset: str, own: Mapping[str, Any], slack: float, model_type: str
) -> Thresholds:
    """Fill in a preset for a family of models."""
    one_of(preset, "preset", *PRESETS)
    known = {each.name for each in fields(Thresholds)} - {"preset", "slack"}
    values = {}
    for name in known:
        value = own.get(name, PRESETS[preset][name])
        if isinstance(value, dict):
            value = value.get(model_type, value[""])
        values[name] = None if value == "all" and name.startswith("pool") else value
    slack = number(slack, "slack", 0, math.inf)
    for name in ("theta_token", "theta_feature"):
        values[name] = number(values[name], name, -math.inf, math.inf)
        if not slack < values[name]:
            raise InputError(
                f"{name} must be above the slack, which is at least 0: got {values[name]} and "
                f"slack={slack}."
            )
    for name in ("pool_tokens", "pool_features"):
        if values[name] is not None:
            values[name] = whole(values[name], f"{name}, unless it is 'all',", 3)
    one_of(values["upstream"], "upstream", "first", "all")
    return Thresholds(preset=preset, slack=slack, **values)


def largest_group(n: int, theta: float) -> int:
    """Return how many equal outliers among n values can pass a threshold of z together.

    m equal outliers among n have z = sqrt((n - m) (n - 1) / (n m)), with the sample's standard
    deviation, however far out they are.

    Parameters
    ----------
    n : int
        Size of the pool.
    theta : float
        Threshold.

    Returns
    -------
    int
        0 where not even one can.

    Examples
    --------
    >>> largest_group(1000, 5.5), largest_group(32, 5.5)
    (31, 0)
    """
    if n < 2:
        return 0
    bound = n * (n - 1) / (theta**2 * n + n - 1)
    return max(0, int(bound) - (bound == int(bound)))


def reach(thresholds: Thresholds, n_tokens: int, n_features: int) -> dict[str, int | None]:
    """Return how many tokens and features can stand out together; warn where none can."""
    if thresholds.robust:
        return {"tokens": None, "features": None}
    found: dict[str, int | None] = {}
    for what, pool, n, theta in (
        ("tokens", thresholds.pool_tokens, n_tokens, thresholds.theta_token),
        ("features", thresholds.pool_features, n_features, thresholds.theta_feature),
    ):
        size = min(pool or n, n)
        found[what] = largest_group(size, theta)
        if not found[what]:
            warnings.warn(
                f"Among {size} {what} the largest z-score there can be is "
                f"{(size - 1) / size**0.5:.2f}, so none passes a threshold of {theta:g}: no "
                "description can come from them. Use preset='robust', or a lower threshold.",
                UserWarning,
                stacklevel=3,
            )
    return found
