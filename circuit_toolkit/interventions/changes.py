"""Change: what is done to features, heads or a whole site, and on which tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import described, expect, expect_known, is_a, one_of, whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

How = Literal["put", "add", "scale", "resample"]
PER_HEAD = {"attn_z": 2, "head_out": 2, "attn_pattern": 1}  # kind of site -> axis of the heads


@dataclass(frozen=True, eq=False)
class Change:
    """One change of what a model computes; `zero`, `put`, `add`, `scale`, `resample` make them.

    Parameters
    ----------
    site : Site or str
        Where; for features the site that their dictionary reads.
    how : {"put", "add", "scale", "resample"}
        Put a value there, add it, multiply by it, or take over what the corrupted prompt has.
    value : float or array, optional
        One number for all units, or one for each feature; for heads one vector each; else a
        vector, shape (D,). Features are in their own units. None to resample.
    features : int or sequence of int, optional
        Which features of the dictionary at the site. What it leaves unexplained is kept.
    heads : int or sequence of int, optional
        Which heads, at a site that is per head. By default the whole site is changed.
    positions : str or int
        `all` tokens but the beginning-of-sequence token; the `last`; a position that the task
        names; or the number of a token, from 0, which is the beginning-of-sequence token where
        there is one, or from the end (-1 is the last).

    Raises
    ------
    InputError
        If both features and heads are given, heads at a site without, or a value is missing, no
        number or NaN.
    """

    site: Site
    how: How
    value: Any = None
    features: np.ndarray | None = None
    heads: np.ndarray | None = None
    positions: str | int = "all"

    def __post_init__(self) -> None:
        """Take sites by name and integers of any kind; refuse parts that do not go together."""
        site, where = Site.parse(self.site), self.positions
        where = where if isinstance(where, str) else whole(where, "positions")
        object.__setattr__(self, "site", site)
        object.__setattr__(self, "positions", where)
        for name in ("features", "heads"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _indices(getattr(self, name)))
        if self.features is not None and self.heads is not None:
            raise InputError("A change is of features or of heads, not of both: pass two changes.")
        if self.heads is not None and site.kind not in PER_HEAD:
            raise InputError(
                f"{site} is not per head: use attn_z, head_out or attn_pattern {site.layer}."
            )
        one_of(self.how, "how", "put", "add", "scale", "resample")
        if (self.value is None) != (self.how == "resample"):
            article = "no" if self.how == "resample" else "a"
            raise InputError(f"To {self.how} takes {article} value.")
        if self.value is not None and not _is_finite(self.value):
            raise InputError(
                f"The value to {self.how} at {site} must be numbers, without NaN or infinity, got "
                f"{described(self.value)}."
            )


def _is_finite(value: Any) -> bool:
    try:
        return bool(np.isfinite(np.asarray(_as_array(value), dtype=float)).all())
    except (TypeError, ValueError):
        return False


def _as_array(value: Any) -> Any:
    return value.detach().cpu().float().numpy() if isinstance(value, Tensor) else value


def _indices(units: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(units.cpu() if isinstance(units, Tensor) else units))
    if (array.dtype.kind not in "iu" and len(array)) or array.ndim > 1:
        raise InputError(f"Units are whole numbers, got {units!r:.80}.")
    return array.astype(np.int64)


def zero(site: Site | str, **units: Any) -> Change:
    """Set to zero.

    Parameters
    ----------
    site, **units
        Where; and `features`, `heads`, `positions`, as in `Change`.

    Returns
    -------
    Change

    Examples
    --------
    >>> zero("head_out 3", heads=[1, 5]).heads.tolist()
    [1, 5]
    """
    return Change(Site.parse(site), "put", 0.0, **units)


def put(site: Site | str, value: Any, **units: Any) -> Change:
    """Set to a value.

    Parameters
    ----------
    site, value, **units
        As in `Change`.

    Returns
    -------
    Change
    """
    return Change(Site.parse(site), "put", value, **units)


def add(site: Site | str, value: Any, **units: Any) -> Change:
    """Add a value, such as a direction.

    Parameters
    ----------
    site, value, **units
        As in `Change`.

    Returns
    -------
    Change
    """
    return Change(Site.parse(site), "add", value, **units)


def scale(site: Site | str, factor: Any, **units: Any) -> Change:
    """Multiply by a factor.

    Parameters
    ----------
    site, factor, **units
        As in `Change`, with the factor as its value.

    Returns
    -------
    Change
    """
    return Change(Site.parse(site), "scale", factor, **units)


def resample(site: Site | str, **units: Any) -> Change:
    """Take over what the corrupted prompt has there; `intervene` knows it, for a task.

    Parameters
    ----------
    site, **units
        As in `zero`.

    Returns
    -------
    Change
    """
    return Change(Site.parse(site), "resample", **units)


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
    expect(acts, "acts", "Activations")
    if not isinstance(features, Mapping):
        raise InputError(
            f"features must be a dict of sites to features, got {described(features)}. Of a "
            "circuit pass circuit.features."
        )
    means, chosen = acts.means(), {Site.parse(site): each for site, each in features.items()}
    for site, each in chosen.items():
        expect_known(site, means, f"{site} was not captured")
        chosen[site] = each = _indices(each)
        if len(each) and not 0 <= each.min() <= each.max() < len(means[site]):
            raise InputError(f"{site} has features 0 to {len(means[site]) - 1}: {each}.")
    captured = acts.settings.get("positions", "all")
    positions = "all" if captured == "mean" else captured  # a mean over tokens holds for each
    changes = []
    for site, mean in means.items():
        mask = np.zeros(len(mean), dtype=bool)
        mask[chosen.get(site, [])] = True
        units = np.flatnonzero(~mask if complement else mask)
        if len(units):
            changes.append(Change(site, "put", mean[units], units, positions=positions))
    return changes


def as_changes(
    model: Model, dictionaries: Mapping[Site, Dictionary], given: Change | Iterable[Change]
) -> list[Change]:
    """Return one change or several as a list; refuse what does not fit model and dictionaries."""
    alone = is_a(given, "Change")
    if not alone and (isinstance(given, str) or not isinstance(given, Iterable)):
        raise InputError(
            f"changes must be a list of changes, got {described(given)}. Pass some such as "
            "zero('head_out 3', heads=[1])."
        )
    changes: list[Change] = [given] if alone else list(given)  # pyright: ignore
    for item in changes:
        expect(item, "changes", "Change")
        _check_fits(model, dictionaries, item)
    return changes


def _check_fits(model: Model, dictionaries: Mapping[Site, Dictionary], item: Change) -> None:
    model.check_site(item.site)
    of_features = item.features is not None
    if of_features:
        expect_known(item.site, dictionaries, f"No dictionary was given for {item.site}")
    units = item.features if of_features else item.heads
    if units is None or not len(units):
        return
    size = dictionaries[item.site].n_features if of_features else model.n_heads
    if not 0 <= units.min() <= units.max() < size:
        what = "features" if of_features else "heads"
        raise InputError(
            f"{item.site} has {what} 0 to {size - 1}, not {units.min()} to {units.max()}."
        )
    values = np.shape(_as_array(item.value))
    if values and values[0] not in (1, len(units)):
        raise InputError(f"{len(units)} units at {item.site} need as many values, got {values[0]}.")
