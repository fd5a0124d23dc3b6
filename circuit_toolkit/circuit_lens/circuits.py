"""What CircuitLens found: activating examples, what stands out in each, and clusters of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.circuit_lens.clusters import (
    cluster_card,
    cluster_labels,
    common_elements,
    explanation_prompt,
    jaccard_distances,
)
from circuit_toolkit.circuit_lens.settings import WITHOUT_A_RUN, LensSettings
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.explainer import Explainer, as_explainer

if TYPE_CHECKING:
    import pandas as pd

TEXTS = 5  # examples of each cluster


@dataclass(frozen=True, eq=False)
class FeatureCircuits:
    """Activating examples of a feature, what contributes to each, and clusters of alike ones.

    Parameters
    ----------
    feature : str
        Site and number.
    lens : CircuitLens
        How it was made.
    table : DataFrame
        A row an example: `prompt`, `position`, `token`, `activation`, `pre_activation`, `error`
        and `origins_error` (by how much the sums of contributions miss the activation, as a share).
    elements : DataFrame
        Contributions whose z-score exceeds the smallest threshold that can be asked for: `example`,
        `element` (`a1.h3 -4` for a head and an offset, `blocks.0.ln2.hook_normalized/17`),
        `layer`, `head`, `feature`, `offset`, `contribution`, `z`.
    outputs : DataFrame
        Tokens that follow: `example`, `step`, `token`, `contribution` to its logit, `z` among what
        is added to the logits of all tokens.
    words : list of list of str
        Tokens of each prompt, as far as they were looked at.
    values : list of ndarray
        Activation of the feature on these.
    descriptions : object, optional
        `.of(site, feature)["words"]` gives words for an upstream feature.
    about : dict
        Model, number of prompts.
    """

    feature: str
    lens: LensSettings
    table: pd.DataFrame
    elements: pd.DataFrame
    outputs: pd.DataFrame
    words: Sequence[Sequence[str]]
    values: Sequence[np.ndarray]
    descriptions: Any = None
    about: Mapping[str, Any] | None = None

    @cached_property
    def standing_out(self) -> pd.DataFrame:
        """Rows of `elements` that exceed the thresholds."""
        is_head = self.elements["head"] >= 0
        theta = np.where(is_head, self.lens.theta_head, self.lens.theta_feature)
        return self.elements.loc[self.elements["z"].to_numpy() > theta]

    @cached_property
    def sets(self) -> list[frozenset[str]]:
        """What stands out in each example, rare elements dropped."""
        found = self.standing_out.groupby("example")["element"].agg(frozenset).to_dict()
        sets = [found.get(i, frozenset()) for i in range(len(self.table))]
        return common_elements(sets, self.lens.rho)

    @cached_property
    def distances(self) -> np.ndarray:
        """Jaccard distances between sets, shape (n, n)."""
        return jaccard_distances(self.sets)

    @cached_property
    def labels(self) -> np.ndarray:
        """Cluster of each example, -1 for noise; the largest is 0."""
        lens = self.lens
        return cluster_labels(self.sets, self.distances, eps=lens.eps, min_samples=lens.min_samples)

    @cached_property
    def examples(self) -> pd.DataFrame:
        """The examples with their clusters: `table` and a column `cluster`."""
        return self.table.assign(cluster=self.labels)

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """What each cluster has in common, the largest first; noise is no cluster.

        Each with `label`, `size`, `share` (of all examples), `description` and, with the share of
        its examples: `tokens` (where it fires), `offsets` (how far heads look back), `heads` (each
        with the words that it reads), `upstream` (features), `outputs` (tokens that it promotes);
        `examples` with `tokens`, `values` and `position`.
        """
        rows, at = self.standing_out, self.table["position"].to_numpy()
        pairs = zip(rows["example"], rows["element"], strict=True)
        rows = rows.loc[[element in self.sets[example] for example, element in pairs]]
        offsets = zip(rows["example"], rows["offset"], strict=True)
        rows = rows.assign(
            name=[element.partition(" ")[0] for element in rows["element"]],
            reads=[self.words[i][at[i] + offset] for i, offset in offsets],
        )
        promoted = self.outputs.loc[
            (self.outputs["contribution"] > 0) & (self.outputs["z"] > self.lens.theta_output)
        ]
        table, found = self.table.assign(example=range(len(self.table))), []
        all_parts = (table, rows, promoted)
        for label in range(self.labels.max(initial=-1) + 1):
            mine = self.labels == label
            size = {"label": label, "size": int(mine.sum()), "share": float(mine.mean())}
            parts = [part.loc[mine[part["example"].to_numpy(int)]] for part in all_parts]
            card = cluster_card(parts[0], parts[1], parts[2], self._upstream_words)
            found.append({**size, **card, "examples": self._texts(np.flatnonzero(mine))})
        return found

    def _upstream_words(self, feature: str) -> list[str]:
        """Return words for an upstream feature; none where it was not described."""
        if self.descriptions is None:
            return []
        site, _, index = feature.rpartition("/")
        try:
            return list(self.descriptions.of(site, int(index))["words"])
        except InputError:  # descriptions of some layers only: it is called by its name
            return []

    def _texts(self, members: np.ndarray) -> list[dict[str, Any]]:
        """Return the strongest examples of a cluster."""
        strength, found = self.table["activation"].to_numpy()[members], []
        for i in members[np.argsort(-strength, kind="stable")][:TEXTS]:
            at = int(self.table["position"].iloc[i])
            # whether a text goes on is known of all but the last token that was looked at
            stop = at + max(1, self.lens.n_outputs)
            found.append(
                {
                    "tokens": list(self.words[i][:stop]),
                    "values": self.values[i][:stop].tolist(),
                    "position": at,
                    "after": not self.lens.n_outputs or len(self.words[i]) > stop,
                }
            )
        return found

    def at(self, **settings: float) -> FeatureCircuits:
        """Choose and cluster anew, without a run of the model.

        Parameters
        ----------
        **settings
            `eps`, `min_samples`, `rho`, `theta_head`, `theta_feature`, `theta_output`.

        Returns
        -------
        FeatureCircuits

        Raises
        ------
        InputError
            If a setting is out of range, or takes a run.
        """
        if other := sorted(settings.keys() - set(WITHOUT_A_RUN)):
            raise InputError(
                f"{', '.join(other)} cannot be changed without a run: analyse again. Free are "
                f"{', '.join(sorted(WITHOUT_A_RUN))}."
            )
        return replace(self, lens=replace(self.lens, **settings))

    def explained(self, explainer: Explainer | Callable[[str], str]) -> dict[int, str]:
        """Let an explainer put each cluster into words.

        Parameters
        ----------
        explainer : Explainer or callable
            From a text, what is known of a cluster, to a text. Cost and first prompt are shown
            before. An `Explainer` has a limit, and keeps its answers: after an error pass the same
            again to go on. A bare callable is called once for each cluster, and its answers are
            gone if one call fails.

        Returns
        -------
        dict of int to str
            By label.

        Raises
        ------
        InputError
            If there would be more calls than are allowed, a call fails, or gives no text.
        """
        prompts = {f"cluster {each['label']}": explanation_prompt(each) for each in self.clusters}
        said = as_explainer(explainer, max_calls=len(prompts)).ask(prompts)
        return {each["label"]: said[f"cluster {each['label']}"] for each in self.clusters}

    def to_dict(self) -> dict[str, Any]:
        """Return all that a page shows, as JSON takes it.

        Returns
        -------
        dict
            `feature`, `settings`, `n_examples`, `n_noise` (in no cluster), `n_empty` (nothing
            stands out, or only what is rare), `clusters`, `examples` (list of rows).
        """
        return {
            "feature": self.feature,
            "settings": {**asdict(self.lens), **(self.about or {})},
            "n_examples": len(self.table),
            "n_noise": int((self.labels < 0).sum()),
            "n_empty": sum(not each for each in self.sets),
            "clusters": self.clusters,
            "examples": self.examples.to_dict("records"),
        }

    def __repr__(self) -> str:
        """Sizes; not the tables."""
        return (
            f"FeatureCircuits({self.feature!r}, {len(self.table)} examples, "
            f"{len(self.clusters)} clusters, {(self.labels < 0).sum()} noise)"
        )
