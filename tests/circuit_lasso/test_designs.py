"""Several positions, a vector as target, and randomised runs: against scikit-learn and ablation."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from sklearn.linear_model import Lasso

import circuit_toolkit as ct
from circuit_toolkit.circuit_lasso.randomised_runs import drawn, followed
from circuit_toolkit.errors import InputError
from circuit_toolkit.patching.placed_features import PlacedFeatures

SITES = [ct.Site("resid_post", layer) for layer in (2, 4)]
PLACES = ("S2", "last")


@pytest.fixture(scope="module")
def saes(demo_saes):
    return {site: demo_saes[site] for site in SITES}


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.ioi(demo, n=128)


@pytest.fixture(scope="module")
def acts(demo, saes, task):
    return ct.capture(demo, saes, task, progress=False)


@pytest.fixture(scope="module")
def given(demo, saes):
    return {"model": demo, "dictionaries": saes, "progress": False}


@pytest.fixture(scope="module")
def wide(acts, task):
    return ct.CircuitLasso(positions=PLACES, folds=0).fit(acts, task, progress=False)


@pytest.fixture(scope="module")
def vector(acts, task, given):
    return ct.CircuitLasso(design="observational", folds=0).fit(acts, task, **given)


@pytest.fixture(scope="module")
def randomised(acts, task, given):
    return ct.CircuitLasso(positions=PLACES).fit(acts, task, **given)


def test_rows_of_several_positions_are_those_of_each_side_by_side(acts):
    both = acts.pooled(PLACES)
    for site, X in both.features.items():
        each = [acts.pooled(position).features[site] for position in PLACES]
        assert (sp.hstack(each) != X).nnz == 0
    assert both.settings["positions"] == list(PLACES) and both.pooled(list(PLACES)) is both


def test_a_feature_has_its_sources_at_the_same_or_earlier_positions(wide):
    k = int(np.abs(np.log(wide.strengths / 0.1)).argmin())
    width = len(wide.screening[SITES[0]].representative) // 2
    slopes = wide.chain[SITES[1]].standardised(k).toarray()
    source, target = (wide.screening[site].kept // width for site in SITES)  # 0: S2, 1: last
    forbidden = slopes[np.ix_(source == 1, target == 0)]
    assert forbidden.size and not forbidden.any(), "S2 comes before the last token"
    assert slopes[np.ix_(source == 0, target == 1)].any(), "attention looks back"
    stats, use = wide.chain[SITES[1]].stats.standardised(), source == 0
    for j in np.flatnonzero((target == 0) & slopes.any(0))[:4]:  # the lasso of what is allowed
        G, c = stats.correlation_xx[np.ix_(use, use)], stats.correlation_xy[use, j]
        n = use.sum()
        root = np.linalg.cholesky(G + 1e-10 * np.eye(n)).T * np.sqrt(n)
        alpha = wide.strengths[k] * np.abs(c).max()
        theirs = Lasso(alpha, fit_intercept=False, tol=1e-10, max_iter=200_000)
        theirs.fit(root, np.linalg.solve(root.T, c * n))
        np.testing.assert_allclose(slopes[use, j], theirs.coef_, atol=1e-4)


def test_circuits_of_several_positions_say_where(wide):
    circuit = wide.circuit(0.1)
    assert set(circuit.nodes["position"][:-1].tolist()) == set(PLACES)
    assert circuit.settings["positions"] == list(PLACES)
    few = wide.circuit(0.1, max_per_site=5)
    assert max(map(len, few.features().values())) <= 5


def test_the_vector_of_logits_has_the_columns_of_one_logit_each(vector, acts, demo, task):
    assert len(vector.settings["answers"]) == vector.gradient.shape[1] > 2
    path = vector.readout[SITES[-1]]
    values = vector.gradient * 1.0
    answers = np.array(task.answers)[:, 0]
    assert values.shape[0] == acts.n_prompts
    columns = [vector.settings["answers"].index(token) for token in answers.tolist()]
    np.testing.assert_allclose(values[np.arange(len(task)), columns], 1.0, atol=1e-6)
    assert path.coefficients[0].shape[1] == len(vector.settings["answers"])
    assert vector.circuit(0.1).nodes["activation"][-1] == pytest.approx(
        acts.metric[: len(task)].mean(), rel=1e-5
    )


def test_randomised_scores_are_near_the_effects_of_ablation(randomised, demo, saes, task):
    """The penalty shrinks them and other features move too, so they agree in order, not in size."""
    circuit = randomised.circuit(0.03, max_features=None)
    runs = PlacedFeatures.of(demo, saes, task, PLACES)
    placed = circuit.placed_features()
    exact = np.abs(runs.effects(placed, {})[1].mean(1)) / runs.metric().mean()
    score = dict(zip(circuit.ids(), circuit.nodes["score"].tolist(), strict=True))
    mine = [score[f"{at[0]}/{unit}@{at[1]}"] for at in runs.places for unit in placed.get(at, [])]
    assert len(mine) > 100 and scipy.stats.pearsonr(mine, exact).statistic > 0.8
    assert randomised.settings["reads"] == "jointly" and randomised.held_out.max() > 0.6


def test_the_empty_circuit_explains_nothing(randomised):
    assert randomised.held_out[0] == pytest.approx(0, abs=0.05), "an empty circuit scores nothing"
    assert randomised.circuit(1).placed_features() == {}


def test_a_randomised_circuit_is_tested_where_it_was_learnt(randomised, demo, saes):
    held_out = ct.tasks.ioi(demo, n=64, seed=1, test=True)
    circuit = ct.evaluate(
        randomised.circuit(0.1, max_features=80), demo, saes, held_out, draws=3, progress=False
    )
    found = circuit.evidence["ablation"]
    assert found["ablation"] == "corrupted" and found["ablated_positions"] == "S2, last"
    assert found["faithfulness"] > 0.7 > max(found["random_faithfulness"])
    tested = ct.confirm_edges(circuit, demo, saes, held_out, progress=False)
    assert tested.evidence["edges"]["confirmed"] > 0


def test_fits_of_both_designs_come_back_from_a_file(randomised, vector, wide, tmp_path):
    for i, fit in enumerate((randomised, vector, wide)):
        again = ct.LassoFit.load(fit.save(tmp_path / f"{i}.safetensors"))
        for prompt in (None, 3):
            mine, theirs = (each.circuit(0.1, prompt=prompt) for each in (fit, again))
            assert (mine.nodes == theirs.nodes).all() and (mine.edges == theirs.edges).all()


def test_other_prompts_need_their_answers(randomised, demo, saes):
    other = ct.tasks.ioi(demo, n=8, seed=5)
    acts = ct.capture(demo, saes, other, progress=False)
    with pytest.raises(InputError, match="which are right"):
        randomised.on(acts)
    there = randomised.on(acts, other)
    assert there.circuit(0.1, prompt=2).nodes["activation"][-1] == pytest.approx(acts.metric[2])


def test_what_does_not_go_together_is_refused(acts, task, given):
    with pytest.raises(InputError, match="runs the model"):
        ct.CircuitLasso(design="randomised").fit(acts, task, progress=False)
    with pytest.raises(InputError, match="dictionaries="):
        ct.CircuitLasso().fit(acts, task, model=given["model"], progress=False)
    with pytest.raises(InputError, match="positions than 'mean'"):
        ct.CircuitLasso(positions="mean", design="randomised").fit(acts, task, **given)
    for positions in ((), ("last", "last"), ("mean", "last"), "all", 3, ("last", 2)):
        with pytest.raises(InputError, match="positions must"):
            ct.CircuitLasso(positions=positions)
    with pytest.raises(InputError, match="design"):
        ct.CircuitLasso(design="own")
    few = given | {"dictionaries": {SITES[0]: given["dictionaries"][SITES[0]]}}
    with pytest.raises(InputError, match="No dictionary was given"):
        ct.CircuitLasso().fit(acts, task, **few)
    with pytest.raises(InputError, match="other prompts"):
        ct.CircuitLasso().fit(acts, ct.tasks.ioi(given["model"], n=128, seed=9), **given)


def test_wrong_budgets_and_tasks_are_refused(randomised, acts):
    for name in ("max_features", "max_edges", "max_per_site"):
        with pytest.raises(InputError, match=name):
            randomised.circuit(0.1, **{name: "few"})
    with pytest.raises(InputError, match="task must be"):
        randomised.on(acts, "ioi")


def test_features_move_from_their_corrupted_prompts_or_from_the_mean(randomised, acts, demo, saes):
    """The twin of the first prompt is the first corrupted one; a prompt without one has means."""
    n, site = len(randomised.clean), SITES[1]
    kept = randomised.screening[site].kept
    X = acts.pooled(PLACES).features[site][:, kept].toarray()
    moved = randomised.moved[site].toarray()
    np.testing.assert_allclose(moved[:n], X[:n] - X[n:], atol=1e-6)
    own = ct.Task.from_pairs(demo, [("Mary gave a ring to", "Tom gave a ring to", "Mary", "Tom")])
    alone = replace(own, corrupted=(), positions={"S2": (-2,)})
    there = randomised.on(ct.capture(demo, saes, alone, progress=False), alone)
    row = there.rows.features[site][:, kept].toarray()[0]
    np.testing.assert_allclose(there.moved[site].toarray()[0], row - X[n:].mean(0), atol=1e-5)


def test_the_best_of_each_site_are_chosen_in_turn(randomised):
    sizes = {
        site: len(units)
        for site, units in randomised.circuit(0.03, max_features=11).features().items()
    }
    assert sizes == {SITES[0]: 6, SITES[1]: 5}
    few = randomised.circuit(0.03, max_features=11, max_per_site=3)
    assert {site: len(units) for site, units in few.features().items()} == dict.fromkeys(SITES, 3)
    every = randomised.circuit(0.03, max_features=None, max_edges=None)
    inner = every.edges["target"] < len(every.nodes) - 1
    assert inner.any() and np.abs(every.edges["weight"][inner]).min() >= 0.05


def test_a_label_is_of_the_clean_prompts(demo, saes):
    """The corrupted biography has a name of the other gender, and the label of its clean one."""
    task = ct.tasks.bios(demo, n=96)
    acts = ct.capture(demo, saes, task, progress=False)
    fit = ct.CircuitLasso(folds=0).fit(acts, "gender", progress=False)
    assert fit.held_out.max() > 0.95 and fit.readout[SITES[-1]].train_accuracy.max() > 0.95


def test_responses_are_what_follows_minus_what_was(demo, saes, task):
    """Every feature of the first site ablated, by `intervene`, which knows nothing of the runs."""
    few = task.subset(6)
    runs = PlacedFeatures.of(demo, saes, few, ["last"])
    units, _, [added] = drawn(runs, draws=1, share=1.0)
    _, responses = followed(runs, units, added, slice(0, 6), watch=True)
    first, second = SITES
    ablated = units[first, "last"].numpy()
    changes = ct.resample(first, features=ablated, positions="last")
    given = {"dictionaries": saes, "read": [second], "progress": False}
    after = ct.intervene(demo, few, changes, **given).activations[second][0][:, -1]
    later = units[second, "last"]
    moved = (saes[second].encode(after) - runs.acts[second, "last"])[:, later]
    assert moved.abs().max() > 1
    # the same runs in another order of operations: float32
    torch.testing.assert_close(responses[second, "last"], moved, rtol=1e-3, atol=1e-3)
