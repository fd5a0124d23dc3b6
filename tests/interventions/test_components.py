"""Changes of heads and sites, many at once, resampled, and in what is written next."""

import numpy as np
import pytest
import torch

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.dictionaries import load_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import (
    Change,
    add,
    generate,
    intervene,
    intervene_each,
    intervened,
    put,
    resample,
    scale,
    zero,
)
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.sites import KINDS, Site
from circuit_toolkit.tasks import agreement, ioi
from tests.models.test_tracing import written_out
from tests.tiny import FEATURES, LAYERS, TEXTS, last_logits, tiny_hf

TOL = 1e-5
TEXT = TEXTS[1]
INSIDE = [Site(kind, 1) for kind in KINDS if kind not in ("embed", "logits")]


def expected(text, site, edit, tiny):
    """Logits at the last token by the GPT-2 that is written out; <bos> is left alone."""

    def but_bos(x):
        new = edit(x.clone())
        axis = 2 if site.kind == "attn_pattern" else 1
        kept = x.narrow(axis, 0, 1)
        return torch.cat([kept, new.narrow(axis, 1, new.shape[axis] - 1)], axis)

    ids = tiny.tokenize([text]).ids
    return written_out(tiny_hf(), ids, edits={site: but_bos})[LOGITS][0, -1]


@pytest.fixture(scope="module")
def plain():
    return last_logits(tiny_hf(), TEXT)


@pytest.mark.parametrize("site", INSIDE, ids=str)
def test_whole_sites_are_set_scaled_and_added_to(tiny, plain, site):
    for how, value, edit in [
        ("put", 0.0, torch.zeros_like),
        ("scale", 0.5, lambda x: 0.5 * x),
        ("add", 0.3, lambda x: x + 0.3),
    ]:
        ours = intervene(tiny, [TEXT], [Change(site, how, value)]).logits[0]
        assert (ours - expected(TEXT, site, edit, tiny)).abs().max() <= TOL, how
    same = intervene(tiny, [TEXT], [scale(site, 1.0)]).logits[0]
    assert (same - plain).abs().max() <= 2e-6


@pytest.mark.parametrize("kind", ["attn_z", "head_out", "attn_pattern"])
def test_heads_are_changed_one_by_one(tiny, kind):
    site, axis = Site(kind, 1), 1 if kind == "attn_pattern" else 2

    def edit(x):
        x.index_select(axis, torch.tensor([1, 3]))
        for head in (1, 3):
            x.select(axis, head).zero_()
        return x

    ours = intervene(tiny, [TEXT], [zero(site, heads=[1, 3])]).logits[0]
    assert (ours - expected(TEXT, site, edit, tiny)).abs().max() <= TOL
    if kind == "attn_z":
        vectors = torch.randn(2, tiny.d_head)

        def edit_two(x):
            x[:, :, [3, 0]] = vectors
            return x

        ours = intervene(tiny, [TEXT], [put(site, vectors, heads=[3, 0])]).logits[0]
        assert (ours - expected(TEXT, site, edit_two, tiny)).abs().max() <= TOL


def test_a_direction_is_added_at_one_token(tiny):
    site, direction = Site("resid_post", 0), torch.randn(tiny.width)

    def edit(x):
        x[:, -2] += direction
        return x

    ours = intervene(tiny, [TEXT], [add(site, direction, positions=-2)]).logits[0]
    assert (ours - expected(TEXT, site, edit, tiny)).abs().max() <= TOL


def test_several_changes_act_in_one_run_and_later_ones_see_earlier_ones(tiny):
    site = Site("mlp_out", 0)
    changes = [add(site, 1.0), scale(site, 2.0), zero("attn_out 1")]
    ids = tiny.tokenize([TEXT]).ids
    keep = torch.tensor([1.0] + [0.0] * (ids.shape[1] - 1))[None, :, None]
    edits = {
        site: lambda x: keep * x + (1 - keep) * (x + 1) * 2,
        Site("attn_out", 1): lambda x: keep * x,
    }
    theirs = written_out(tiny_hf(), ids, edits=edits)[LOGITS][0, -1]
    assert (intervene(tiny, [TEXT], changes).logits[0] - theirs).abs().max() <= TOL


def test_resampling_takes_what_the_corrupted_prompt_has(tiny, tiny_saes):
    task = agreement(tiny, n=6, seed=0)
    lengths = {len(tiny.tokenize([t]).ids[0]) for t in (*task.clean, *task.corrupted)}
    assert len(lengths) > 1  # batches are padded
    everything = [resample("resid_post 0", positions="all")]
    ours = intervene(tiny, task, everything).logits  # <bos> is the same in both
    theirs = intervene(tiny, list(task.corrupted), []).logits
    assert (ours - theirs).abs().max() <= TOL
    site = Site("resid_post", 1)
    units = [3, 40, 41]
    ours = intervene(tiny, task, [resample(site, features=units)], dictionaries=tiny_saes).logits
    corrupted = capture(tiny, tiny_saes, list(task.corrupted), progress=False)
    for row, text in enumerate(task.clean):
        ids = tiny.tokenize([text]).ids
        values = torch.tensor(corrupted.features[site][corrupted.prompt == row][:, units].toarray())

        def edit(x, values=values):
            acts = tiny_saes[site].encode(x)
            new = acts.clone()
            new[0, 1:, units] = values
            return x + (new - acts) @ tiny_saes[site].directions

        theirs = written_out(tiny_hf(), ids, edits={site: edit})[LOGITS][0, -1]
        assert (ours[row] - theirs).abs().max() <= 2 * TOL
    heads = [resample("head_out 1", heads=[2])]
    assert (intervene(tiny, task, heads).logits - intervene(tiny, task, []).logits).abs().max() > 0


def test_resampling_wants_corrupted_prompts_that_correspond(tiny):
    changes = [resample("resid_post 0")]
    with pytest.raises(InputError, match="pass a task whose prompts have corrupted prompts"):
        intervene(tiny, TEXTS, changes)
    task = ioi(tiny, n=2, seed=0)
    from dataclasses import replace

    uneven = replace(task, corrupted=(TEXTS[1], TEXTS[1]))
    with pytest.raises(InputError, match="differ in length"):
        intervene(tiny, uneven, changes)


def test_frozen_attention_holds_the_patterns_of_the_plain_run(tiny):
    direction = torch.randn(tiny.width)  # a constant would vanish in the norms
    changes = [add("resid_post 0", direction)]
    patterns = [Site("attn_pattern", layer) for layer in range(LAYERS)]
    batch = tiny.tokenize([TEXT])
    before = run(tiny, batch, patterns)
    frozen = intervene(tiny, [TEXT], changes, freeze_attention=True, read=patterns)
    free = intervene(tiny, [TEXT], changes, read=patterns)
    for site in patterns:
        assert torch.equal(frozen.activations[site][0], before[site])
    assert (free.activations[patterns[1]][0] - before[patterns[1]]).abs().max() > 1e-3
    assert (frozen.logits - free.logits).abs().max() > 1e-3
    held = {site: (lambda _, x=before[site]: x) for site in patterns} | {
        Site("resid_post", 0): lambda x: x + direction * (torch.arange(x.shape[1]) > 0)[:, None]
    }
    theirs = written_out(tiny_hf(), batch.ids, edits=held)[LOGITS][0, -1]
    assert (frozen.logits[0] - theirs).abs().max() <= TOL


def test_many_interventions_at_once_are_each_of_them(tiny, tiny_saes):
    task = ioi(tiny, n=5, seed=1)
    site = Site("resid_post", 0)
    each = [[zero(site, features=[f])] for f in range(0, FEATURES, 4)]
    each += [[zero("head_out 1", heads=[h])] for h in range(4)]
    each += [[add(site, 1.0, positions="S2"), zero("mlp_out 2", positions="last")], []]
    at_once = intervene_each(tiny, task, each, dictionaries=tiny_saes, batch_size=32)
    for changes, ours in zip(each, at_once, strict=True):
        theirs = intervene(tiny, task, changes, dictionaries=tiny_saes)
        assert (ours.logits - theirs.logits).abs().max() <= TOL
        torch.testing.assert_close(ours.metric, theirs.metric, rtol=0, atol=TOL)
    assert (at_once[0].logits - at_once[-1].logits).abs().max() > 0
    with pytest.raises(InputError, match="do not resample"):
        intervene_each(tiny, task, [[resample(site)]], dictionaries=tiny_saes)


def test_prompts_on_which_nothing_changes_are_not_run_again(tiny, tiny_saes, monkeypatch):
    """A feature that is silent on a prompt, though not upstream of another that is not."""
    import importlib

    module = importlib.import_module("circuit_toolkit.interventions.runs")
    task, site = ioi(tiny, n=6, seed=2), Site("resid_post", 1)
    batch = tiny.tokenize(task.clean)
    acts = tiny_saes[site].encode(run(tiny, batch, [site])[site])
    acts[(batch.ids == tiny.bos_id) | (batch.mask == 0)] = 0
    fires = (acts > 0).any(1)  # (prompts, F)
    some = ((fires.sum(0) > 0) & (fires.sum(0) < 6)).nonzero().flatten().tolist()
    each = [[zero(site, features=[f])] for f in some]
    each += [[zero(Site("resid_post", 0), features=range(0, FEATURES, 2)), *each[0]], []]
    sizes = []

    def counting(model, batch, *args, **options):
        sizes.append(len(batch.ids))
        return run(model, batch, *args, **options)

    want = [intervene(tiny, task, changes, dictionaries=tiny_saes).logits for changes in each]
    monkeypatch.setattr(module, "run", counting)
    got = intervene_each(tiny, task, each, dictionaries=tiny_saes, batch_size=7)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours.logits - theirs).abs().max() <= TOL
    assert sum(sizes) == 6 + int(fires[:, some].sum()) + 6 and max(sizes) <= 7
    assert len(some) > 3 and intervene_each(tiny, task, [], dictionaries=tiny_saes) == []


def test_features_of_transcoders_change_what_their_mlp_writes(tiny, tiny_folder):
    transcoders = load_dictionaries(tiny, tiny_folder, kind="transcoder")
    site, units = Site("mlp_in", 1), np.arange(0, FEATURES, 2)
    ours = intervene(tiny, [TEXT], [zero(site, features=units)], dictionaries=transcoders).logits[0]
    ids = tiny.tokenize([TEXT]).ids
    read = written_out(tiny_hf(), ids)[site]
    acts = transcoders[site].encode(read)
    acts[:, 0] = 0  # <bos>
    lost = acts[..., units] @ transcoders[site].directions[units]
    edits = {Site("mlp_out", 1): lambda y: y - lost}
    theirs = written_out(tiny_hf(), ids, edits=edits)[LOGITS][0, -1]
    assert (ours - theirs).abs().max() <= TOL
    assert lost.abs().max() > 0.1


def test_an_intervened_model_can_be_captured(tiny, tiny_saes):
    site = Site("resid_post", 1)
    with intervened(tiny, [zero("attn_out 1")]) as changed:
        ours = capture(changed, tiny_saes, list(TEXTS), progress=False)
        plain = capture(tiny, tiny_saes, list(TEXTS), progress=False)
    batch = tiny.tokenize(list(TEXTS))
    keep = (batch.ids == tiny.bos_id)[..., None] | (batch.mask == 0)[..., None]
    values = run(tiny, batch, [site], {Site("attn_out", 1): lambda x: x * keep})
    expected = tiny_saes[site].encode(values[site][batch.mask.bool() & ~keep[..., 0]])
    np.testing.assert_allclose(ours.features[site].toarray(), expected.numpy(), atol=TOL)
    assert abs(ours.features[site] - plain.features[site]).max() > 0.01
    with pytest.raises(InputError, match="corrupted"), intervened(tiny, [resample(site)]):
        pass


def test_interventions_nest(tiny):
    outer, inner = add("mlp_out 0", 1.0), scale("mlp_out 0", 2.0)
    site = Site("mlp_out", 0)
    with intervened(tiny, [outer]) as once, intervened(once, [inner, zero("attn_out 2")]) as twice:
        ours = run(twice, tiny.tokenize([TEXT]), [site, LOGITS])
    theirs = intervene(tiny, [TEXT], [outer, inner, zero("attn_out 2")], read=[site])
    assert (ours[site] - theirs.activations[site][0]).abs().max() <= TOL
    assert (ours[LOGITS][:, -1] - theirs.logits).abs().max() <= TOL


def test_text_goes_on_with_and_without_the_intervention(tiny):
    changes = [zero("attn_out 0"), zero("mlp_out 1")]
    said = generate(tiny, TEXT, changes, max_new_tokens=5)
    module, ids = tiny_hf(), tiny.tokenize([TEXT]).ids
    with torch.no_grad():
        theirs = module.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
    assert said.prompt == TEXT
    assert said.before == tiny.tokenizer.decode(theirs[0, ids.shape[1] :])
    by_hand = ids
    for _ in range(5):
        text = tiny.tokenizer.decode(by_hand[0, 1:])
        logits = intervene(tiny, [text], changes).logits
        by_hand = torch.cat([by_hand, logits.argmax(-1, keepdim=True)], 1)
    assert said.after == tiny.tokenizer.decode(by_hand[0, ids.shape[1] :]) != said.before
    sampled = [generate(tiny, TEXT, [], temperature=1.0, seed=s) for s in (0, 0, 1)]
    assert sampled[0] == sampled[1] != sampled[2] and sampled[0].before == sampled[0].after
    with pytest.raises(InputError, match="at least 1"):
        generate(tiny, TEXT, changes, max_new_tokens=0)
