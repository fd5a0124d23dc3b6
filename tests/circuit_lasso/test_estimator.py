"""CircuitLasso: planted chains come back, and every regression is that of scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.evidence import evidence_lines
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.regression import GramStatistics, lasso_path
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED
from tests.tiny import TEXTS

A, B, C = Site("resid_pre", 0), Site("resid_post", 0), Site("resid_post", 1)
SOURCES = {3: (1, 4), 7: (9,), 0: (2,), 5: (6, 8)}  # feature of B -> features of A that drive it
READ = {3: 2.0, 7: -1.5}  # feature of B -> its weight in the target


def planted(n=600, seed=0, noise=0.02, twins=False):
    """Activations on n prompts of one token, with a chain A -> B -> metric and a label."""
    rng = np.random.default_rng(seed)
    X = rng.gamma(2, 1, (n, 12)) * (rng.random((n, 12)) < 0.6)
    Y = np.zeros((n, 10))
    for feature, sources in SOURCES.items():
        Y[:, feature] = sum(X[:, source] for source in sources)
    other = [i for i in range(10) if i not in SOURCES]
    Y[:, other] = rng.gamma(2, 1, (n, len(other))) * (rng.random((n, len(other))) < 0.5)
    Y *= 1 + noise * rng.standard_normal(Y.shape)
    metric = sum(weight * Y[:, i] for i, weight in READ.items()) + noise * rng.standard_normal(n)
    return Activations(
        features={site: sp.csr_array(M.astype(np.float32)) for site, M in ((A, X), (B, Y))},
        prompt=np.arange(n),
        position=np.ones(n, int),
        tokens=[["<bos>", f"word{i}"] for i in range(n)],
        groups=np.tile(np.arange(n // 2), 2) if twins else np.arange(n),
        metric=metric,
        labels={
            "sign": np.where(metric > np.median(metric), "up", "down"),
            "third": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "same": np.full(n, "one"),
        },
        settings={"model": "made up", "task": "planted", "positions": "all", "n_prompts": n},
    )


@pytest.fixture(scope="module")
def acts():
    return planted()


@pytest.fixture(scope="module")
def fit(acts):
    return CircuitLasso().fit(acts)


@pytest.fixture(scope="module")
def tiny_task(tiny):
    return BUNDLED["ioi"](tiny, n=60, seed=0)


@pytest.fixture(scope="module")
def tiny_acts(tiny, tiny_saes, tiny_task):
    return capture(tiny, tiny_saes, tiny_task, progress=False)


@pytest.fixture(scope="module")
def tiny_fit(tiny_acts, tiny_task):
    return CircuitLasso(positions="mean", min_active=5).fit(tiny_acts, tiny_task)


def names(circuit):
    """Ids without positions, and `target` whatever its label."""
    kinds = circuit.nodes["kind"].tolist()
    short = [name.partition("@")[0] for name in circuit.ids()]
    return [TARGET if kind == TARGET else name for kind, name in zip(kinds, short, strict=True)]


def drawn(circuit):
    ids = names(circuit)
    return {(ids[edge["source"]], ids[edge["target"]]) for edge in circuit.edges}


def wanted():
    edges = {(f"{B}/{feature}", TARGET) for feature in READ}
    return edges | {(f"{A}/{a}", f"{B}/{b}") for b in READ for a in SOURCES[b]}


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.3])
def test_a_planted_chain_comes_back(fit, strength):
    circuit = fit.circuit(strength)
    assert drawn(circuit) == wanted()
    assert circuit.evidence["fit"]["held_out_r2"] > 0.8
    ids = names(circuit)
    signs = {
        ids[e["source"]]: np.sign(e["weight"]) for e in circuit.edges if ids[e["target"]] == TARGET
    }
    assert signs == {f"{B}/3": 1, f"{B}/7": -1}
    assert circuit.nodes["score"][-1] == 1


def test_the_strongest_features_are_the_planted_ones_even_with_noise():
    circuit = CircuitLasso().fit(planted(seed=3, noise=0.3)).circuit(0.05)
    table = circuit.nodes[:-1]
    best = table[np.argsort(-table["score"], kind="stable")]
    at_b = best[best["site"] == str(B)]["index"][:2]
    at_a = best[best["site"] == str(A)]["index"][:3]
    assert set(at_b.tolist()) == set(READ) and set(at_a.tolist()) == {1, 4, 9}


def test_held_out_fit_is_near_one_where_nothing_is_penalised(fit):
    assert fit.held_out[-1] > 0.99 and fit.held_out[0] <= 0.01
    assert fit.best_strength() == fit.strengths[fit.held_out.argmax()]
    assert f"best held-out fit {fit.held_out.max():.3f}" in repr(fit)


def assert_regressions_are_sklearns(
    model, dictionaries, make, n=60, min_active=5, positions="mean", tol=1e-4
):
    """Compare coefficients of a task's fit with scikit-learn's on data standardised by hand.

    Both stop at a relative gap of 1e-6 or better, which leaves coefficients of correlated features
    undecided by less than the tolerance.
    """
    from sklearn.linear_model import Lasso

    task = make(model, n=n, seed=0)
    acts = capture(model, dictionaries, task, positions, progress=False)
    estimator = CircuitLasso(positions, min_active=min_active, strengths=(1.0, 0.5, 0.2))
    fit = estimator.fit(acts, task)
    train = estimator._folds(acts.groups) >= 0
    columns = {}
    for site in fit.sites:
        raw = acts.features[site].toarray()[train][:, fit.screening[site].kept].astype(float)
        columns[site] = (raw - raw.mean(0)) / raw.std(0)  # (n, p)
    y = acts.metric[train].astype(float)
    if task.directions:
        y *= np.tile(task.directions, 2)[train]
    compared = 0
    for k, strength in enumerate(fit.strengths):
        problems = [
            (
                columns[fit.sites[-1]],
                (y - y.mean()) / y.std(),
                fit.weights_of_target(fit.sites[-1], k),
            )
        ]
        for site, later in zip(fit.sites, fit.sites[1:], strict=False):
            for j in range(0, columns[later].shape[1], 9):
                ours = fit.chain[later].standardised(k)[:, [j]].toarray().ravel()
                problems.append((columns[site], columns[later][:, j], ours))
        for X, target, ours in problems:
            alpha = strength * np.abs(X.T @ target).max() / len(X)
            theirs = Lasso(alpha, fit_intercept=False, tol=1e-10, max_iter=200_000).fit(X, target)
            np.testing.assert_allclose(ours, theirs.coef_, atol=tol)
            compared += np.count_nonzero(ours)
    assert compared > 20, "nothing was compared: all coefficients are zero"


@pytest.mark.parametrize("name", ["ioi", "greater_than", "agreement"])
def test_coefficients_are_those_of_scikit_learn(tiny, tiny_saes, name):
    assert_regressions_are_sklearns(tiny, tiny_saes, BUNDLED[name])


@pytest.mark.parametrize("name", ["ioi", "greater_than", "agreement"])
def test_coefficients_on_the_bundled_model_are_those_of_scikit_learn(demo, demo_saes, name):
    make = BUNDLED[name]
    assert_regressions_are_sklearns(demo, demo_saes, make, n=256, min_active=10, positions="last")


@pytest.mark.parametrize("which", ["fit", "tiny_fit"])
def test_the_circuit_is_empty_at_one_and_grows_as_the_strength_falls(request, which):
    path = request.getfixturevalue(which)
    sizes = [
        len(path.circuit(s, max_features=None, max_edges=None).nodes) - 1 for s in path.strengths
    ]
    assert sizes[0] == 0 and sizes[-1] > 4
    falls = np.minimum(np.diff(sizes), 0)
    assert falls.min() >= -2 and -falls.sum() <= 0.1 * sizes[-1]
    empty = path.circuit(1)
    assert empty.features() == {} and len(empty.edges) == 0


def test_relevance_is_conserved_in_what_is_drawn(tiny_fit):
    circuit = tiny_fit.circuit(0.1, max_features=None, max_edges=None)
    edges, n = circuit.edges, len(circuit.nodes)
    into = np.bincount(edges["target"], edges["score"], n)
    out = np.bincount(edges["source"], edges["score"], n)
    assert into[-1] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(out[:-1], circuit.nodes["score"][:-1], atol=1e-5)
    fed = into > 0
    np.testing.assert_allclose(into[fed], circuit.nodes["score"][fed], atol=1e-5)


def test_tables_hold_raw_features_means_and_labels(tiny_acts, tiny_fit):
    circuit = tiny_fit.circuit(0.1, max_features=None, max_edges=None)
    means = tiny_acts.pooled("mean").means()
    for node in circuit.nodes[:-1]:
        site = Site.parse(str(node["site"]))
        assert node["activation"] == pytest.approx(means[site][node["index"]], rel=1e-5)
        assert node["label"].startswith(tiny_fit.labels[site][node["index"]])
    assert (circuit.nodes["label"] != "").mean() > 0.5
    explained = (tiny_acts.metric * tiny_acts.directions).mean()
    assert circuit.nodes["activation"][-1] == pytest.approx(explained, rel=1e-4)
    assert circuit.nodes["label"][-1] == "logit_difference"


def test_limits_keep_the_most_relevant(tiny_fit):
    whole = tiny_fit.circuit(0.05, max_features=None, max_edges=None)
    small = tiny_fit.circuit(0.05, max_features=7, max_edges=12)
    assert len(small.nodes) <= 8 and len(small.edges) <= 12
    best = np.sort(whole.nodes["score"][:-1])[-7:]
    assert set(small.nodes["score"][:-1]) <= set(best)


def test_the_circuit_of_a_prompt_has_only_what_fires_there(tiny_acts, tiny_fit):
    rows = tiny_acts.pooled("mean")
    for prompt in (0, 17, 119):
        circuit = tiny_fit.circuit(0.1, prompt=prompt, max_features=None, max_edges=None)
        assert len(circuit.nodes) > 1
        for node in circuit.nodes[:-1]:
            value = rows.features[Site.parse(str(node["site"]))][[prompt]].toarray()[0]
            assert node["activation"] == pytest.approx(value[node["index"]], rel=1e-5)
            assert node["activation"] > 0
        assert circuit.settings["scope"] == "prompt"
        assert circuit.settings["prompt"] == tiny_acts.texts[prompt]
        explained = tiny_acts.metric[prompt] * tiny_acts.directions[prompt]
        assert circuit.nodes["activation"][-1] == pytest.approx(explained, rel=1e-4)
    assert tiny_fit.circuit(0.1).settings["scope"] == "dataset"


def test_edges_of_a_prompt_share_out_activation_times_coefficient(acts, fit):
    prompt = int(np.flatnonzero(acts.features[B].toarray()[:, [3, 7]].all(1))[0])
    circuit = fit.circuit(0.1, prompt=prompt)
    k = int(np.abs(np.log(fit.strengths / 0.1)).argmin())
    train = CircuitLasso()._folds(acts.groups) >= 0
    X = acts.features[B].toarray()
    kept = fit.screening[B].kept.tolist()
    column = fit.readout[B].standardised(k).toarray().ravel()
    share = {i: abs(column[kept.index(i)]) * X[prompt, i] / X[train, i].std() for i in READ}
    ids = names(circuit)
    for edge in circuit.edges[[ids[e["target"]] == TARGET for e in circuit.edges]]:
        feature = int(circuit.nodes["index"][edge["source"]])
        assert edge["score"] == pytest.approx(share[feature] / sum(share.values()), rel=1e-4)


def test_directions_turn_the_metric_into_one_sense(acts):
    """Right minus wrong is up minus down, or the reverse: no sum of features is that."""
    directions = np.where(np.random.default_rng(0).random(acts.n_prompts) < 0.5, -1, 1)
    turned = replace(acts, metric=acts.metric * directions, directions=directions)
    fit = CircuitLasso().fit(turned)
    assert drawn(fit.circuit(0.2)) == wanted()
    mean = fit.circuit(0.2).nodes["activation"][-1]
    assert mean == pytest.approx(acts.metric.mean(), rel=1e-5)
    assert fit.on(turned).circuit(0.2, prompt=3).nodes["activation"][-1] == pytest.approx(
        acts.metric[3], rel=1e-5
    )


def test_reading_all_sites_finds_what_ends_early():
    acts = planted()
    early = acts.features[A].toarray()[:, 10]
    y = acts.metric + 3 * early  # feature 10 of A drives nothing in B
    last = CircuitLasso().fit(acts, y).circuit(0.1)
    every = CircuitLasso(reads="all").fit(acts, y).circuit(0.1)
    assert (f"{A}/10", TARGET) in drawn(every) - drawn(last)


def test_a_chain_of_three_sites_is_regressed_site_by_site():
    acts = planted()
    later = acts.features[B].toarray()[:, [3, 7, 1]]
    acts = replace(acts, features={**acts.features, C: sp.csr_array(later)}, metric=later[:, 0])
    circuit = CircuitLasso().fit(acts).circuit(0.3)
    assert drawn(circuit) == {
        (f"{C}/0", TARGET),
        (f"{B}/3", f"{C}/0"),
        (f"{A}/1", f"{B}/3"),
        (f"{A}/4", f"{B}/3"),
    }


def planted_chain(relu, seed, n=600, width=16, sites=6):
    """Activations of a random sparse chain of sites, what drives what in it, and its target."""
    rng = np.random.default_rng(seed)
    names = [Site("resid_post", layer) for layer in range(sites)]
    values = [rng.exponential(size=(n, width)) * (rng.random((n, width)) < 0.4)]
    true = {(f"{names[-1]}/{source}", TARGET) for source in range(width)}
    for before, site in zip(names, names[1:], strict=False):
        weights = np.zeros((width, width))
        for target in range(width):
            sources = rng.choice(width, rng.integers(1, 4), replace=False)
            sign = rng.choice([-1, 1], len(sources))
            weights[sources, target] = rng.uniform(0.5, 1.5, len(sources)) * sign
            true |= {(f"{before}/{source}", f"{site}/{target}") for source in sources}
        driven = values[-1] @ weights
        driven = driven / driven.std(0) + 0.1 * rng.normal(size=driven.shape)
        values.append(np.maximum(driven, 0) if relu else driven)
    metric = values[-1] @ rng.choice([-1, 1], width) + 0.1 * rng.normal(size=n)
    tables = [sp.csr_array(each.astype(np.float32)) for each in values]
    return replace(planted(n), features=dict(zip(names, tables, strict=True)), metric=metric), true


@pytest.mark.parametrize(("relu", "precision", "lost"), [(False, 0.97, 0.0), (True, 0.75, 0.25)])
def test_adaptive_weights_find_fewer_edges_and_more_of_them_right(relu, precision, lost):
    scores = {False: [], True: []}
    for seed in range(3):
        acts, true = planted_chain(relu, seed)
        for adaptive, found in scores.items():
            fit = CircuitLasso(adaptive=adaptive).fit(acts, progress=False)
            edges = drawn(fit.circuit("one_se", max_features=None, max_edges=None))
            found.append([len(edges & true) / len(edges), len(edges & true) / len(true)])
    (plain, recall), (ours, kept) = (np.mean(scores[adaptive], 0) for adaptive in scores)
    assert ours > precision > plain + 0.15 and kept > recall - lost
    assert fit.settings["adaptive"] and "adaptive=True" in repr(fit)


@pytest.mark.parametrize("target", ["metric", "sign"])
def test_one_standard_error_is_that_of_the_folds(acts, target):
    fit = CircuitLasso(folds=4).fit(acts, target, progress=False)
    assert fit.folds.shape == (4, 20) and np.isfinite(fit.folds).all()
    mean, error = fit.folds.mean(0), fit.folds.std(0, ddof=1) / 2
    chosen = fit.strengths.tolist().index(fit.one_se_strength())
    assert mean[chosen] >= mean.max() - error[mean.argmax()] > mean[:chosen].max(initial=-1)
    circuit = fit.circuit("one_se")
    assert circuit.settings["strength"] == fit.one_se_strength() >= fit.best_strength() * 0.2
    assert circuit.settings["chosen_by"] == "one_se"
    best = fit.circuit("best").settings
    assert (best["strength"], best["chosen_by"]) == (fit.best_strength(), "best")
    assert fit.circuit(0.1).settings["chosen_by"] == "hand"


def test_folds_are_fits_on_the_other_training_prompts(acts):
    estimator = CircuitLasso(folds=3, strengths=(0.5, 0.1))
    fit = estimator.fit(acts, progress=False)
    fold, X = estimator._folds(acts.groups), acts.features[B].toarray()
    assert set(fold) == {-1, 0, 1, 2} and np.ptp(np.bincount(fold[fold >= 0])) <= 1
    for number in range(3):
        rest, here = (fold >= 0) & (fold != number), fold == number
        stats = [
            GramStatistics.from_arrays(X[some][:, fit.screening[B].kept], acts.metric[some, None])
            for some in (rest, here)
        ]
        path = lasso_path(stats[0].standardised(), [0.5, 0.1], 1e-11)
        np.testing.assert_allclose(fit.folds[number], path.held_out_r2(stats[1])[:, 0], atol=1e-6)


def test_without_folds_there_is_no_standard_error(acts):
    once = CircuitLasso(folds=0).fit(acts, progress=False)
    two = np.where(np.arange(600) < 2, "a", "b")  # one to train on, one held out: none for folds
    rare = replace(acts, labels={"rare": two})
    for fit in (once, CircuitLasso().fit(rare, "rare=a", progress=False)):
        assert fit.folds is None and len(fit.circuit(0.03).nodes) > 1
        with pytest.raises(InputError, match=r"CircuitLasso\(folds=5\), more prompts"):
            fit.circuit("one_se")


@pytest.mark.parametrize("prompt", [None, 3])
def test_an_edge_budget_takes_the_weakest_strength_within_it(tiny_fit, prompt):
    sizes = [
        len(tiny_fit.circuit(s, prompt=prompt, max_edges=None).edges) for s in tiny_fit.strengths
    ]
    for budget in (0, 5, 30, 10_000):
        circuit = tiny_fit.circuit(edge_budget=np.int64(budget), prompt=prompt, max_edges=None)
        k = tiny_fit.strengths.tolist().index(circuit.settings["strength"])
        assert len(circuit.edges) == sizes[k] <= budget
        assert all(size > budget for size in sizes[k + 1 :])
        assert circuit.settings["chosen_by"] == f"edge budget of {budget}"
    dense = CircuitLasso(strengths=(0.1,), positions="mean", min_active=5)
    with pytest.raises(InputError, match="more than 0. Fit greater strengths too"):
        dense.fit(planted()).circuit(edge_budget=0)


def test_numbers_of_numpy_and_torch_are_numbers(fit, acts):
    plain = fit.circuit(0.1, prompt=3, max_features=5)
    for strength, n in ((np.float32(0.1), np.int64), (torch.tensor(0.1), torch.tensor)):
        other = fit.circuit(strength, prompt=n(3), max_features=n(5))
        assert other.ids() == plain.ids() and other.settings == plain.settings
    estimator = CircuitLasso(
        strengths=torch.tensor([0.1, 0.5]), min_active=np.int64(10), held_out=np.float64(0.2)
    )
    assert estimator == CircuitLasso(strengths=(0.5, float(np.float32(0.1))))
    assert estimator.fit(acts, torch.tensor(acts.metric)).settings["seed"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit, acts, task: CircuitLasso().fit(task, acts), "acts must be .*another order"),
        (lambda fit, acts, task: CircuitLasso().fit(task), "what capture"),
        (lambda fit, acts, task: CircuitLasso().fit("ioi"), "acts must be a Activations"),
        (lambda fit, acts, task: CircuitLasso().fit(fit.circuit(0.1)), "what capture"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, fit), "target must be a Task"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, fit.circuit(0.1)), "target must be"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, acts), "target must be a Task"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, object()), "one number for each prompt"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, labels=["a"]), "labels must be names"),
        (lambda fit, acts, task: CircuitLasso().fit(acts, labels={A: ["a"]}), "1 names for the 12"),
        (lambda fit, acts, task: fit.on(task), "acts must be"),
        (lambda fit, acts, task: fit.circuit(task), r"strength must be in \(0, 1\], got a Task"),
        (lambda fit, acts, task: fit.circuit("weak"), "'best' or 'one_se', got 'weak'"),
        (lambda fit, acts, task: fit.circuit(0.1, prompt="first"), "prompt must be a whole"),
        (lambda fit, acts, task: fit.circuit(0.1, prompt=1.5), "prompt must be a whole"),
        (lambda fit, acts, task: fit.circuit(0.1, max_edges="all"), "max_edges must be a whole"),
        (lambda fit, acts, task: fit.circuit(edge_budget=-1), "edge_budget must be at least 0"),
    ],
)
def test_wrong_objects_are_refused(fit, acts, tiny_task, call, message):
    with pytest.raises(InputError, match=message):
        call(fit, acts, tiny_task)


@pytest.mark.parametrize("target", ["sign", "sign=up", "sign=down"])
def test_a_label_is_explained_by_cross_entropy(acts, target):
    fit = CircuitLasso().fit(acts, target)
    circuit = fit.circuit(0.1)
    assert circuit.settings["objective"] == "cross-entropy"
    assert circuit.evidence["fit"]["held_out_auroc"] > 0.95 and fit.held_out[0] == 0.5
    assert f"{fit.held_out.max():.3f} (AUROC, chance 0.5) at" in repr(fit)
    line = f"fit: held-out AUROC {circuit.evidence['fit']['held_out_auroc']:.2f} (chance 0.50)"
    assert line in evidence_lines(circuit.evidence)
    assert {edge for edge in drawn(circuit) if edge[1] == TARGET} == {
        (f"{B}/3", TARGET),
        (f"{B}/7", TARGET),
    }
    ids = names(circuit)
    (up,) = (
        e["weight"]
        for e in circuit.edges
        if (ids[e["source"]], ids[e["target"]]) == (f"{B}/3", TARGET)
    )
    assert (up > 0) == (target != "sign=down")  # `sign`: the later class in the alphabet, up
    assert circuit.nodes["activation"][-1] == 0 and circuit.nodes["label"][-1] == target


@pytest.mark.parametrize("seed", range(4))
def test_the_best_strength_for_a_rare_class_is_no_empty_circuit(seed):
    """Of 300 prompts 12 are of the class: "never" is right in 96 %, and tells nothing."""
    acts = planted(n=300)
    rare = acts.metric >= np.sort(acts.metric)[-12]
    acts = replace(acts, labels={"rare": np.where(rare, "yes", "no")})
    fit = CircuitLasso(seed=seed).fit(acts, "rare", progress=False)
    assert fit.best_strength() < 1 and fit.held_out.max() > 0.8
    assert len(fit.circuit("best").features()) and len(fit.folds) == 5
    assert {edge for edge in drawn(fit.circuit("one_se")) if edge[1] == TARGET} >= {
        (f"{B}/3", TARGET)
    }


@pytest.mark.parametrize("n", [1, 2])
def test_a_class_of_one_prompt_is_refused_by_every_seed_and_one_of_two_by_none(n):
    """scikit-learn issue 29558; a prompt and its corrupted prompt count as one."""
    acts = planted(n=80, twins=True)
    rare = np.where(np.isin(np.arange(80) % 40, (3, 9)[:n]), "yes", "no")
    acts = replace(acts, labels={"rare": rare})
    for seed in range(8):
        estimator = CircuitLasso(min_active=2, seed=seed)
        if n == 1:
            with pytest.raises(InputError, match=r"1 of 40 prompts.*no other held_out helps"):
                estimator.fit(acts, "rare", progress=False)
            continue
        train = estimator._folds(acts.groups, rare == "yes") >= 0
        assert (rare[train] == "yes").sum() == (rare[~train] == "yes").sum() == 2
        fit = estimator.fit(acts, "rare", progress=False)
        assert fit.held_out[0] == 0.5 and np.isfinite(fit.held_out).all() and fit.folds is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mood", "Unknown target 'mood'. Use one of metric, sign, third, same"),
        ("third", "'third' has 3 classes: choose one, as in 'third=a'"),
        ("third=d", "'third' has no class 'd', only a, b, c"),
        ("same", "'same' has 1 classes"),
        ("same=one", "Two classes are needed"),
        (np.zeros(3), "one number for each of 600 prompts"),
        (np.zeros(600), "'target' is constant or not finite"),
        (np.full(600, np.nan), "'target' is constant or not finite"),
    ],
)
def test_targets_that_cannot_be_explained_are_refused(acts, target, message):
    with pytest.raises(InputError, match=message):
        CircuitLasso().fit(acts, target)


def test_the_target_task_must_be_the_one_that_was_captured(tiny, acts, tiny_acts):
    with pytest.raises(InputError, match="of task 'ioi', not of 'agreement'"):
        CircuitLasso().fit(tiny_acts, BUNDLED["agreement"](tiny, n=5))
    with pytest.raises(InputError, match="have no metric"):
        CircuitLasso().fit(replace(acts, metric=None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reads": "first"}, "reads must be 'last' or 'all'"),
        ({"held_out": 0.0}, r"held_out must be in \(0, 1\]"),
        ({"held_out": 1.0}, "nothing is left to fit on"),
        ({"adaptive": "yes"}, "adaptive True or False"),
        ({"folds": -1}, "folds must be at least 0"),
        ({"folds": 2.5}, "folds must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"positions": "all"}, "positions must make one row"),
        ({"positions": "S9"}, "positions must be one of .*got 'S9'"),
        ({"min_active": 10_000}, "No feature of blocks.0.hook_resid_pre is active on 10000"),
        ({"strengths": (2.0,)}, "in \\(0, 1\\]"),
    ],
)
def test_settings_out_of_range_are_refused(acts, settings, message):
    with pytest.raises(InputError, match=message):
        CircuitLasso(**settings).fit(acts)


@pytest.mark.parametrize("strength", [0, -0.1, 1.1])
def test_strengths_out_of_range_are_refused(fit, strength):
    with pytest.raises(InputError, match=r"must be in \(0, 1\]"):
        fit.circuit(strength)


@pytest.mark.parametrize("prompt", [-1, 600])
def test_prompts_that_do_not_exist_are_refused(fit, prompt):
    with pytest.raises(InputError, match="they are 0 to 599"):
        fit.circuit(0.1, prompt=prompt)


def test_own_numbers_are_a_target_and_so_is_a_pandas_column(acts):
    y = acts.features[B].toarray()[:, 0].astype(float)
    for target in (y, y.tolist(), pd.Series(y, name="y")):
        fit = CircuitLasso().fit(acts, target)
        circuit = fit.circuit(0.2)
        assert drawn(circuit) == {(f"{B}/0", TARGET), (f"{A}/2", f"{B}/0")}
        assert circuit.nodes["activation"][-1] == pytest.approx(y.mean(), rel=1e-5)
    assert fit.on(acts).circuit(0.2).nodes["activation"][-1] == 0  # unknown on other prompts


@pytest.mark.parametrize("seed", range(5))
def test_twins_stay_on_one_side(seed):
    acts = planted(n=100, twins=True)
    train = CircuitLasso(seed=seed, held_out=0.3)._folds(acts.groups) >= 0
    assert not set(acts.groups[train]) & set(acts.groups[~train])
    assert (~train).sum() == 30
    assert (train[:50] == train[50:]).all()


def test_held_out_prompts_do_not_move_the_weights():
    acts = planted(n=300)
    train = CircuitLasso()._folds(acts.groups) >= 0
    spoilt = acts.metric.copy()
    spoilt[~train] = np.random.default_rng(0).normal(0, 1000, (~train).sum())
    one, two = CircuitLasso().fit(acts), CircuitLasso().fit(acts, spoilt)
    for k in range(len(one.strengths)):
        np.testing.assert_array_equal(one.weights_of_target(B, k), two.weights_of_target(B, k))
    assert one.held_out[-1] > 0.99 > two.held_out[-1]


def test_a_held_out_part_that_is_constant_leaves_no_fit_to_rank_by():
    acts = planted(n=100)
    y = np.where((CircuitLasso()._folds(acts.groups) >= 0), acts.metric, 1.0)
    fit = CircuitLasso().fit(acts, y)
    assert np.isnan(fit.held_out).all()
    assert fit.best_strength() == 1 and "nan" in repr(fit)


def test_weights_are_applied_to_other_prompts(tiny, tiny_saes, tiny_task, tiny_acts, tiny_fit):
    again = capture(tiny, tiny_saes, [*tiny_task.clean[:3], TEXTS[1]], progress=False)
    moved = tiny_fit.on(again)
    for prompt in range(3):
        one = tiny_fit.circuit(0.1, prompt=prompt)
        two = moved.circuit(0.1, prompt=prompt)
        assert one.ids() == two.ids() and drawn(one) == drawn(two)
        np.testing.assert_allclose(one.edges["score"], two.edges["score"], rtol=1e-3, atol=1e-5)
    own = moved.circuit(0.1, prompt=3)
    assert own.settings["prompt"] == TEXTS[1] == "the boys near the cabinet"
    assert own.nodes["activation"][-1] == 0  # no metric without a task
    with pytest.raises(InputError, match="they are 0 to 3"):
        moved.circuit(0.1, prompt=4)
    fewer = capture(tiny, dict(list(tiny_saes.items())[:2]), TEXTS, progress=False)
    with pytest.raises(InputError, match="Capture with the same"):
        tiny_fit.on(fewer)


@pytest.mark.parametrize("positions", ["last", "S2"])
def test_rows_are_read_at_the_positions_of_the_estimator(tiny_acts, tiny_task, positions):
    estimator = CircuitLasso(positions=positions, min_active=5)
    whole = estimator.fit(tiny_acts, tiny_task)
    there = estimator.fit(tiny_acts.pooled(positions), tiny_task)
    assert drawn(whole.circuit(0.1)) == drawn(there.circuit(0.1))
    other = CircuitLasso("mean", min_active=5)
    with pytest.raises(InputError, match=f"captured as positions='{positions}'"):
        other.fit(tiny_acts.pooled(positions), tiny_task)


def test_a_circuit_is_kept_as_a_file(tiny_fit, tmp_path):
    from circuit_toolkit.circuit.circuit import Circuit

    circuit = tiny_fit.circuit(0.1)
    again = Circuit.load(circuit.save(tmp_path / "circuit.json"))
    assert again.ids() == circuit.ids() and again.settings == circuit.settings
    assert again.settings["method"] == "CircuitLasso" and again.settings["task"] == "ioi"
