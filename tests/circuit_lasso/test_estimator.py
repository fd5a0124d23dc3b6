"""CircuitLasso: planted chains come back, and every regression is that of scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.errors import InputError
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


def drawn(circuit):
    ids = circuit.ids()
    return {(ids[edge["source"]], ids[edge["target"]]) for edge in circuit.edges}


def wanted():
    edges = {(f"{B}/{feature}", TARGET) for feature in READ}
    return edges | {(f"{A}/{a}", f"{B}/{b}") for b in READ for a in SOURCES[b]}


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.3])
def test_a_planted_chain_comes_back(fit, strength):
    circuit = fit.circuit(strength)
    assert drawn(circuit) == wanted()
    assert circuit.evidence["fit"]["held_out_r2"] > 0.8
    ids = circuit.ids()
    signs = {
        ids[e["source"]]: np.sign(e["weight"]) for e in circuit.edges if ids[e["target"]] == TARGET
    }
    assert signs == {f"{B}/3": 1, f"{B}/7": -1}
    assert circuit.nodes["score"][-1] == 1


def test_the_strongest_features_are_the_planted_ones_even_with_noise():
    circuit = CircuitLasso().fit(planted(seed=3, noise=0.3)).circuit(0.05)
    table = circuit.nodes[:-1]
    best = table[np.argsort(-table["score"], kind="stable")]
    at_b = best[best["site"] == str(B)]["feature"][:2]
    at_a = best[best["site"] == str(A)]["feature"][:3]
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
    train = estimator._training(acts.groups)
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
            (columns[fit.sites[-1]], (y - y.mean()) / y.std(), fit._readout(fit.sites[-1], k))
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
        assert node["activation"] == pytest.approx(means[site][node["feature"]], rel=1e-5)
        assert node["label"] == tiny_fit.labels[site][node["feature"]]
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
            assert node["activation"] == pytest.approx(value[node["feature"]], rel=1e-5)
            assert node["activation"] > 0
        assert circuit.settings["level"] == "prompt"
        assert circuit.settings["prompt"] == " ".join(tiny_acts.tokens[prompt])
        explained = tiny_acts.metric[prompt] * tiny_acts.directions[prompt]
        assert circuit.nodes["activation"][-1] == pytest.approx(explained, rel=1e-4)
    assert tiny_fit.circuit(0.1).settings["level"] == "dataset"


def test_edges_of_a_prompt_share_out_activation_times_coefficient(acts, fit):
    prompt = int(np.flatnonzero(acts.features[B].toarray()[:, [3, 7]].all(1))[0])
    circuit = fit.circuit(0.1, prompt=prompt)
    k = int(np.abs(np.log(fit.strengths / 0.1)).argmin())
    train = CircuitLasso()._training(acts.groups)
    X = acts.features[B].toarray()
    kept = fit.screening[B].kept.tolist()
    column = fit.readout[B].standardised(k).toarray().ravel()
    share = {i: abs(column[kept.index(i)]) * X[prompt, i] / X[train, i].std() for i in READ}
    ids = circuit.ids()
    for edge in circuit.edges[[ids[e["target"]] == TARGET for e in circuit.edges]]:
        feature = int(circuit.nodes["feature"][edge["source"]])
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


@pytest.mark.parametrize("target", ["sign", "sign=up", "sign=down"])
def test_a_label_is_explained_by_cross_entropy(acts, target):
    fit = CircuitLasso().fit(acts, target)
    circuit = fit.circuit(0.1)
    assert circuit.settings["loss"] == "cross-entropy"
    assert circuit.evidence["fit"]["held_out_accuracy"] > 0.85
    assert {edge for edge in drawn(circuit) if edge[1] == TARGET} == {
        (f"{B}/3", TARGET),
        (f"{B}/7", TARGET),
    }
    ids = circuit.ids()
    (up,) = (
        e["weight"]
        for e in circuit.edges
        if (ids[e["source"]], ids[e["target"]]) == (f"{B}/3", TARGET)
    )
    assert (up > 0) == (target != "sign=down")  # `sign`: the later class in the alphabet, up
    assert circuit.nodes["activation"][-1] == 0 and circuit.nodes["label"][-1] == target


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
        ({"held_out": 0.0}, "held_out between 0 and 1"),
        ({"held_out": 1.0}, "held_out between 0 and 1"),
        ({"positions": "all"}, "positions must make one row"),
        ({"positions": "S9"}, "Unknown positions 'S9'"),
        ({"min_active": 10_000}, "No feature of blocks.0.hook_resid_pre fires on 10000"),
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
    train = CircuitLasso(seed=seed, held_out=0.3)._training(acts.groups)
    assert not set(acts.groups[train]) & set(acts.groups[~train])
    assert (~train).sum() == 30
    assert (train[:50] == train[50:]).all()


def test_held_out_prompts_do_not_move_the_weights():
    acts = planted(n=300)
    train = CircuitLasso()._training(acts.groups)
    spoilt = acts.metric.copy()
    spoilt[~train] = np.random.default_rng(0).normal(0, 1000, (~train).sum())
    one, two = CircuitLasso().fit(acts), CircuitLasso().fit(acts, spoilt)
    for k in range(len(one.strengths)):
        np.testing.assert_array_equal(one._readout(B, k), two._readout(B, k))
    assert one.held_out[-1] > 0.99 > two.held_out[-1]


def test_a_held_out_part_that_is_constant_leaves_no_fit_to_rank_by():
    acts = planted(n=100)
    y = np.where(CircuitLasso()._training(acts.groups), acts.metric, 1.0)
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
    assert own.settings["prompt"] == "<bos> the boys near the cabinet"
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
