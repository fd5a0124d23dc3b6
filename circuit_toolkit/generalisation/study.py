"""Domain generalisation: a classifier that learnt the wrong thing, mended by taking features away.

The protocol of SHIFT (Marks et al., 2024, arXiv 2403.19647) on biographies in the manner of Bias
in Bios (De-Arteaga et al., 2019): in the training texts two professions and two genders go
together without exception, in the test texts not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import described, expect
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import random_features
from circuit_toolkit.generalisation.groups import TiedLabels
from circuit_toolkit.generalisation.probes import (
    activation_rows,
    concept_directions,
    concept_rows,
    feature_rows,
    fit_probe,
)
from circuit_toolkit.generalisation.scores import Generalisation, Score, intervals
from circuit_toolkit.generalisation.shift import rank_by_gradients
from circuit_toolkit.generalisation.spurious import Ranking, rank_by_lasso
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

METHODS = (
    "original",
    "linear_probe",
    "cbp",
    "random",
    "random_retrain",
    "shift",
    "shift_retrain",
    "circuit_lasso",
    "circuit_lasso_retrain",
    "oracle",
)


def generalise(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    ambiguous: Task,
    balanced: Task,
    test: Task,
    *,
    site: Site | str,
    judged: Mapping[Site, Collection[int]],
    methods: Sequence[str] | None = None,
    target: str = "profession",
    spurious: str = "gender",
    concepts: Sequence[str] = (),
    lasso_sites: Sequence[Site | str] | None = None,
    shift_sites: Sequence[Site | str] | None = None,
    n_ranked: int = 100,
    shift_prompts: int = 100,
    shift_steps: int = 10,
    C: float = 1.0,
    draws: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Generalisation:
    """Mend a classifier that leans on the wrong label, in several ways, and compare them.

    The classifier is a logistic regression on the features of one site, their mean over the
    tokens of a text. Features there or at sites before it are ranked; those of the first ones that
    were judged to be about the spurious label are set to zero, in the running model.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Autoencoders; those after `site` are not used.
    ambiguous : Task
        Training texts of two classes in which the two labels go together without exception.
    balanced : Task
        Training texts of all four groups, for `oracle` alone.
    test : Task
        Texts of all four groups; best as many of each.
    site : Site or str
        Where the classifier reads.
    judged : dict of Site to collection of int
        Features that somebody holds to be about the spurious label, or `features_with`. Only
        those are removed that a method ranks among its first.
    methods : sequence of str, optional
        `original`: the classifier as trained; `oracle`: trained on balanced texts, which nobody
        has; `linear_probe`: one on the activations themselves; `cbp`: one on likeness to
        `concepts`; `circuit_lasso`: the features ranked by `rank_by_lasso` removed; `shift`:
        those ranked by `rank_by_gradients`; `random`: as many active ones at random, site by
        site as for `circuit_lasso`; each with `_retrain`: and the classifier trained anew on
        ambiguous texts. By default all; `cbp` if there are concepts.
    target, spurious : str
        Names of the labels.
    concepts : sequence of str
        Words about the target, for `cbp`.
    lasso_sites, shift_sites : sequence of Site, optional
        Whose features `circuit_lasso` and `shift` rank and remove: by default one layer, the
        first, as what is taken away there is missing in all later ones; and, as its authors do,
        all up to `site`.
    n_ranked : int
        How many features of a ranking are looked at.
    shift_prompts, shift_steps : int
        Texts and steps of integrated gradients.
    C : float
        Inverse strength of the classifier's penalty, see `fit_probe`.
    draws : int
        Number of random sets, over which scores are averaged.
    seed : int
        Decides which, and what the bootstrap draws.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Generalisation

    Raises
    ------
    InputError
        If a label is missing, the ambiguous texts are not of two classes that tell each other,
        a group is empty, a method is unknown or wants concepts, or no dictionary reads a site.
    """
    from tqdm.auto import tqdm

    dictionaries = as_dictionaries(model, dictionaries)
    for name, task in (("ambiguous", ambiguous), ("balanced", balanced), ("test", test)):
        expect(task, name, "Task")
    if not isinstance(judged, Mapping):
        raise InputError(f"judged must be a dict of sites to features, got {described(judged)}.")
    judged = {Site.parse(where): features for where, features in judged.items()}
    chosen = _methods(methods, concepts)
    site = Site.parse(site)
    reader = _at([site], dictionaries)
    known = {where: each for where, each in dictionaries.items() if where < site} | reader
    labels = TiedLabels.of(ambiguous, target, spurious)
    bench = _Bench(model, known, site, ambiguous, test, labels.target(ambiguous), C)
    rng = np.random.default_rng(seed)
    labels.check_all_four(balanced)
    labels.check_all_four(test)

    predicted: dict[str, list[np.ndarray]] = {"original": [bench.probe.predict(bench.rows[1])]}
    if "oracle" in chosen:
        rows = feature_rows(model, known, balanced, site)
        oracle = fit_probe(rows, labels.target(balanced), C)
        predicted["oracle"] = [oracle.predict(bench.rows[1])]
    if {"linear_probe", "cbp"} & set(chosen):
        predicted |= bench.on_activations(concepts if "cbp" in chosen else ())
    rankings: dict[str, Ranking] = {}
    if _any(chosen, "circuit_lasso", "random"):
        rankings["circuit_lasso"] = rank_by_lasso(
            model, _at(lasso_sites or [min(known)], known), bench.train, bench.y, n=n_ranked
        )
    if _any(chosen, "shift"):
        some = rng.permutation(len(bench.train))[:shift_prompts]
        rankings["shift"] = rank_by_gradients(
            model,
            _at(shift_sites or list(known), known),
            bench.train.select(some),
            reader=known[site],
            weights=bench.probe.weights,
            signs=np.where(bench.y[some], 1, -1),
            n=n_ranked,
            steps=shift_steps,
            progress=progress,
        )
    removed = {name: [ranking.those_in(judged)] for name, ranking in rankings.items()}
    if _any(chosen, "random"):
        acts = capture(model, known, ambiguous.clean, "mean", progress=False)
        like = removed["circuit_lasso"][0]
        removed["random"] = [random_features(acts, like, rng) for _ in range(draws)]
    for name, sets in removed.items():
        if _any(chosen, name):
            bar = tqdm(sets, name, disable=not progress, leave=False)
            pairs = [bench.mended(each) for each in bar]
            predicted[name], predicted[f"{name}_retrain"] = map(list, zip(*pairs, strict=True))
    y, other = labels.target(test), labels.spurious(test)
    scores = []
    for method in chosen:
        name = method.removesuffix("_retrain")
        ranking = rankings.get(name)
        scores.append(
            Score(
                method,
                *intervals(np.array(predicted[method]), y, other, seed),
                removed[name][0] if name in removed else {},
                ranking.seconds if ranking else None,
            )
        )
    settings = {
        "model": model.name,
        "site": str(site),
        "dictionaries": {str(where): each.name for where, each in known.items()},
        "target": target,
        "spurious": spurious,
        "classes": labels.classes,
        "texts": {"ambiguous": len(ambiguous), "balanced": len(balanced), "test": len(test)},
        "n_ranked": n_ranked,
        "shift": {"texts": min(shift_prompts, len(ambiguous)), "steps": shift_steps},
        "C": C,
        "draws": draws,
        "seed": seed,
    }
    shown = {name: each for name, each in rankings.items() if _any(chosen, name)}
    return Generalisation(tuple(scores), shown, settings)


class _Bench:
    """What all methods share: the texts as rows, and the classifier as it was trained."""

    def __init__(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        site: Site,
        train: Task,
        test: Task,
        y: np.ndarray,
        C: float,
    ):
        self.model, self.dictionaries, self.site = model, dictionaries, site
        self.train, self.test, self.y, self.C = train, test, y, C
        self.rows = self._rows({})
        self.probe = fit_probe(self.rows[0], y, C)

    def _rows(self, without: Mapping[Site, np.ndarray]) -> list[np.ndarray]:
        return [
            feature_rows(self.model, self.dictionaries, each, self.site, without)
            for each in (self.train, self.test)
        ]

    def mended(self, without: Mapping[Site, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Predictions without some features: of the classifier as it is, and trained anew."""
        train, test = self._rows(without)
        return self.probe.predict(test), fit_probe(train, self.y, self.C).predict(test)

    def on_activations(self, concepts: Sequence[str]) -> dict[str, list[np.ndarray]]:
        """Predictions from activations, and from their likeness to concepts."""
        dictionary = self.dictionaries[self.site]
        rows = [activation_rows(self.model, dictionary, each) for each in (self.train, self.test)]
        found = {"linear_probe": rows}
        if concepts:
            axes = concept_directions(self.model, dictionary, concepts)
            found["cbp"] = [concept_rows(each, axes) for each in rows]
        return {
            name: [fit_probe(train, self.y, self.C).predict(test)]
            for name, (train, test) in found.items()
        }


def _methods(methods: Sequence[str] | None, concepts: Sequence[str]) -> list[str]:
    if methods is None:
        return [each for each in METHODS if each != "cbp" or concepts]
    if unknown := [each for each in methods if each not in METHODS]:
        raise InputError(f"Unknown method {unknown[0]!r}. Use some of {', '.join(METHODS)}.")
    if "cbp" in methods and len(concepts) < 2:
        raise InputError("cbp needs concepts=[...], words about both classes of the target.")
    return list(dict.fromkeys(methods))


def _at(
    sites: Sequence[Site | str], dictionaries: Mapping[Site, Dictionary]
) -> dict[Site, Dictionary]:
    """Dictionaries at some sites, refusing a site that has none."""
    wanted = [Site.parse(site) for site in sites]
    if missing := [site for site in wanted if site not in dictionaries]:
        there = ", ".join(map(str, dictionaries))
        raise InputError(f"No dictionary reads {missing[0]}, only {there}.")
    return {site: dictionaries[site] for site in sorted(wanted)}


def _any(methods: Sequence[str], *beginnings: str) -> bool:
    return any(each.startswith(beginnings) for each in methods)
