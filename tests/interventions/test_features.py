"""Changes of features are what plain PyTorch hooks with the formula of the dictionary do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import Change, add, intervene, mean_ablation, put, zero
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi
from tests.tiny import FEATURES, TEXTS, K, last_logits, residual_sites, tiny_hf

SITES = residual_sites()


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=8, seed=2)


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes, task):
    return capture(tiny, tiny_saes, task, progress=False)


@pytest.fixture(scope="module")
def plain():
    module = tiny_hf()
    return torch.stack([last_logits(module, text) for text in TEXTS])


def by_hooks(tiny, saes, texts, replaced, values, places=None):
    """Logits (prompts, V): one prompt at a time, formulas written out, hooks of PyTorch."""
    module, out = tiny_hf(), []

    def hook_of(site, rows):
        sae = saes[site].sae

        def change(x):  # (1, T, D)
            pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
            best = pre.topk(K, dim=-1)
            acts = torch.zeros_like(pre).scatter(-1, best.indices, best.values.relu())
            for t in range(x.shape[1]) if rows is None else rows:
                for feature in np.flatnonzero(replaced[site]):
                    if t > 0:  # <bos> is left alone
                        delta = values[site][feature] - acts[0, t, feature]
                        x[0, t] += delta * sae.W_dec[feature]
            return x

        if site.kind == "resid_pre":
            return module.transformer.h[0].register_forward_pre_hook(
                lambda _, args: (change(args[0].clone()), *args[1:])
            )
        return module.transformer.h[site.layer].register_forward_hook(
            lambda _, __, x: (
                change(x.clone()) if torch.is_tensor(x) else (change(x[0].clone()), *x[1:])
            )
        )

    for i, text in enumerate(texts):
        rows = None if places is None else [places[i]]
        handles = [hook_of(site, rows) for site in replaced]
        out.append(last_logits(module, text))
        for handle in handles:
            handle.remove()
    return torch.stack(out)


def some(seed=0, n=25):
    """Random features at every site."""
    rng = np.random.default_rng(seed)
    return {site: np.sort(rng.choice(FEATURES, n, replace=False)) for site in SITES}


def masks(changes):
    """Replaced features and their values, as masks over all features of a site."""
    replaced, values = {}, {}
    for item in changes:
        replaced[item.site] = np.isin(np.arange(FEATURES), item.features)
        values[item.site] = np.zeros(FEATURES)
        values[item.site][item.features] = item.value
    return replaced, values


def test_tokens_are_counted_from_the_beginning_of_each_prompt(tiny, tiny_saes):
    """In a batch as alone: padding stands on the left."""
    site = SITES[1]
    lengths = [len(tiny.tokenizer(text)["input_ids"]) for text in TEXTS]
    plain = intervene(tiny, TEXTS, [], progress=False).logits
    for number in (0, 2, min(lengths), max(lengths) - 1):
        change = put(site, 2.0, features=[3, 7], positions=number)
        together = intervene(tiny, TEXTS, change, dictionaries=tiny_saes, progress=False).logits
        for i, text in enumerate(TEXTS):
            want = plain[i]
            if number < lengths[i]:
                from_end = put(site, 2.0, features=[3, 7], positions=number - lengths[i])
                alone = intervene(tiny, [text], from_end, dictionaries=tiny_saes, progress=False)
                want = alone.logits[0]
                assert (want - plain[i]).abs().max() > 1e-3
            torch.testing.assert_close(together[i], want, rtol=1e-4, atol=1e-4)


def test_no_changes_are_the_plain_run(tiny, tiny_saes, acts, plain):
    exact = intervene(tiny, TEXTS, [], dictionaries=tiny_saes).logits
    assert torch.equal(
        exact, intervene(tiny, TEXTS, mean_ablation(acts, {}), dictionaries=tiny_saes).logits
    )
    torch.testing.assert_close(exact, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_the_size_of_batches_does_not_matter(tiny, tiny_saes, acts, batch_size):
    changes = mean_ablation(acts, some())
    one = intervene(tiny, TEXTS, changes, dictionaries=tiny_saes, batch_size=batch_size).logits
    two = intervene(tiny, TEXTS, changes, dictionaries=tiny_saes).logits
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_features_that_are_set_to_what_they_are_change_nothing(tiny, tiny_saes, plain):
    for row, text in enumerate(TEXTS):
        own = capture(tiny, tiny_saes, [text], "last", progress=False)
        changes = mean_ablation(own, {}, complement=True)  # every feature to its mean: itself
        assert all(len(item.features) == FEATURES for item in changes)
        logits = intervene(tiny, [text], changes, dictionaries=tiny_saes).logits
        assert (logits[0] - plain[row]).abs().max() <= 1e-5


def test_a_mean_ablation_equals_plain_hooks(tiny, tiny_saes, acts, plain):
    features, means = some(), acts.means()
    ours = intervene(tiny, TEXTS, mean_ablation(acts, features), dictionaries=tiny_saes).logits
    replaced = {site: np.isin(np.arange(FEATURES), features[site]) for site in SITES}
    theirs = by_hooks(tiny, tiny_saes, TEXTS, replaced, means)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    assert (ours - plain).abs().max() > 0.05


def test_the_complement_is_all_the_others(tiny, tiny_saes, acts):
    features = {SITES[0]: np.arange(10), SITES[2]: np.array([], int)}
    changes = mean_ablation(acts, features, complement=True)
    assert [item.site for item in changes] == list(SITES)
    assert changes[0].features.tolist() == list(range(10, FEATURES))
    assert all(len(item.features) == FEATURES for item in changes[1:])
    ours = intervene(tiny, TEXTS, changes, dictionaries=tiny_saes).logits
    theirs = by_hooks(tiny, tiny_saes, TEXTS, masks(changes)[0], acts.means())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    everything = {site: np.arange(FEATURES) for site in SITES}
    assert mean_ablation(acts, everything, complement=True) == []


def test_zeros_and_values_of_ones_own(tiny, tiny_saes):
    site = SITES[1]
    ours = intervene(
        tiny, TEXTS, [zero(site, features=range(FEATURES))], dictionaries=tiny_saes
    ).logits
    theirs = by_hooks(
        tiny, tiny_saes, TEXTS, {site: np.ones(FEATURES, bool)}, {site: np.zeros(FEATURES)}
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    changes = [put(site, [0.5, 2.0], features=[7, 3])]
    ours = intervene(tiny, TEXTS, changes, dictionaries=tiny_saes).logits
    theirs = by_hooks(tiny, tiny_saes, TEXTS, *masks(changes))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("positions", ["last", "S2", "IO"])
def test_a_change_at_one_position_touches_that_token_alone(tiny, tiny_saes, acts, task, positions):
    rows = acts.pooled(positions)
    changes = mean_ablation(rows, some())
    assert {item.positions for item in changes} == {positions}
    ours = intervene(tiny, task, changes, dictionaries=tiny_saes, batch_size=3).logits
    places = rows.position[: len(task)].tolist()  # of the clean prompts
    replaced, _ = masks(changes)
    theirs = by_hooks(tiny, tiny_saes, task.clean, replaced, rows.means(), places)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    everywhere = [replace(item, positions="all") for item in changes]
    there = intervene(tiny, task, everywhere, dictionaries=tiny_saes).logits
    assert (there - ours).abs().max() > 0.01


def test_means_over_prompts_act_on_every_token(tiny, tiny_saes, acts, task):
    rows = acts.pooled("mean")
    changes = mean_ablation(rows, some(3))
    theirs = by_hooks(tiny, tiny_saes, task.clean, masks(changes)[0], rows.means())
    ours = intervene(tiny, task, changes, dictionaries=tiny_saes).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_of_a_task_the_clean_prompts_are_run_and_scored(tiny, tiny_saes, task):
    ours = intervene(tiny, task, [], dictionaries=tiny_saes)
    assert ours.logits.shape == (len(task), len(tiny.tokenizer))
    there = intervene(tiny, list(task.clean), [], dictionaries=tiny_saes)
    torch.testing.assert_close(ours.logits, there.logits)
    assert there.metric is None
    torch.testing.assert_close(ours.metric, task.score(ours.logits, range(len(task))))


def test_what_cannot_be_changed_is_refused(tiny, tiny_saes, acts):
    site = SITES[1]
    with pytest.raises(InputError, match="was not captured, only blocks.0"):
        mean_ablation(acts, {Site("resid_mid", 0): np.array([1])})
    for bad in (-1, FEATURES):
        with pytest.raises(InputError, match="has features 0 to 79"):
            mean_ablation(acts, {site: np.array([3, bad])})
        with pytest.raises(InputError, match="has features 0 to 79"):
            intervene(tiny, TEXTS, [zero(site, features=[3, bad])], dictionaries=tiny_saes)
        with pytest.raises(InputError, match="has heads 0 to 3"):
            intervene(tiny, TEXTS, [zero("attn_z 1", heads=[0, bad])])
    changes = mean_ablation(acts, {site: np.array([3])})
    with pytest.raises(InputError, match="No prompts"):
        intervene(tiny, [], changes, dictionaries=tiny_saes)
    with pytest.raises(InputError, match="No dictionary was given for blocks.0.hook_resid_post"):
        intervene(tiny, TEXTS, changes, dictionaries={SITES[0]: tiny_saes[SITES[0]]})
    with pytest.raises(InputError, match="name no position 'S2'"):
        intervene(tiny, TEXTS, [replace(changes[0], positions="S2")], dictionaries=tiny_saes)
    most = max(len(tiny.tokenizer(text)["input_ids"]) for text in TEXTS)
    for position in (most, -most - 1):
        with pytest.raises(InputError, match=f"counted from 0 to {most - 1}.*got {position}"):
            intervene(
                tiny, TEXTS, [replace(changes[0], positions=position)], dictionaries=tiny_saes
            )
    with pytest.raises(InputError, match="2 units .* need as many values, got 3"):
        intervene(tiny, TEXTS, [put(site, [1, 2, 3], features=[1, 2])], dictionaries=tiny_saes)
    with pytest.raises(InputError, match="is not per head: use attn_z"):
        zero("resid_post 1", heads=[1])
    with pytest.raises(InputError, match="not of both"):
        put(site, 0.0, features=[1], heads=[1])
    with pytest.raises(InputError, match="NaN or infinity"):
        add(site, float("nan"))
    with pytest.raises(InputError, match="takes a value"):
        Change(site, "scale")
    with pytest.raises(InputError, match="takes no value"):
        Change(site, "resample", 1.0)
    with pytest.raises(InputError, match="how must be one of .*got 'ablate'"):
        Change(site, "ablate", 1.0)
    with pytest.raises(InputError, match="whole numbers"):
        zero(site, features=[1.5])
