"""Change: what is done to features, heads or a whole site, and on which tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

How = Literal["set", "add", "scale", "resample"]
PER_HEAD = {"attn_z": 2, "head_out": 2, "attn_pattern": 1}  # kind of site -> axis of the heads


@dataclass(frozen=True, eq=False)
class Change:
    """One change of what a model computes; `zero`, `put`, `add`, `scale`, `resample` make them.

    Parameters
    ----------
    site : Site
        Where; for features the site that their dictionary reads.
    how : {"set", "add", "scale", "resample"}
        Set to a value, add it, multiply by it, or take over what the corrupted prompt has there.
    value : float or array, optional
        One number, or one for each feature; for heads one vector each; else a vector, shape (D,).
        Features are in their own units.
    features : ndarray of int, optional
        Which features of the dictionary at the site. What it leaves unexplained is kept.
    heads : ndarray of int, optional
        Which heads, at a site that is per head.
    positions : str or int
        `all` tokens but the beginning-of-sequence token; the `last`; a position that the task
        names; or the index of a token, counted from the end (-1 is the last).
    """

    site: Site
    how: How
    value: Any = None
    features: np.ndarray | None = None
    heads: np.ndarray | None = None
    positions: str | int = "all"


def change(
    site: Site | str,
    how: How,
    value: Any = None,
    *,
    features: Sequence[int] | np.ndarray | None = None,
    heads: Sequence[int] | np.ndarray | None = None,
    positions: str | int = "all",
) -> Change:
    """Make a `Change`, its parts checked; see there.

    Parameters
    ----------
    site : Site or str
        Where.
    how : {"set", "add", "scale", "resample"}
        What is done.
    value : float or array, optional
        With what; nothing to resample.
    features, heads : sequence of int, optional
        Units, one kind of the two; by default the whole site.
    positions : str or int
        On which tokens.

    Returns
    -------
    Change

    Raises
    ------
    InputError
        If both kinds of units are given, heads at a site without, or a value is missing or NaN.
    """
    site = Site.parse(site)
    if features is not None and heads is not None:
        raise InputError("A change is of features or of heads, not of both: pass two changes.")
    if heads is not None and site.kind not in PER_HEAD:
        raise InputError(
            f"{site} is not per head: use attn_z, head_out or attn_pattern {site.layer}."
        )
    if how not in ("set", "add", "scale", "resample"):
        raise InputError(f"Unknown change {how!r}: use 'set', 'add', 'scale' or 'resample'.")
    if (value is None) != (how == "resample"):
        article = "no" if how == "resample" else "a"
        raise InputError(f"A change that is to {how} takes {article} value.")
    if value is not None and not np.isfinite(np.asarray(_plain(value), dtype=float)).all():
        raise InputError(f"The value to {how} at {site} holds NaN or infinity.")
    return Change(site, how, value, _indices(features), _indices(heads), positions)


def _plain(value: Any) -> Any:
    return value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value


def _indices(units: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    if units is None:
        return None
    array = np.atleast_1d(np.asarray(units))
    if array.dtype.kind not in "iu" and len(array):
        raise InputError(f"Units are whole numbers, got {units!r:.80}.")
    return array.astype(np.int64)


def zero(site: Site | str, **units: Any) -> Change:
    """Set to zero; `features`, `heads` and `positions` as in `change`.

    Parameters
    ----------
    site : Site or str
        Where.
    **units
        See `change`.

    Returns
    -------
    Change

    Examples
    --------
    >>> zero("head_out 3", heads=[1, 5]).heads.tolist()
    [1, 5]
    """
    return change(site, "set", 0.0, **units)


def mean_ablation(
    acts: Activations, features: Mapping[Site, np.ndarray], *, complement: bool = False
) -> list[Change]:
    """Replace features by their mean over captured rows.

    Parameters
    ----------
    acts : Activations
        Where the means come from, and at which positions they hold.
    features : dict of Site to ndarray of int
        Features at each site, as `Circuit.features` gives them.
    complement : bool
        Replace all others at the sites of `acts` instead.

    Returns
    -------
    list of Change
        One a site, in order of computation.

    Raises
    ------
    InputError
        If a site was not captured, or a feature does not exist.
    """
    means = acts.means()
    for site, chosen in features.items():
        if site not in means:
            known = ", ".join(map(str, means))
            raise InputError(f"{site} was not captured, only {known}.")
        if len(chosen) and not 0 <= np.min(chosen) <= np.max(chosen) < len(means[site]):
            raise InputError(f"{site} has features 0 to {len(means[site]) - 1}: {chosen}.")
    captured = acts.settings.get("positions", "all")
    positions = "all" if captured == "mean" else captured  # a mean over tokens holds for each
    changes = []
    for site, mean in means.items():
        mask = np.zeros(len(mean), dtype=bool)
        mask[np.asarray(features.get(site, []), dtype=int)] = True
        units = np.flatnonzero(~mask if complement else mask)
        if len(units):
            changes.append(Change(site, "set", mean[units], units, positions=positions))
    return changes


def check(model: Model, dictionaries: Mapping[Site, Dictionary], item: Change) -> None:
    """Refuse a change that does not fit model and dictionaries."""
    model.check_site(item.site)
    if item.features is not None and item.site not in dictionaries:
        known = ", ".join(map(str, dictionaries)) or "none"
        raise InputError(f"No dictionary was given for {item.site}, only for {known}.")
    of_features = item.features is not None
    units = item.features if of_features else item.heads
    if units is None or not len(units):
        return
    size = dictionaries[item.site].n_features if of_features else model.n_heads
    if not 0 <= units.min() <= units.max() < size:
        what = "features" if of_features else "heads"
        raise InputError(
            f"{item.site} has {what} 0 to {size - 1}, not {units.min()} to {units.max()}."
        )
    given = np.shape(_plain(item.value))
    if given and given[0] not in (1, len(units)):
        raise InputError(f"{len(units)} units at {item.site} need as many values, got {given[0]}.")
