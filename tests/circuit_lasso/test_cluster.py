"""CircuitLasso on a cluster of two processes: the numbers of one, whatever dies on the way."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

from circuit_toolkit import cluster as sent
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.circuit_lasso import cluster, designs, regressions
from circuit_toolkit.circuit_lasso.cluster import OnWorkers
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.errors import FileFormatError, InputError, MissingExtra
from circuit_toolkit.features.labels import feature_labels
from circuit_toolkit.features.word_shares import word_shares
from circuit_toolkit.models import on_workers
from circuit_toolkit.regression import ConvergenceWarning, LassoPath
from circuit_toolkit.tasks import BUNDLED
from tests.cluster import a_death, calls_of, count_calls, two_workers
from tests.killed import contents
from tests.sinks import with_sinks, without_first

dask = pytest.importorskip("dask.distributed", reason="needs Dask: the extra `scale`")
TOL = 1e-10  # sums in another order differ in the last digits, and so do the solutions


@pytest.fixture(scope="module")
def client():
    with two_workers() as client:
        yield client


@pytest.fixture(scope="module")
def task(tiny):
    return BUNDLED["ioi"](tiny, n=60, seed=0)


@pytest.fixture(scope="module")
def store(tiny, tiny_saes, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return capture(tiny, tiny_saes, task, store=folder, batch_size=16, progress=False)


@pytest.fixture(scope="module")
def local(store, task):
    return ESTIMATOR.fit(store, task)


ESTIMATOR = CircuitLasso(min_active=5)


def assert_same_fit(ours, theirs):
    assert ours.settings == theirs.settings and ours.labels == theirs.labels
    np.testing.assert_allclose(ours.held_out, theirs.held_out, atol=TOL)
    assert (ours.folds is None) == (theirs.folds is None) == (theirs.settings["folds"] == 0)
    if theirs.folds is not None:
        np.testing.assert_allclose(ours.folds, theirs.folds, atol=TOL)
    for site in theirs.sites:
        for name in ("kept", "representative"):
            a, b = (getattr(fit.screening[site], name) for fit in (ours, theirs))
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(ours.scales[site], theirs.scales[site])
        assert abs(ours.rows.features[site] - theirs.rows.features[site]).max() == 0
    assert list(ours.chain) == list(theirs.chain) and list(ours.readout) == list(theirs.readout)
    for name in ("chain", "readout"):
        for site, path in getattr(theirs, name).items():
            found = assert_same_path(getattr(ours, name)[site], path)
            # on a random model adaptive weights may well leave nothing of the target
            assert found or (name == "readout" and theirs.settings["adaptive"])
    for strength in (0.3, 0.1, 0.05):
        for prompt in (None, 3):
            a, b = (fit.circuit(strength, prompt=prompt) for fit in (ours, theirs))
            assert a.ids() == b.ids() and a.settings == b.settings
            for column in ("source", "target"):
                np.testing.assert_array_equal(a.edges[column], b.edges[column])
            np.testing.assert_allclose(a.edges["score"], b.edges["score"], rtol=1e-6)  # float32


def assert_same_path(ours, theirs):
    for name in ("strengths", "alphas", "gap", "kkt"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=TOL)
    np.testing.assert_array_equal(ours.converged, theirs.converged)
    fit = "r2" if isinstance(theirs, LassoPath) else "train_accuracy"
    np.testing.assert_allclose(getattr(ours, fit), getattr(theirs, fit), atol=TOL)
    pairs = list(zip(ours.coefficients, theirs.coefficients, strict=True))
    for k in range(len(pairs)):
        pairs.append((ours.standardised(k), theirs.standardised(k)))
        np.testing.assert_allclose(ours.intercepts(k), theirs.intercepts(k), atol=TOL)
    for a, b in pairs:
        assert a.shape == b.shape and abs(a - b).max() < TOL
    return any(b.nnz for _, b in pairs)


@pytest.mark.parametrize("where", ["store", "memory"])
def test_the_fit_is_the_local_one(client, store, task, local, where):
    acts = store if where == "store" else store.load()
    assert_same_fit(ESTIMATOR.fit(acts, task, client=client, progress=False), local)


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"reads": "all"}, None),
        ({"positions": "mean", "strengths": (1.0, 0.3, 0.1)}, None),
        ({"positions": "S2"}, None),
        ({"reads": "all", "strengths": (1.0, 0.5, 0.2)}, "s_gender"),
        ({"adaptive": True, "folds": 0}, None),
        ({"adaptive": True, "strengths": (1.0, 0.5, 0.2)}, "s_gender"),
    ],
)
def test_so_it_is_with_other_settings(client, store, task, settings, target):
    estimator = replace(ESTIMATOR, **settings)
    local = estimator.fit(store, target or task, labels={})
    far = estimator.fit(store, target or task, labels={}, client=client, progress=False)
    assert_same_fit(far, local)


def test_targets_are_fitted_in_blocks(client, store, task, local, monkeypatch):
    monkeypatch.setattr(regressions, "_TARGETS", 3)
    monkeypatch.setattr(regressions, "_TASKS", 1000)
    client.run(count_calls, regressions.__name__, "block_path")
    far = ESTIMATOR.fit(store, task, client=client, progress=False)
    assert sum(client.run(calls_of, regressions.__name__).values()) > 4 * len(local.chain)
    assert_same_fit(far, local)


@pytest.mark.parametrize("stage", ["pooled", "same", "columns", "block_path"])
def test_a_worker_that_dies_mid_way_is_survived(
    client, store, task, local, stage, monkeypatch, tmp_path
):
    """The first to begin a task of the stage is killed in the midst of it; what it held is lost."""
    monkeypatch.setattr(regressions, "_TARGETS", 5)
    monkeypatch.setattr(regressions, "_TASKS", 8)
    acts = store.load() if stage == "same" else store
    module = next(each for each in (sent, cluster, regressions) if hasattr(each, stage))
    with a_death(client, module.__name__, stage, tmp_path / "died"):
        far = ESTIMATOR.fit(acts, task, client=client, progress=False)
    assert_same_fit(far, local)


def test_workers_need_no_model(client, store, task):
    ESTIMATOR.fit(store, task, client=client, progress=False)
    assert not any(client.run(has_loaded, "nnsight").values())


def has_loaded(name):
    return name in sys.modules


def test_second_moments_stay_where_they_are_and_a_path_says_so(client, store, task, local):
    far = ESTIMATOR.fit(store, task, client=client, progress=False)
    site, path = next(iter(far.chain.items()))
    assert repr(path) == repr(local.chain[site])
    with pytest.raises(InputError, match="on a cluster.* Put the strength among"):
        path.solve(0.123)
    stats = local.chain[site].stats
    np.testing.assert_allclose(path.held_out_r2(stats), local.chain[site].r2, atol=1e-8)


@pytest.mark.parametrize("notebook", [True, False])
def test_the_bar_of_dask_is_shown(client, store, task, notebook, monkeypatch, capsys):
    import IPython.display
    from distributed.diagnostics import progressbar

    shown = []
    monkeypatch.setattr(progressbar, "is_kernel", lambda: notebook)
    monkeypatch.setattr(IPython.display, "display", shown.append)
    ESTIMATOR.fit(store, task, client=client)
    assert [type(bar).__name__ for bar in shown] == ["MultiProgressWidget"] * 3 * notebook
    assert ("100% Completed" in capsys.readouterr().out) != notebook


def test_what_is_not_certified_is_said_where_the_fit_was_called(client, store, task):
    client.run(doubt)
    try:
        with pytest.warns(ConvergenceWarning, match="of .* solutions are not certified") as caught:
            ESTIMATOR.fit(store, task, client=client, progress=False)
        assert [w.filename for w in caught if w.category is ConvergenceWarning] == [__file__]
    finally:
        client.run(trust)


def doubt():
    regressions.plain = regressions.light
    regressions.light = lambda path: replace(
        regressions.plain(path), converged=np.zeros_like(path.converged)
    )


def trust():
    regressions.light = regressions.plain


def test_a_feature_that_hardly_fires_is_refused_as_on_one_machine(client, store, task):
    with pytest.raises(InputError, match="No feature of .* is active on 999 of 96 training rows"):
        CircuitLasso(min_active=999).fit(store, task, client=client, progress=False)


@pytest.mark.parametrize("there", [False, True])
def test_no_prompts_to_train_on_are_refused(client, store, task, there):
    acts = replace(store.load(), groups=np.zeros(store.n_prompts, int))
    with pytest.raises(InputError, match="All 1 groups of prompts would be held out"):
        ESTIMATOR.fit(acts, task, client=client if there else None, progress=False)


def test_a_damaged_shard_is_named(client, store, task, tmp_path):
    copy = type(store).open(shutil.copytree(store.folder, tmp_path / "copy"))
    (copy.folder / "shard-00002.safetensors").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="shard-00002.safetensors is damaged"):
        ESTIMATOR.fit(copy, task, client=client, progress=False)


def test_a_folder_that_workers_do_not_see_is_refused(client, store, task, tmp_path):
    with pytest.raises(InputError, match="2 of 2 workers do not see the store .*elsewhere"):
        there = replace(store, folder=tmp_path / "elsewhere")
        ESTIMATOR.fit(there, task, client=client, progress=False)


def test_a_cluster_without_workers_is_refused(store, task):
    settings = {"dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with (
        dask.LocalCluster(n_workers=0, **settings) as cluster,
        dask.Client(cluster) as alone,
        pytest.raises(InputError, match="has no workers. Start some, cluster.scale"),
    ):
        ESTIMATOR.fit(store, task, client=alone)


def test_what_is_no_client_is_refused(store, task):
    with pytest.raises(InputError, match="that is not asynchronous, got str"):
        ESTIMATOR.fit(store, task, client="tcp://127.0.0.1:8786")


def test_where_dask_is_not_installed_the_extra_is_named(store, task, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'circuit_toolkit\[scale\]'"):
        ESTIMATOR.fit(store, task, client=object())


def test_words_summed_on_workers_name_what_they_name_here(store, client, tmp_path):
    """Sinks are left out once, and no word after that for being frequent."""
    loud = with_sinks(store.load())
    far = ActivationStore.open(loud.save(tmp_path / "loud"))
    found = word_shares(OnWorkers(client, far, progress=False)).labels()
    assert found == feature_labels(loud) == feature_labels(without_first(store.load()))


# Randomised runs, last in this file: workers load the model for them.


RANDOMISED = CircuitLasso(positions=("S2", "last"), min_active=5, draws=2, folds=2)


@pytest.fixture(scope="module")
def given(tiny, tiny_saes):
    return {"model": tiny, "dictionaries": tiny_saes, "progress": False}


@pytest.fixture(scope="module")
def randomised(store, task, given):
    return RANDOMISED.fit(store, task, **given)


@pytest.mark.parametrize("stage", ["followed", "columns"])
def test_randomised_runs_are_the_local_ones_whoever_dies(
    client, store, task, given, randomised, stage, monkeypatch, tmp_path
):
    """In the midst of a run, and of the regressions, when what it ran is lost and run again."""
    monkeypatch.setattr(designs, "SIZE", 16)
    before = contents(store.folder)
    module = next(each for each in (designs, regressions) if hasattr(each, stage))
    with a_death(client, module.__name__, stage, tmp_path / "died"):
        far = RANDOMISED.fit(store, task, client=client, **given)
    assert far.settings["design"] == "randomised" and far.settings["reads"] == "jointly"
    assert_same_fit(far, randomised)
    np.testing.assert_array_equal(far.gradient, randomised.gradient)
    assert contents(store.folder) == before


def test_a_worker_loads_the_model_for_all_runs_not_for_each(
    client, store, task, given, monkeypatch
):
    """Once; or twice, where Dask dropped a copy that nobody waited for."""
    monkeypatch.setattr(designs, "SIZE", 16)
    client.run(count_calls, on_workers.__name__, "put_together")
    RANDOMISED.fit(store, task, client=client, **given)
    loads = client.run(calls_of, on_workers.__name__)
    assert set(loads.values()) <= {0, 1, 2} and sum(loads.values()) < 8, loads


def test_randomised_runs_want_a_store_on_a_cluster(client, store, task, given):
    with pytest.raises(InputError, match="pass the store of capture.*observational"):
        RANDOMISED.fit(store.load(), task, client=client, **given)
    plain = replace(RANDOMISED, design="observational")
    far = plain.fit(store.load(), task, client=client, **given)
    assert far.settings["design"] == "observational"


def test_a_fit_that_fails_leaves_no_weights_behind(client, store, task, given):
    """Not even while its traceback is kept, as a notebook keeps the last one."""
    with pytest.raises(InputError, match="No feature of .* is active on 9999") as caught:
        replace(RANDOMISED, min_active=9999).fit(store, task, client=client, **given)
    assert caught.tb and not [*store.folder.glob(".weights*")]
