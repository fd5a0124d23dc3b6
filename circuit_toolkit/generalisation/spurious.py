"""Which features tell a label, and which of them are about something else.

By CircuitLasso, and as SHIFT ranks them: by integrated gradients of a classifier (Marks et al.,
2024).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Batch, Model, run, token_mask
from circuit_toolkit.regression import logistic_path
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices

STRENGTHS = (1.0, 0.45, 0.22, 0.1)  # where circuits are read by default, which counts, and a way
KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post")  # that gradients are taken at
DENSE = 2**25  # numbers in a matrix of 256 MB


@dataclass(frozen=True, eq=False)
class Ranking:
    """Features in the order in which somebody should look at them."""

    sites: tuple[Site, ...]
    features: np.ndarray
    scores: np.ndarray
    seconds: float

    @classmethod
    def of(cls, found: Sequence[tuple[Site, int, float]], seconds: float) -> Ranking:
        """Make it of triples."""
        return cls(
            tuple(site for site, _, _ in found),
            np.array([feature for _, feature, _ in found], dtype=int),
            np.array([score for _, _, score in found], dtype=float),
            seconds,
        )

    def __len__(self) -> int:
        """Return the number of features."""
        return len(self.features)

    def __repr__(self) -> str:
        """Return how many features at which sites; not the features."""
        where = ", ".join(site.short for site in sorted(set(self.sites)))
        return f"Ranking({len(self)} features at {where or 'no site'}, {self.seconds:.2f} s)"

    def those_in(self, judged: Mapping[Site, Collection[int]]) -> dict[Site, np.ndarray]:
        """Keep the features that were judged to be the wrong ones."""
        wrong = {site: set(map(int, features)) for site, features in judged.items()}
        pairs = sorted(zip(self.sites, self.features.tolist(), strict=True))
        kept = [(site, feature) for site, feature in pairs if feature in wrong.get(site, ())]
        return {
            site: np.array([feature for at, feature in kept if at == site])
            for site in dict.fromkeys(site for site, _ in kept)
        }

    def table(self, labels: Mapping[Site, Sequence[str]] | None = None):
        """Show the ranking."""
        import pandas as pd

        columns = {
            "site": [site.short for site in self.sites],
            "feature": self.features,
            "score": self.scores,
        }
        if labels:
            pairs = zip(self.sites, self.features.tolist(), strict=True)
            columns["label"] = [labels[site][feature] for site, feature in pairs]
        return pd.DataFrame(columns)


def rank_by_lasso(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    target: np.ndarray,
    *,
    n: int = 100,
    min_active: int = 10,
) -> Ranking:
    """Rank features by their weight in CircuitLasso's regression of a label.

    Of features that tell the label equally well the lasso takes one and leaves the others at
    zero, as they add nothing to it. So those that have a weight are set aside and the others are
    fitted again, until there are enough; the first fit alone is what the paper ranks by.

    Features are means over the tokens of a text; those that fire on fewer than `min_active` texts
    are left out. The label is regressed on each site by itself. The score is the absolute weight
    per standard deviation; at most n features are ranked, by fit, then by score.
    """
    began = time.perf_counter()
    acts = capture(model, dictionaries, task.clean, "mean", progress=False)
    left = {
        site: np.flatnonzero(np.bincount(acts.features[site].indices) >= min_active)
        for site in dictionaries
    }
    found: list[tuple[Site, int, float]] = []
    while len(found) < n and any(map(len, left.values())):
        this_fit = []
        for site, features in left.items():
            if len(features):
                weights = _weights(acts.features[site][:, features], target)
                live = np.flatnonzero(weights)
                this_fit += [(site, int(features[i]), float(weights[i])) for i in live]
                left[site] = np.delete(features, live) if len(live) else features[:0]
        found += sorted(this_fit, key=lambda each: (-each[2], each[0], each[1]))
    return Ranking.of(found[:n], time.perf_counter() - began)


def _weights(X: Any, y: np.ndarray) -> np.ndarray:
    """Absolute standardised weights (p,) at the weakest strength."""
    # Means over tokens are seldom sparse enough for sparse products to be the faster ones.
    path = logistic_path(X.toarray() if np.prod(X.shape) < DENSE else X, y, list(STRENGTHS))
    return abs(path.standardised(-1).toarray().ravel())


def rank_by_gradients(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: Task,
    *,
    reader: Dictionary,
    weights: np.ndarray,
    signs: np.ndarray,
    n: int = 100,
    steps: int = 10,
    batch_size: int = 128,
    progress: bool = False,
) -> Ranking:
    """Rank features by integrated gradients to zero, through model and classifier."""
    for each in (*dictionaries.values(), reader):
        if each.site.kind not in KINDS or each.kind != "sae" or each.needs_input:
            raise InputError(
                f"Integrated gradients need autoencoders at {', '.join(KINDS)} that scale no "
                f"activation by its own norm; {each.name!r} is a {each.kind} at {each.site}."
            )
    began = time.perf_counter()
    support = {where: torch.zeros(each.n_features) for where, each in dictionaries.items()}
    texts = task.clean
    column = torch.as_tensor(weights, dtype=torch.float32)
    bos = shared_bos([*dictionaries.values(), reader])
    for rows in row_slices(len(texts), batch_size, progress, "gradients"):
        batch = model.tokenize(texts[rows], bos=bos)
        mask = token_mask(model, batch)
        share = mask / mask.sum(1, keepdim=True)  # (B, T)
        sign = torch.as_tensor(signs[rows], dtype=torch.float32)
        # What the margin would gain by each token's features.
        value = share * sign.to(share.device)[:, None]
        plain = run(model, batch, list(dictionaries))
        for where, dictionary in dictionaries.items():
            z = dictionary.encode(plain[where])  # (B, T, F)
            if where == reader.site:  # the classifier reads them, so the gradient is the weight
                gain = (z * value[..., None].to(z.device)).sum((0, 1)).cpu() * column
            else:
                slope = torch.zeros(())
                for step in range(steps):
                    removed = (1 - (step + 0.5) / steps) * dictionary.difference(
                        z * 0, z * mask[..., None].to(z.device)
                    )
                    slope = slope + _slope(model, batch, where, removed, reader, column, value)
                rows = dictionary.writes.revert_difference(dictionary.directions)  # (F, D)
                along = (slope / steps) @ rows.T  # (B, T, F)
                gain = (z * mask[..., None] * along).sum((0, 1)).cpu()
            support[where] += gain / len(texts)
    triples = [
        (where, int(f), float(each[f]))
        for where, each in support.items()
        for f in torch.nonzero(each > 0)
    ]
    found = sorted(triples, key=lambda each: -each[2])
    return Ranking.of(found[:n], time.perf_counter() - began)


def _slope(
    model: Model,
    batch: Batch,
    where: Site,
    removed: Tensor,
    reader: Dictionary,
    column: Tensor,
    value: Tensor,
) -> Tensor:
    """Gradient (B, T, D) of the summed margins with respect to a site, from which is taken."""
    leaves: list[Tensor] = []

    def less(x: Tensor) -> Tensor:
        leaves.append((x.detach() - removed.to(x)).requires_grad_())
        return leaves[0]

    x = run(model, batch, [reader.site], {where: less}, grad=True)[reader.site]
    with torch.enable_grad():
        acts = reader.encode_for_gradients(x)  # (B, T, F)
        margin = ((acts @ column.to(acts)) * value.to(acts)).sum()
    return torch.autograd.grad(margin, leaves[0])[0].float()


def features_with(
    acts: Activations,
    first: Collection[str],
    second: Collection[str],
    min_correlation: float = 0.2,
) -> dict[Site, np.ndarray]:
    """Find the features that go with words of two opposite lists, such as she and he."""
    rows = acts.pooled("mean")
    lists = [{word.lower() for word in each} for each in (first, second)]
    spoken = [{word.strip().lower() for word in words} for words in rows.tokens]
    side = np.array([bool(words & lists[0]) - bool(words & lists[1]) for words in spoken])
    chosen = np.flatnonzero(side)
    if min((side > 0).sum(), (side < 0).sum()) < 10:
        raise InputError(
            f"{(side > 0).sum()} texts have words of the first list alone and {(side < 0).sum()} "
            "of the second: at least 10 of each are needed."
        )
    found = {}
    for site, matrix in rows.features.items():
        X = matrix[chosen].toarray().astype(float)
        live = np.flatnonzero(X.std(0) > 1e-9)
        r = np.corrcoef(np.column_stack([side[chosen], X[:, live]]).T)[0, 1:]
        found[site] = live[abs(r) >= min_correlation]
    return found
