"""What CircuitLens found: firings, what stands out in each, and clusters of like ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.circuit_lens.clusters import (
    cluster_labels,
    common_elements,
    jaccard_distances,
)
from circuit_toolkit.circuit_lens.description import cluster_card, explanation_prompt
from circuit_toolkit.circuit_lens.firings import Firings
from circuit_toolkit.circuit_lens.passes import Pass
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.explainer import Explainer, as_explainer

if TYPE_CHECKING:
    import pandas as pd

    from circuit_toolkit.circuit_lens.lens import CircuitLens


@dataclass(frozen=True, eq=False)
class FeatureCircuits:
    """Firings of a feature, what contributes to each, and clusters of like ones.

    Parameters
    ----------
    feature : str
        Site and number.
    lens : CircuitLens
        How it was made.
    table : DataFrame
        A row a firing: `prompt`, `position`, `token`, `activation`, `pre_activation`, `error` and
        `origins_error` (by how much the sums of contributions miss the activation, as a share).
    elements : DataFrame
        Contributions whose z-score exceeds the smallest threshold that can be asked for: `firing`,
        `element` (`a1.h3 -4` for a head and an offset, `blocks.0.ln2.hook_normalized/17`),
        `layer`, `head`, `feature`, `offset`, `contribution`, `z`.
    outputs : DataFrame
        Tokens that follow: `firing`, `step`, `token`, `contribution` to its logit, `z` among what
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
    lens: CircuitLens
    table: pd.DataFrame
    elements: pd.DataFrame
    outputs: pd.DataFrame
    words: Sequence[Sequence[str]]
    values: Sequence[np.ndarray]
    descriptions: Any = None
    about: Mapping[str, Any] | None = None

    @cached_property
    def sets(self) -> list[frozenset[str]]:
        """What stands out in each firing, rare elements dropped."""
        chosen = self.chosen
        found: list[set[str]] = [set() for _ in range(len(self.table))]
        for firing, element in zip(chosen["firing"], chosen["element"], strict=True):
            found[firing].add(element)
        return common_elements([frozenset(each) for each in found], self.lens.rho)

    @cached_property
    def chosen(self) -> pd.DataFrame:
        """Rows of `elements` that exceed the thresholds."""
        is_head = self.elements["head"] >= 0
        theta = np.where(is_head, self.lens.theta_head, self.lens.theta_feature)
        return self.elements.loc[self.elements["z"].to_numpy() > theta]

    @cached_property
    def distances(self) -> np.ndarray:
        """Jaccard distances between sets, shape (n, n)."""
        return jaccard_distances(self.sets)

    @cached_property
    def labels(self) -> np.ndarray:
        """Cluster of each firing, -1 for noise; the largest is 0."""
        lens = self.lens
        return cluster_labels(self.sets, self.distances, eps=lens.eps, min_samples=lens.min_samples)

    @cached_property
    def firings(self) -> pd.DataFrame:
        """The firings with their clusters: `table` and a column `cluster`."""
        return self.table.assign(cluster=self.labels)

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """What each cluster has in common, the largest first; noise is no cluster.

        Each with `label`, `size`, `share` (of all firings), `description` and, with the share of
        its firings: `tokens` (where it fires), `offsets` (how far heads look back), `heads` (each
        with the words that it reads), `upstream` (features), `outputs` (tokens that it promotes);
        `examples` with `tokens`, `values` and `position`.
        """
        return [cluster_card(self, label) for label in range(self.labels.max(initial=-1) + 1)]

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
        free = {"eps", "min_samples", "rho", "theta_head", "theta_feature", "theta_output"}
        if other := sorted(settings.keys() - free):
            raise InputError(
                f"{', '.join(other)} cannot be changed without a run: analyse again. Free are "
                f"{', '.join(sorted(free))}."
            )
        return replace(self, lens=replace(self.lens, **settings))

    def explained(self, explainer: Explainer | Callable[[str], str]) -> dict[int, str]:
        """Let an explainer put each cluster into words.

        Parameters
        ----------
        explainer : Explainer or callable
            From a text, as `explanation_prompt` makes it of a cluster, to a text. Cost and first
            prompt are shown before. An `Explainer` has a limit, and keeps its answers: after an
            error pass the same again to go on. A bare callable is called once for each cluster,
            and its answers are gone if one call fails.

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
            `feature`, `settings`, `n_firings`, `n_noise` (in no cluster), `n_empty` (nothing stands
            out, or only what is rare), `clusters`, `firings` (list of rows).
        """
        return {
            "feature": self.feature,
            "settings": {**asdict(self.lens), **(self.about or {})},
            "n_firings": len(self.table),
            "n_noise": int((self.labels < 0).sum()),
            "n_empty": sum(not each for each in self.sets),
            "clusters": self.clusters,
            "firings": [
                {name: _plain(value) for name, value in row.items()}
                for row in self.firings.to_dict("records")
            ],
        }

    def __repr__(self) -> str:
        """Sizes; not the tables."""
        return (
            f"FeatureCircuits({self.feature!r}, {len(self.table)} firings, "
            f"{len(self.clusters)} clusters, {(self.labels < 0).sum()} noise)"
        )


def circuits_of(
    passes: Sequence[Pass],
    *,
    lens: CircuitLens,
    feature: str,
    firings: Firings,
    sites: Mapping[int, str],
    token: Callable[[int], str],
    descriptions: Any,
    about: Mapping[str, Any],
) -> FeatureCircuits:
    """Put batches together."""
    import pandas as pd

    order = np.argsort(np.concatenate([each.firing for each in passes]))
    words = [row for each in passes for row in each.words]
    values = [row for each in passes for row in each.values]
    words, values = [words[i] for i in order], [values[i] for i in order]
    table = pd.DataFrame(
        {
            "prompt": firings.prompt,
            "position": firings.position,
            "token": [row[at] for row, at in zip(words, firings.position, strict=True)],
            "activation": firings.activation,
            **{
                name: column[order] for name, column in _joined([p.columns for p in passes]).items()
            },
        }
    )
    elements = pd.DataFrame(_joined([each.elements for each in passes]))
    names = [
        f"a{layer}.h{head} {offset}" if head >= 0 else f"{sites[layer]}/{index}"
        for layer, head, index, offset in elements[
            ["layer", "head", "feature", "offset"]
        ].to_numpy()
    ]
    elements.insert(1, "element", names)
    outputs = pd.DataFrame(_joined([each.outputs for each in passes]), columns=_OUTPUTS)
    outputs["token"] = [token(int(each)) for each in outputs["token"]]
    return FeatureCircuits(
        feature,
        lens,
        table,
        elements.sort_values(["firing", "layer"], kind="stable", ignore_index=True),
        outputs.sort_values(["firing", "step"], ignore_index=True),
        words,
        values,
        descriptions,
        about,
    )


_OUTPUTS = ["firing", "step", "token", "contribution", "z"]


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plain(value: Any) -> Any:
    """Return a number as JSON takes it."""
    return value.item() if isinstance(value, np.generic) else value
