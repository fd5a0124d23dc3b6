"""Features at places, held against `intervene`, which knows nothing of them."""

import numpy as np
import pytest
import torch

from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import Change, intervene, resample
from circuit_toolkit.patching.placed_features import PlacedFeatures, named_positions
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task, ioi

SITES = [Site("resid_post", 0), Site("resid_post", 1)]
POSITIONS = ["S2", "last"]


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=40, seed=0)


@pytest.fixture(scope="module", params=["corrupted", "mean"])
def runs(request, tiny, tiny_saes, task):
    saes = {site: tiny_saes[site] for site in SITES}
    return PlacedFeatures.of(tiny, saes, task, POSITIONS, request.param)


def some(runs, n=5):
    """The n features of each place that are active most often."""
    often = {place: (acts > 0).sum(0).argsort(descending=True) for place, acts in runs.acts.items()}
    return {place: np.sort(order[:n].numpy()) for place, order in often.items()}


def changes(runs, units, *, all_but):
    """The same ablation, written as changes."""
    found = []
    for (site, position), acts in runs.acts.items():
        mine = np.asarray(units.get((site, position), []), dtype=int)
        out = np.setdiff1d(np.arange(acts.shape[1]), mine) if all_but else mine
        if runs.ablation == "corrupted":
            found.append(resample(site, features=out, positions=position))
        else:
            value = acts.mean(0)[out]
            found.append(Change(site, "put", value, out, positions=position))
    return found


@pytest.mark.parametrize("kept", [True, False])
def test_a_circuit_kept_or_ablated_is_the_intervention(tiny, runs, task, kept):
    circuit = some(runs)
    expected = intervene(
        tiny, task, changes(runs, circuit, all_but=kept),
        dictionaries=runs.dictionaries, progress=False,
    )  # fmt: skip
    found = runs.metric_with(circuit, kept=kept)
    np.testing.assert_allclose(found, expected.metric.numpy(), atol=2e-4)  # float32 logits
    assert np.abs(found - runs.metric()).max() > 0.01


def test_nothing_ablated_is_the_model_and_the_runs_are_those_of_intervene(tiny, runs, task):
    plain = intervene(tiny, task, [], progress=False).metric.numpy()
    np.testing.assert_allclose(runs.metric(), plain, atol=1e-4)
    np.testing.assert_allclose(runs.metric_with({}, kept=False), plain, atol=1e-4)


def test_features_and_errors_of_the_corrupted_prompt_are_its_stream(tiny, tiny_saes, task):
    """Everything ablated, errors too: the site is what it is on the corrupted prompt."""
    saes = {SITES[1]: tiny_saes[SITES[1]]}
    runs = PlacedFeatures.of(tiny, saes, task, POSITIONS, "corrupted")
    patched = [resample(SITES[1], positions=position) for position in POSITIONS]
    expected = intervene(tiny, task, patched, progress=False).metric.numpy()
    found = runs.metric_with({}, errors="ablated")
    np.testing.assert_allclose(found, expected, atol=2e-4)
    everything = {place: np.arange(acts.shape[1]) for place, acts in runs.acts.items()}
    kept = runs.metric_with(everything, errors="ablated")
    assert np.abs(kept - runs.metric()).max() > 0.01, "the errors were ablated"


def test_single_ablations_are_interventions_of_one_feature(tiny, runs, task):
    circuit = some(runs, 3)
    on_features, on_metric = runs.effects(circuit, circuit)
    listed = [(place, unit) for place in runs.places for unit in circuit[place]]
    assert on_features.shape == (12, 12, 40) and on_metric.shape == (12, 40)
    changed = runs.changed(circuit)
    for row in (0, 4, 7, 11):
        place, unit = listed[row]
        one = changes(runs, {place: [unit]}, all_but=False)
        one = [each for each in one if len(each.features)]
        outcome = intervene(
            tiny, task, one, dictionaries=runs.dictionaries, read=[SITES[1]], progress=False
        )
        lost = runs.metric() - outcome.metric.numpy()
        np.testing.assert_allclose(on_metric[row], lost, atol=2e-4)
        assert (on_metric[row][~changed[row]] == 0).all()
        if place[0] == SITES[0]:  # what it does to the other site
            after = torch.cat(outcome.activations[SITES[1]])
            for column in (6, 8, 11):
                (site, position), target = listed[column]
                acts = runs.dictionaries[site].encode(after[torch.arange(40), runs.where[position]])
                lost = runs.acts[site, position][:, target] - acts[:, target]
                np.testing.assert_allclose(on_features[row, column], lost.numpy(), atol=1e-3)
        else:
            assert not on_features[row].any(), "nothing comes later"


def test_fewer_prompts_are_the_first_ones(runs):
    few, circuit = runs.subset(7), some(runs)
    assert len(few) == 7 and few.positions == POSITIONS
    np.testing.assert_allclose(few.metric_with(circuit), runs.metric_with(circuit)[:7], atol=1e-4)


def test_positions_are_tokens_of_their_own(tiny, tiny_saes, task):
    saes = {SITES[0]: tiny_saes[SITES[0]]}
    assert named_positions(task) == ["S1", "S2", "IO", "last"]
    ends = Task(
        "ends", task.clean, task.corrupted, task.answers, task.wrong,
        positions={"end": (-1,) * 40, "S2": task.positions["S2"]},
    )  # fmt: skip
    assert named_positions(ends) == ["S2", "last"]
    for positions, words in [
        (["end", "last"], "are the same token"),
        (["middle"], "names no position"),
        ([], "positions is empty"),
    ]:
        with pytest.raises(InputError, match=words):
            PlacedFeatures.of(tiny, saes, ends, positions)
    with pytest.raises(InputError, match="ablation must be"):
        PlacedFeatures.of(tiny, saes, task, "last", "zero")


def test_prompts_are_ablated_to_the_means_of_others(tiny, tiny_saes, task):
    saes = {site: tiny_saes[site] for site in SITES}
    others = PlacedFeatures.of(tiny, saes, task, POSITIONS, "mean")
    mine = PlacedFeatures.of(tiny, saes, task.select([3, 7]), POSITIONS).ablated_to(others)
    assert mine.ablation == "mean"
    for place, acts in others.acts.items():
        expected = acts.double().mean(0).float()
        for row in mine.reference[place]:  # float32 sums of 40 prompts in another order
            torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(acts[0], expected, atol=1e-3)
        left = others.error[place].double().mean(0).float()
        torch.testing.assert_close(mine.error[place][0], left, rtol=1e-4, atol=1e-5)
