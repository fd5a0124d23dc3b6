"""Domain generalisation: a classifier that learnt the wrong thing, mended by taking features away.

The protocol of SHIFT (Marks et al., 2024, arXiv 2403.19647) on biographies in the manner of Bias
in Bios (De-Arteaga et al., 2019): in the training texts two professions and two genders go
together without exception, in the test texts not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import numpy as np

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.arguments import described, expect, expect_known
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
from circuit_toolkit.generalisation.spurious import Ranking, rank_by_gradients, rank_by_lasso
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

METHODS = (
    "original",
    "unranked",
    "unranked_retrain",
    "label",
    "label_retrain",
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

_RANKING = ("circuit_lasso", "shift", "label")
_REMOVING = (*_RANKING, "random", "unranked")


def generalise(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    ambiguous: Task,
    balanced: Task,
    test: Task,
    *,
    site: Site | str,
    judged: Mapping[Site, Collection[int]],
    neutral: Task | None = None,
    methods: Sequence[str] | None = None,
    target: str = "profession",
    spurious: str = "gender",
    concepts: Sequence[str] = (),
    lasso_sites: Sequence[Site | str] | None = None,
    shift_sites: Sequence[Site | str] | None = None,
    n_ranked: int = 100,
    n_label: int = 300,
    shift_prompts: int = 100,
    shift_steps: int = 10,
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
        those are removed that a method ranks among its first; `unranked` removes all of them.
    neutral : Task, optional
        Texts of other classes of the target that have the spurious label, for `label`.
    methods : sequence of str, optional
        `original`: the classifier as trained; `unranked`: every judged feature of `lasso_sites`
        removed, whatever ranks it; `label`: without a judge, the features of `site` that tell the
        spurious label in `neutral` texts removed, as `rank_by_lasso` finds them; `oracle`: trained
        on balanced texts, which in practice nobody has; `linear_probe`: one on the activations
        themselves; `cbp`: one on likeness to `concepts`; `circuit_lasso`: the features ranked by
        `rank_by_lasso` removed; `shift`: those ranked by `rank_by_gradients`; `random`: as many
        active ones at random, site by site as for `label`, or without neutral texts for
        `circuit_lasso`; each with `_retrain`: and the classifier trained anew on ambiguous texts.
        By default all; `cbp` if there are concepts, `label` if there are neutral texts.
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
    n_label : int
        How many `label` removes.
    shift_prompts, shift_steps : int
        Texts and steps of integrated gradients.
    draws : int
        Number of random sets, over which scores are averaged.
    seed : int
        Decides which, and what the bootstrap draws.
    progress : bool
        Whether to show which method runs.

    Returns
    -------
    Generalisation

    Raises
    ------
    InputError
        If a label is missing, the ambiguous texts are not of two classes that tell each other,
        a group is empty, a method is unknown or wants concepts or neutral texts, or no dictionary
        reads a site.
    """
    for name, task in (("ambiguous", ambiguous), ("balanced", balanced), ("test", test)):
        expect(task, name, "Task")
    if not isinstance(judged, Mapping):
        raise InputError(f"judged must be a dict of sites to features, got {described(judged)}.")
    judged = {Site.parse(where): features for where, features in judged.items()}
    chosen, site = _methods(methods, concepts, neutral), Site.parse(site)
    given = as_dictionaries(model, dictionaries)
    known = {where: each for where, each in given.items() if where < site} | _at([site], given)
    labels = TiedLabels.of(ambiguous, target, spurious)
    labels.check_all_four(balanced)
    labels.check_all_four(test)
    tasks, y, rng = (ambiguous, test), labels.target(ambiguous), np.random.default_rng(seed)
    n_shift = shift_prompts if _any(chosen, "shift") else 0
    some = rng.permutation(len(ambiguous))[:n_shift] if n_shift else np.arange(0)

    def rows_without(features: Mapping[Site, np.ndarray]) -> list[np.ndarray]:
        return [feature_rows(model, known, each, site, features) for each in tasks]

    train_rows, test_rows = rows_without({})
    probe = fit_probe(train_rows, y)

    first = _at(lasso_sites or [min(known)], known)

    @cache
    def ranked(name: str) -> Ranking:
        if name == "circuit_lasso":
            return rank_by_lasso(model, first, ambiguous, y, n=n_ranked)
        if name == "label":
            assert neutral is not None
            told = labels.spurious(neutral)
            return rank_by_lasso(model, _at([site], known), neutral, told, n=n_label)
        return rank_by_gradients(
            model,
            _at(shift_sites or list(known), known),
            ambiguous.select(some),
            reader=known[site],
            weights=probe.coef_[0],
            signs=np.where(y[some], 1, -1),
            n=n_ranked,
            steps=shift_steps,
            progress=progress,
        )

    @cache
    def removed(name: str) -> list[dict[Site, np.ndarray]]:
        if name == "unranked":
            return [{at: np.sort(list(judged[at])) for at in first if len(judged.get(at, ()))}]
        if name != "random":
            wrong = {site: ranked(name).features} if name == "label" else judged
            return [ranked(name).those_in(wrong)]
        acts = capture(model, known, ambiguous.clean, "mean", progress=False)
        like = removed("circuit_lasso" if neutral is None else "label")[0]
        return [random_features(acts, like, rng) for _ in range(draws)]

    @cache
    def mended(name: str) -> list[list[np.ndarray]]:
        return [rows_without(each) for each in removed(name)]

    def predictions(method: str, name: str) -> list[np.ndarray]:
        if method == "original":
            return [probe.predict(test_rows)]
        if method == "oracle":
            rows = feature_rows(model, known, balanced, site)
            return [fit_probe(rows, labels.target(balanced)).predict(test_rows)]
        if method in ("linear_probe", "cbp"):
            train, tested = (activation_rows(model, known[site], each) for each in tasks)
            if method == "cbp":
                axes = concept_directions(model, known[site], concepts)
                train, tested = concept_rows(train, axes), concept_rows(tested, axes)
            return [fit_probe(train, y).predict(tested)]
        return [
            (probe if method == name else fit_probe(train, y)).predict(tested)
            for train, tested in mended(name)
        ]

    truth, other, scores = labels.target(test), labels.spurious(test), []
    for method in (bar := Bar(chosen, shown=progress)):
        bar.tell(method)
        name = method.removesuffix("_retrain")
        found = intervals(np.array(predictions(method, name)), truth, other, seed)
        taken = removed(name)[0] if name in _REMOVING else {}
        seconds = ranked(name).seconds if name in _RANKING else None
        scores.append(Score(method, *found, taken, seconds))
    settings = {
        "model": model.name,
        "site": str(site),
        "dictionaries": {str(where): each.name for where, each in known.items()},
        "target": target,
        "spurious": spurious,
        "classes": labels.classes,
        "texts": {"ambiguous": len(ambiguous), "balanced": len(balanced), "test": len(test)},
        "n_ranked": n_ranked,
        "n_label": n_label,
        "shift": {"texts": min(shift_prompts, len(ambiguous)), "steps": shift_steps},
        "draws": draws,
        "seed": seed,
    }
    rankings = {name: ranked(name) for name in _RANKING if _any(chosen, name)}
    return Generalisation(tuple(scores), rankings, settings)


def _methods(
    methods: Sequence[str] | None, concepts: Sequence[str], neutral: Task | None
) -> list[str]:
    if neutral is not None:
        expect(neutral, "neutral", "Task")
    if methods is None:
        without = [] if concepts else ["cbp"]
        without += [] if neutral is not None else ["label", "label_retrain"]
        return [each for each in METHODS if each not in without]
    if unknown := [each for each in methods if each not in METHODS]:
        raise InputError(f"Unknown method {unknown[0]!r}. Use some of {', '.join(METHODS)}.")
    if "cbp" in methods and len(concepts) < 2:
        raise InputError("cbp needs concepts=[...], words about both classes of the target.")
    if _any(methods, "label") and neutral is None:
        raise InputError("label needs neutral=, texts of other classes that have the wrong label.")
    return list(dict.fromkeys(methods))


def _at(
    sites: Sequence[Site | str], dictionaries: Mapping[Site, Dictionary]
) -> dict[Site, Dictionary]:
    """Dictionaries at some sites, refusing a site that has none."""
    wanted = sorted(Site.parse(site) for site in sites)
    for site in wanted:
        expect_known(site, dictionaries, f"No dictionary reads {site}")
    return {site: dictionaries[site] for site in wanted}


def _any(methods: Sequence[str], *beginnings: str) -> bool:
    return any(each.startswith(beginnings) for each in methods)
