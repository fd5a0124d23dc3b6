"""VirtualWeights: weights between features as one table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

WEIGHT = np.dtype(
    [
        ("source_site", "i2"),  # place in `sites`
        ("source", "i4"),
        ("target_site", "i2"),
        ("target", "i4"),
        ("kind", "i2"),  # place in `kinds`
        ("weight", "f4"),
    ]
)


@dataclass(frozen=True, eq=False)
class VirtualWeights:
    """Weights between features, a row a pair.

    Parameters
    ----------
    rows : ndarray, shape (n,), dtype WEIGHT
        Source, target, weight, and what kind of weight it is.
    sites : tuple of Site
        Where the features are: of the sites that their dictionaries read.
    kinds : tuple of str
        `direct`, heads such as `a1.h3`, `era` or `twera`.
    """

    rows: np.ndarray
    sites: tuple[Site, ...]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Size and kinds; not the rows."""
        kinds = sorted({self.kinds[k] for k in np.unique(self.rows["kind"])})
        shown = ", ".join([*kinds[:4], *(["..."] if len(kinds) > 4 else [])])
        return f"VirtualWeights({len(self)} rows at {len(self.sites)} sites: {shown})"

    def names(self, side: Literal["source", "target"]) -> list[str]:
        """Return names of features, as circuits have them: `blocks.3.hook_resid_post/17`.

        Parameters
        ----------
        side : {"source", "target"}
            Of which end.

        Returns
        -------
        list of n str
        """
        places = self.rows[f"{side}_site"].tolist(), self.rows[side].tolist()
        return [f"{self.sites[place]}/{index}" for place, index in zip(*places, strict=True)]

    def top(self, n: int) -> VirtualWeights:
        """Keep the strongest rows, whatever their sign, the strongest first.

        Parameters
        ----------
        n : int
            At most so many.

        Returns
        -------
        VirtualWeights
        """
        order = np.argsort(-np.abs(self.rows["weight"]), kind="stable")[:n]
        return replace(self, rows=self.rows[order])

    def into(self, site: Site | str, feature: int) -> VirtualWeights:
        """Keep the weights into one feature.

        Parameters
        ----------
        site : Site or str
            Where it is.
        feature : int
            Which.

        Returns
        -------
        VirtualWeights
        """
        return self._end("target", site, feature)

    def out_of(self, site: Site | str, feature: int) -> VirtualWeights:
        """Keep the weights out of one feature.

        Parameters
        ----------
        site : Site or str
            Where it is.
        feature : int
            Which.

        Returns
        -------
        VirtualWeights
        """
        return self._end("source", site, feature)

    def _end(self, side: str, site: Site | str, feature: int) -> VirtualWeights:
        site = Site.parse(site)
        place = self.sites.index(site) if site in self.sites else -1
        mine = (self.rows[f"{side}_site"] == place) & (self.rows[side] == feature)
        return replace(self, rows=self.rows[mine])

    def table(self) -> pd.DataFrame:
        """Return all rows for reading.

        Returns
        -------
        DataFrame with n rows
            Names of both ends, weight, kind.
        """
        import pandas as pd

        kinds = [self.kinds[kind] for kind in self.rows["kind"].tolist()]
        columns = {"source": self.names("source"), "target": self.names("target")}
        return pd.DataFrame(columns | {"weight": self.rows["weight"], "kind": kinds})
