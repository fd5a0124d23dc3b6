"""What the workers of a Dask cluster do for CircuitLasso: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.activations.store.shards import Shard, read_shard
from circuit_toolkit.circuit_lasso.estimator import TOL, CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.labels import sums_by_word
from circuit_toolkit.regression import (
    GramStatistics,
    LassoPath,
    LogisticPath,
    Screening,
    lasso_path,
    logistic_path,
)
from circuit_toolkit.sites import Site

Y = "target"  # beside the sites, in the columns of a fold


def is_file(path: Path) -> bool:
    """Whether this worker sees a file."""
    return path.is_file()


def same(part: Activations) -> Activations:
    """Return activations that were sent here."""
    return part


def pooled(path: Path, shard: Shard, settings: Mapping, positions: str) -> Activations:
    """Read a shard and reduce it to one row a prompt."""
    return read_shard(path, shard, settings).pooled(positions)


def by_word(path: Path, shard: Shard, settings: Mapping) -> Activations:
    """Sum a shard over equal tokens, as if these were one prompt: no label needs to know more."""
    part = read_shard(path, shard, settings)
    if (part.position == MEAN).any():
        return part  # which `feature_labels` refuses
    vocabulary: dict[str, int] = {}
    return Activations(
        features=sums_by_word(part, vocabulary),
        prompt=np.zeros(len(vocabulary), int),
        position=np.arange(len(vocabulary)),
        tokens=[list(vocabulary)],
        groups=np.zeros(1, int),
    )


def columns(
    parts: list[Activations], live: Mapping[Site, np.ndarray], y: np.ndarray, chosen: np.ndarray
) -> dict:
    """Chosen rows of the features that are alive, by site; of the target; and of no columns."""
    found: dict = {Y: y[chosen, None], None: np.zeros((np.count_nonzero(chosen), 0))}
    for site, features in live.items():
        rows = sp.csr_array(sp.vstack([part.features[site] for part in parts]))
        found[site] = rows[chosen][:, features]
    return found


def selected(moments: GramStatistics, x: Screening, y: Screening) -> GramStatistics:
    """Statistics of the features that were kept at two sites."""
    return moments.select(x=x.kept, y=y.kept)


def path(estimator: CircuitLasso, stats: GramStatistics, block: int, n: int) -> LassoPath:
    """Fit the targets of one block of n."""
    targets = np.array_split(np.arange(stats.xy.shape[1]), n)[block]
    some = stats.select(y=targets).standardised()
    return light(lasso_path(some, list(estimator.strengths), TOL))


def explained(
    estimator: CircuitLasso, screening: Screening, fitted: GramStatistics, held_out: GramStatistics
) -> tuple[LassoPath, np.ndarray]:
    """Fit the target; with its R² on the held-out rows, (k,)."""
    stats = fitted.select(x=screening.kept).standardised()
    found = lasso_path(stats, list(estimator.strengths), TOL)
    return light(found), found.held_out_r2(held_out.select(x=screening.kept))[:, 0]


def classified(
    estimator: CircuitLasso,
    screening: Screening,
    fitted: list[tuple[sp.csr_array, np.ndarray]],
    held_out: list[tuple[sp.csr_array, np.ndarray]],
) -> tuple[LogisticPath, np.ndarray]:
    """Fit a class, from parts of X and y; with its accuracy on the held-out rows, (k,)."""
    X, y = _stacked(fitted, screening)
    found = logistic_path(X, y, list(estimator.strengths))
    return found, found.held_out_accuracy(*_stacked(held_out, screening))


def _stacked(parts: list, screening: Screening) -> tuple[sp.csr_array, np.ndarray]:
    X = sp.csr_array(sp.vstack([x for x, _ in parts]))
    return X[:, screening.kept], np.concatenate([y[:, 0] for _, y in parts])


@dataclass(frozen=True, eq=False)
class Absent:
    """A matrix that stayed on the workers, where each of 16,384 features takes 2 GiB."""

    shape: tuple[int, ...]
    own: np.ndarray | None = None

    def diagonal(self) -> np.ndarray | None:
        """Return the diagonal: scales of features are made from it."""
        return self.own

    def __getitem__(self, _: Any) -> Any:
        """Refuse to give a part."""
        raise InputError(
            "The second moments of this path stayed on the workers. Put the strength among "
            "CircuitLasso(strengths=...), or fit without client=."
        )


def light(path: LassoPath) -> LassoPath:
    """Leave the second moments where they are."""
    stats = path.stats
    xx: Any = Absent(stats.xx.shape, stats.xx.diagonal().copy())
    xy: Any = Absent(stats.xy.shape)
    return replace(path, stats=replace(stats, xx=xx, xy=xy))


def side_by_side(blocks: list[LassoPath]) -> LassoPath:
    """Put light paths of blocks of targets together."""
    stats = [block.stats for block in blocks]
    yy = np.concatenate([each.yy for each in stats])
    xy: Any = Absent((len(stats[0].mean_x), len(yy)))
    tables = ("alphas", "gap", "kkt", "converged", "r2")
    return replace(
        blocks[0],
        **{name: np.hstack([getattr(block, name) for block in blocks]) for name in tables},
        coefficients=tuple(
            sp.csc_array(sp.hstack(each))
            for each in zip(*(block.coefficients for block in blocks), strict=True)
        ),
        stats=replace(
            stats[0], mean_y=np.concatenate([each.mean_y for each in stats]), yy=yy, xy=xy
        ),
    )
