"""What is read and written is what a GPT-2 written out in plain PyTorch computes."""

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.sites import KINDS, Site
from tests.tiny import LAYERS, TEXTS, tiny_hf

IN_BLOCK = [kind for kind in KINDS if kind not in ("embed", "logits")]
SITES = [Site("embed"), *(Site(kind, i) for i in range(LAYERS) for kind in IN_BLOCK), LOGITS]
TOL = 1e-6


def written_out(module, ids, mask=None, edits=None):
    """Activations at all sites, step by step; `edits` maps a site to a function."""
    seen, edits = {}, edits or {}
    body, heads = module.transformer, module.config.n_head
    mask = torch.ones_like(ids) if mask is None else mask
    causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool() & mask.bool()[:, None, None]
    hidden = -1e9 * ~causal  # (B, 1, T, T)

    def at(kind, layer, x):
        site = Site(kind, layer)
        seen[site] = edits.get(site, lambda y: y)(x)
        return seen[site]

    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, H, T, d_head)

    with torch.no_grad():
        places = (mask.cumsum(1) - 1).clamp(min=0)
        x = at("embed", 0, body.wte.weight[ids]) + body.wpe.weight[places]
        for i, block in enumerate(body.h):
            x = at("resid_pre", i, x)
            attn, width = block.attn, x.shape[-1]
            qkv = block.ln_1(x) @ attn.c_attn.weight + attn.c_attn.bias
            q, k, v = (split(part) for part in qkv.split(width, -1))
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            pattern = at("attn_pattern", i, (scores + hidden).softmax(-1))
            z = at("attn_z", i, (pattern @ v).transpose(1, 2))
            out = z[..., None, :] @ attn.c_proj.weight.unflatten(0, (heads, -1))
            out = at("head_out", i, out[..., 0, :]).sum(2) + attn.c_proj.bias
            x = at("resid_mid", i, x + at("attn_out", i, out))
            normed = at("mlp_in", i, layer_norm(x, (width,), eps=block.ln_2.eps))
            normed = at("mlp_norm", i, normed * block.ln_2.weight + block.ln_2.bias)
            inner = normed @ block.mlp.c_fc.weight + block.mlp.c_fc.bias
            inner = gelu(inner, approximate="tanh") @ block.mlp.c_proj.weight
            x = at("resid_post", i, x + at("mlp_out", i, inner + block.mlp.c_proj.bias))
        at("logits", 0, body.ln_f(x) @ module.lm_head.weight.T)
    return seen


@pytest.fixture(scope="module")
def values(tiny):
    return run(tiny, tiny.tokenize(TEXTS), SITES)


def distance(ours, theirs, site, mask):
    """Largest difference at tokens that are there; patterns between two that are."""
    mask = mask.bool()
    if site.kind == "attn_pattern":
        mask = (mask[:, None, :, None] & mask[:, None, None]).expand_as(ours)
    return (ours - theirs)[mask].abs().max()


def test_every_site_is_what_gpt2_computes(tiny, values):
    for row, text in enumerate(TEXTS):
        ids = tiny.tokenize([text]).ids
        reference = written_out(tiny_hf(), ids)
        n = ids.shape[1]
        for site in SITES:
            if site.kind == "attn_pattern":
                ours = values[site][row, :, -n:, -n:]
            else:
                ours = values[site][row, -n:]  # padding is on the left
            assert ours.shape == reference[site][0].shape
            assert (ours - reference[site][0]).abs().max() <= 4 * TOL, (site, text)
            assert ours.std() > 0.05, f"{site} is trivial: the test would see nothing"


def test_one_prompt_alone_equals_hidden_states_to_the_bit_of_rounding(tiny):
    batch = tiny.tokenize(TEXTS[:1])
    ours = run(tiny, batch, [site for site in SITES if site.kind != "attn_pattern"])
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
            n = alone[site].shape[-2 if site.kind == "attn_pattern" else 1]
            padded = values[site][row]
            padded = padded[:, -n:, -n:] if site.kind == "attn_pattern" else padded[-n:]
            assert (padded - alone[site][0]).abs().max() <= 4 * TOL, (site, text)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_writing_what_was_read_changes_nothing(tiny, values, site):
    batch = tiny.tokenize(TEXTS)
    out = run(tiny, batch, [LOGITS], {site: lambda x: x.clone()})
    # Eager and fused attention round differently; padding holds nothing.
    assert distance(out[LOGITS], values[LOGITS], LOGITS, batch.mask) <= 4 * TOL


@pytest.mark.parametrize("site", SITES, ids=str)
def test_writing_equals_the_same_change_written_out(tiny, values, site):
    def edit(x):
        return 0.5 * x.flip(-1)

    batch = tiny.tokenize(TEXTS)
    later = [other for other in SITES if other >= site]
    ours = run(tiny, batch, later, {site: edit})
    theirs = written_out(tiny_hf(), batch.ids, batch.mask, {site: edit})
    for other in later:
        assert distance(ours[other], theirs[other], other, batch.mask) <= 5 * TOL, other
    changed = distance(ours[LOGITS], values[LOGITS], LOGITS, batch.mask)
    assert changed > 0.01  # and it did something


def test_several_sites_are_written_in_order_and_read_as_written(tiny):
    batch = tiny.tokenize(TEXTS[:2])
    edits = {
        Site("resid_post", 1): lambda x: x + 1,
        Site("attn_out", 0): torch.zeros_like,
        Site("resid_pre", 0): lambda x: 2 * x,
    }
    ours = run(tiny, batch, [LOGITS, *edits], edits)
    theirs = written_out(tiny_hf(), batch.ids, batch.mask, edits)
    for site in ours:
        assert distance(ours[site], theirs[site], site, batch.mask) <= 4 * TOL, site
    assert not ours[Site("attn_out", 0)].any()


def test_all_sites_of_a_layer_are_written_in_one_run(tiny):
    batch = tiny.tokenize(TEXTS[:2])
    edits = {Site(kind, 1): lambda x: 0.8 * x for kind in IN_BLOCK}
    ours = run(tiny, batch, SITES, edits)
    theirs = written_out(tiny_hf(), batch.ids, batch.mask, edits)
    for site in SITES:
        assert distance(ours[site], theirs[site], site, batch.mask) <= 5 * TOL, site


def test_reading_patterns_leaves_the_model_as_it_was(tiny):
    before = tiny.hf.config._attn_implementation
    assert before != "eager"
    with pytest.raises(ZeroDivisionError):
        run(tiny, tiny.tokenize(TEXTS), [LOGITS], {Site("attn_pattern", 0): lambda _: 1 / 0})
    assert tiny.hf.config._attn_implementation == before


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


@pytest.mark.parametrize("site", [Site("head_out", LAYERS), Site("mlp_out", 7)], ids=str)
def test_sites_that_do_not_exist_are_refused(tiny, site):
    with pytest.raises(InputError):
        run(tiny, tiny.tokenize(["Anna"]), [site])
    with pytest.raises(InputError):
        run(tiny, tiny.tokenize(["Anna"]), [LOGITS], {site: torch.zeros_like})


def test_a_simulated_remote_run_reads_the_same(tiny):
    batch = tiny.tokenize(TEXTS)
    read = [site for site in SITES if site.kind != "attn_pattern"]
    there, here = run(tiny, batch, read, remote="local"), run(tiny, batch, read)
    for site in read:
        assert torch.equal(there[site], here[site]), site
    early = run(tiny, batch, read[:2], remote="local")
    assert set(early) == set(read[:2])


def test_logits_at_the_last_token_alone(tiny, values):
    batch = tiny.tokenize(TEXTS)
    site = Site("resid_post", 1)
    for remote in (False, "local"):
        last = run(tiny, batch, [LOGITS, site], last_logits=True, remote=remote)
        assert last[LOGITS].shape == (len(TEXTS), 1, values[LOGITS].shape[-1])
        assert (last[LOGITS][:, 0] - values[LOGITS][:, -1]).abs().max() <= 4 * TOL
        assert last[site].shape == values[site].shape


@pytest.mark.parametrize("count", range(LAYERS + 1))
def test_blocks_that_are_skipped_change_nothing(tiny, values, count):
    batch = tiny.tokenize(TEXTS)
    before = values[Site("resid_post", count - 1)] if count else torch.zeros(0)
    later = [site for site in SITES if not count or site >= Site("resid_post", count - 1)]
    found = run(tiny, batch, later, skip=(count, before))
    for site in later:
        torch.testing.assert_close(found[site], values[site], atol=TOL, rtol=0)


def test_what_is_written_at_the_last_skipped_block_travels_on(tiny):
    batch, site = tiny.tokenize(TEXTS), Site("resid_post", 0)
    whole = run(tiny, batch, [site, LOGITS], {site: lambda x: 2 * x})
    plain = run(tiny, batch, [site])[site]
    skipped = run(tiny, batch, [LOGITS], {site: lambda x: 2 * x}, skip=(1, plain))
    torch.testing.assert_close(skipped[LOGITS], whole[LOGITS], atol=TOL, rtol=0)


def test_sites_of_skipped_blocks_are_refused(tiny):
    batch = tiny.tokenize(TEXTS)
    x = run(tiny, batch, [Site("resid_post", 0)])[Site("resid_post", 0)]
    with pytest.raises(InputError, match="1 blocks are skipped"):
        run(tiny, batch, [Site("mlp_out", 0)], skip=(1, x))
    with pytest.raises(InputError, match="1 blocks are skipped"):
        run(tiny, batch, [LOGITS], {Site("resid_pre", 0): lambda y: y}, skip=(1, x))


def test_a_remote_run_only_reads(tiny):
    batch = tiny.tokenize(["Anna"])
    with pytest.raises(InputError, match="writes none"):
        run(tiny, batch, [LOGITS], {Site("embed"): torch.zeros_like}, remote="local")
    with pytest.raises(InputError, match="other than attn_pattern"):
        run(tiny, batch, [Site("attn_pattern", 0)], remote="local")


@pytest.fixture
def half():
    from tests.tiny import build_tokenizer

    return load_model(tiny_hf().bfloat16(), build_tokenizer())


@pytest.mark.parametrize("site", SITES, ids=str)
def test_half_precision_is_read_and_written(half, values, site):
    batch = half.tokenize(TEXTS)
    out = run(half, batch, [site, LOGITS], {site: lambda x: x.clone()})
    assert out[site].dtype == out[LOGITS].dtype == torch.float32
    off = distance(out[site].float(), values[site], site, batch.mask)
    assert off <= 0.15 * values[site].abs().max()  # eight bits, through three layers
