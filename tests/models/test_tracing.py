"""What is read and written is what plain PyTorch hooks on Hugging Face's module see."""

import pytest
import torch

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import run
from circuit_toolkit.sites import Site
from tests.tiny import LAYERS, TEXTS, tiny_hf

LOGITS = Site("logits")
KINDS = ("resid_pre", "attn_z", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
SITES = [Site("embed"), *(Site(kind, i) for i in range(LAYERS) for kind in KINDS), LOGITS]
WRITABLE = [site for site in SITES if site.kind not in ("resid_mid", "logits")]
TOL = 1e-6


def hooked(module, ids, edits=None, mask=None):
    """Activations at all sites by forward hooks; `edits` maps a site to a function."""
    seen, edits, handles = {}, edits or {}, []

    def before(site):
        def hook(_, args):
            seen[site] = edits.get(site, lambda x: x)(args[0])
            return (seen[site], *args[1:])

        return hook

    def after(site):
        def hook(_, __, output):
            whole = output if torch.is_tensor(output) else output[0]
            seen[site] = edits.get(site, lambda x: x)(whole)
            return seen[site] if torch.is_tensor(output) else (seen[site], *output[1:])

        return hook

    body = module.transformer
    handles.append(body.wte.register_forward_hook(after(Site("embed"))))
    for i, block in enumerate(body.h):
        handles += [
            block.register_forward_pre_hook(before(Site("resid_pre", i))),
            block.attn.c_proj.register_forward_pre_hook(before(Site("attn_z", i))),
            block.attn.register_forward_hook(after(Site("attn_out", i))),
            block.ln_2.register_forward_pre_hook(before(Site("resid_mid", i))),
            block.ln_2.register_forward_hook(after(Site("mlp_in", i))),
            block.mlp.register_forward_hook(after(Site("mlp_out", i))),
            block.register_forward_hook(after(Site("resid_post", i))),
        ]
    positions = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        seen[LOGITS] = module(ids, attention_mask=mask, position_ids=positions).logits
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(scope="module")
def values(tiny):
    return run(tiny, tiny.tokenize(TEXTS), SITES)


def test_every_readable_site_is_what_hugging_face_computes(tiny, values):
    module = tiny_hf()
    for row, text in enumerate(TEXTS):
        ids = tiny.tokenize([text]).ids
        reference = hooked(module, ids)
        for site in SITES:
            ours = values[site][row, -ids.shape[1] :]  # padding is on the left
            assert (ours - reference[site][0]).abs().max() <= 2 * TOL, (site, text)
            assert ours.std() > 0.05, f"{site} is trivial: the test would see nothing"


def test_one_prompt_alone_equals_hidden_states_to_the_bit_of_rounding(tiny):
    batch = tiny.tokenize(TEXTS[:1])
    ours = run(tiny, batch, SITES)
    with torch.no_grad():
        theirs = tiny_hf()(batch.ids, output_hidden_states=True)
    for i in range(LAYERS):
        assert (ours[Site("resid_pre", i)] - theirs.hidden_states[i]).abs().max() <= TOL
    assert (ours[Site("resid_post", 0)] - theirs.hidden_states[1]).abs().max() <= TOL
    assert (ours[LOGITS] - theirs.logits).abs().max() <= TOL


def test_the_residual_stream_adds_up(tiny, values):
    for i in range(LAYERS):
        pre, mid, post = (values[Site(f"resid_{at}", i)] for at in ("pre", "mid", "post"))
        assert (mid - pre - values[Site("attn_out", i)]).abs().max() <= TOL
        assert (post - mid - values[Site("mlp_out", i)]).abs().max() <= TOL
        if i + 1 < LAYERS:
            assert torch.equal(post, values[Site("resid_pre", i + 1)])
    places = tiny.hf.transformer.wpe.weight[: values[Site("embed")].shape[1]]
    assert (values[Site("resid_pre", 0)][0] - values[Site("embed")][0] - places).abs().max() <= TOL


def test_a_prompt_gives_the_same_rows_alone_and_padded(tiny, values):
    for row, text in enumerate(TEXTS):
        alone = run(tiny, tiny.tokenize([text]), SITES)
        for site in SITES:
            padded = values[site][row, -alone[site].shape[1] :]
            assert (padded - alone[site][0]).abs().max() <= 2 * TOL, (site, text)


@pytest.mark.parametrize("site", WRITABLE, ids=str)
def test_writing_what_was_read_changes_nothing(tiny, values, site):
    batch = tiny.tokenize(TEXTS)
    out = run(tiny, batch, [LOGITS], {site: lambda x: x.clone()})
    assert (out[LOGITS] - values[LOGITS]).abs().max() <= TOL


@pytest.mark.parametrize("site", WRITABLE, ids=str)
def test_writing_zeros_equals_a_plain_hook(tiny, values, site):
    batch = tiny.tokenize(TEXTS)
    later = [other for other in SITES if other > site]
    ours = run(tiny, batch, later, {site: torch.zeros_like})
    theirs = hooked(tiny_hf(), batch.ids, {site: torch.zeros_like}, batch.mask)
    real = batch.mask.bool()
    for other in later:
        assert (ours[other] - theirs[other])[real].abs().max() <= 2 * TOL, other
    assert (ours[LOGITS] - values[LOGITS])[real].abs().max() > 0.01  # and it did something


def test_several_sites_are_written_in_order_and_read_as_written(tiny):
    batch = tiny.tokenize(TEXTS[:2])
    edits = {
        Site("resid_post", 1): lambda x: x + 1,
        Site("attn_out", 0): torch.zeros_like,
        Site("resid_pre", 0): lambda x: 2 * x,
    }
    ours = run(tiny, batch, [LOGITS, *edits], edits)
    theirs = hooked(tiny_hf(), batch.ids, edits, batch.mask)
    for site in ours:
        difference = (ours[site] - theirs[site])[batch.mask.bool()]
        assert difference.abs().max() <= 2 * TOL, site
    assert not ours[Site("attn_out", 0)].any()


def test_values_that_were_read_are_no_views_of_later_ones(tiny):
    batch = tiny.tokenize(TEXTS)
    read = [Site("resid_pre", 0), Site("attn_out", 0)]
    plain = run(tiny, batch, read)
    kept = {site: value.clone() for site, value in plain.items()}
    run(tiny, batch, [LOGITS], {Site("resid_post", 0): torch.zeros_like})
    for site in read:
        assert torch.equal(plain[site], kept[site])


def test_a_run_stops_after_the_last_site(tiny):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(tiny.hf.transformer.h)
    ]
    handles.append(tiny.hf.lm_head.register_forward_hook(lambda *_: ran.append("head")))
    try:
        run(tiny, tiny.tokenize(TEXTS), [Site("resid_mid", 1)])
        early = list(ran)
        run(tiny, tiny.tokenize(TEXTS), [LOGITS])
    finally:
        for handle in handles:
            handle.remove()
    assert early == [0]
    assert ran[len(early) :] == [0, 1, 2, "head"]


@pytest.mark.parametrize("site", [Site("resid_mid", 0), LOGITS], ids=str)
def test_sites_that_cannot_be_written_are_refused(tiny, site):
    with pytest.raises(InputError, match=f"{site} cannot be written.*resid_post"):
        run(tiny, tiny.tokenize(["Anna"]), [LOGITS], {site: torch.zeros_like})


@pytest.mark.parametrize("site", [Site("head_out", 0), Site("mlp_out", 7)], ids=str)
def test_sites_that_do_not_exist_are_refused(tiny, site):
    with pytest.raises(InputError):
        run(tiny, tiny.tokenize(["Anna"]), [site])
    with pytest.raises(InputError):
        run(tiny, tiny.tokenize(["Anna"]), [LOGITS], {site: torch.zeros_like})
