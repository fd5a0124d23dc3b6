"""Sites read as they are: their own coordinates in the place of a dictionary's features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from circuit_toolkit.arguments import expect
from circuit_toolkit.models import RAW, Conventions, Model
from circuit_toolkit.sites import KINDS, Site


@dataclass(frozen=True)
class Coordinates:
    """The coordinates of a site, encoded by nothing; stands where a capture wants a `Dictionary`.

    Parameters
    ----------
    site : Site
        Where they are read.
    shape : tuple of int
        Of one token there. Where that is not one axis, as at `head_out` (H, D), coordinates are in
        a row: all of head 0, then all of head 1, ...
    """

    site: Site
    shape: tuple[int, ...]
    name: ClassVar[str] = "coordinates"
    conventions: ClassVar[Conventions] = RAW

    @property
    def out(self) -> Site:
        """Where they belong: the site itself."""
        return self.site

    @property
    def n_features(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    def encode(self, x: Tensor) -> Tensor:
        """Put the coordinates of every token in a row.

        Parameters
        ----------
        x : Tensor, shape (..., *shape)
            As `run` gives them.

        Returns
        -------
        Tensor, shape (..., F)
            In float32.
        """
        return x.detach().float().flatten(x.ndim - len(self.shape))


def coordinates(model: Model, sites: str | Site | Sequence[Site | str]) -> dict[Site, Coordinates]:
    """Return the coordinates of sites, to be captured in the place of features.

    Parameters
    ----------
    model : Model
        The model.
    sites : str, Site, or sequence of Site or str
        A kind of site, which means all layers (`"head_out"`), or the sites, or names of them.

    Returns
    -------
    dict of Site to Coordinates
        In order of computation.

    Raises
    ------
    InputError
        If the model lacks a site, or it holds no activation of a token.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> list(map(str, coordinates(ct.load_model("demo"), ["resid_mid 1"])))
    ['blocks.1.hook_resid_mid']
    """
    expect(model, "model", "Model")
    if isinstance(sites, str) and sites in KINDS and sites not in ("embed", "logits"):
        chosen = [Site(sites, layer) for layer in range(model.n_layers)]
    else:
        chosen = [
            Site.parse(each) for each in ([sites] if isinstance(sites, str | Site) else sites)
        ]
    return {site: Coordinates(site, model.shape_at(site)) for site in sorted(set(chosen))}
