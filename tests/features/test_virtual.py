"""Virtual weights against runs whose patterns and norms are held, and against plain products."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries.directions import decoder_rows, encoder_rows
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.virtual import through_head, virtual_weights
from circuit_toolkit.models import Model, run
from circuit_toolkit.models.weights import in_block, norm_gain, norm_weight, with_heads
from circuit_toolkit.sites import Site
from tests.dictionaries.published import about, family_model, write

PROMPT = [1, 5, 9, 11, 3, 7]
FAMILIES = ["gpt2", "llama", "gemma2"]  # LayerNorm; grouped heads; a norm behind attention
T0, T1, T2 = (Site("mlp_in", layer) for layer in range(3))


def transcoders(model: Model, folder) -> dict:
    for layer in range(3):
        where = about(model, str(Site("mlp_in", layer)), str(Site("mlp_out", layer)))
        write(folder / f"t{layer}", "jumprelu_transcoder", model.width, where)
    return ct.load_dictionaries(model, folder, kind="transcoder")


class Held:
    """A model whose norms' factors, queries, keys and MLP outputs stay those of a plain run."""

    def __init__(self, model: Model) -> None:
        self.model, self.row = model, model.architecture
        self.ids = torch.tensor([PROMPT])
        self.seen: dict[str, torch.Tensor] = {}
        self.plain = self.stream({}, hold=False)

    def modules(self):
        row = self.row
        for layer in range(self.model.n_layers):
            paths = {row.attn_norm, row.mlp_norm, row.queries, row.keys, row.mlp_out}
            if row.attn_out != row.out_proj:
                paths.add(row.attn_out)
            for path in sorted(paths):
                yield layer, path, in_block(self.model, path, layer)

    def hook(self, layer: int, path: str, module, added: dict[int, torch.Tensor], hold: bool):
        row, key = self.row, f"{layer}.{path}"
        is_norm = path in (row.attn_norm, row.mlp_norm, row.attn_out) and path != row.out_proj

        def after(_, inputs, out):
            x = inputs[0]
            if path == row.mlp_out:
                self.seen.setdefault(key, out)
                return (self.seen[key] if hold else out) + added.get(layer, 0)
            if not hold:
                self.seen[key] = norm_gain(x, module, row) if is_norm else out
                return None
            if is_norm:
                weight, bias = norm_weight(module, row)
                y = x - x.mean(-1, keepdim=True) if row.layer_norm else x
                y = self.seen[key] * y * weight
                return y if bias is None else y + bias
            for name in ("queries", "keys"):
                if getattr(row, name) == path:
                    out = with_heads(out, self.heads(self.seen[key], name), name, row)
            return out

        return after

    def heads(self, y: torch.Tensor, name: str) -> torch.Tensor:
        """Queries or keys in the output of their map, (B, T, heads, d_head)."""
        if self.row.value_rows == "thirds":
            y = y.chunk(3, -1)[("queries", "keys").index(name)]
        return y.unflatten(-1, (-1, self.model.d_head))

    @torch.no_grad()
    def stream(self, added: dict[int, torch.Tensor], hold: bool = True) -> dict[int, torch.Tensor]:
        """What reads the stream in front of each MLP, (T, D), with additions to MLPs' outputs."""
        found = {}
        with ExitStack() as stack:
            for layer, path, module in self.modules():
                hook = module.register_forward_hook(self.hook(layer, path, module, added, hold))
                stack.callback(hook.remove)
                if path == self.row.mlp_norm:

                    def read(_, inputs, layer=layer):
                        found[layer] = inputs[0][0]

                    stack.callback(module.register_forward_pre_hook(read).remove)
            self.model.hf(self.ids)
        return found

    def gain(self, layer: int, path: str) -> torch.Tensor:
        """Factor of a norm in the plain run, (T,)."""
        return self.seen[f"{layer}.{path}"][0, :, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_held_run_shows_direct_weights_and_those_through_heads(family, tmp_path):
    model = family_model(family)
    found = transcoders(model, tmp_path)
    held, row = Held(model), model.architecture
    pattern = run(model, model.tokenize([PROMPT]), [Site("attn_pattern", 1)])
    pattern = pattern[Site("attn_pattern", 1)][0]  # (H, T, T)
    feature, at, amount = 17, 2, 20.0
    decoder = decoder_rows(model, found[T0])
    delta = torch.zeros(1, len(PROMPT), model.width)
    delta[0, at] = amount * decoder[feature]
    changed = held.stream({0: delta})[1] - held.plain[1]  # (T, D)
    gain = held.gain(1, row.mlp_norm)
    seen = gain[:, None] * changed @ encoder_rows(model, found[T1]).T  # (T, F)
    weights = virtual_weights(
        model, found, sources={T0: [feature]}, targets={T1: range(72)}, through="both", top=None
    )
    expected = torch.zeros_like(seen)
    behind = torch.ones(len(PROMPT))
    if row.attn_out != row.out_proj:
        behind = held.gain(1, row.attn_out)
    for _, source, _, target, kind, weight in weights.rows.tolist():
        assert source == feature
        name = weights.kinds[kind]
        if name == "direct":
            expected[at, target] += amount * gain[at] * weight
            continue
        head = int(name.removeprefix("a1.h"))
        way = gain * behind * pattern[head, :, at] * held.gain(1, row.attn_norm)[at]
        expected[:, target] += amount * way * weight
    assert len(weights) == 72 * (1 + model.n_heads)
    assert seen[at + 1 :].abs().max() > 0.2  # heads carry something
    assert seen[:at].abs().max() < 1e-5  # causal
    # the held run is linear: what is left is float32 rounding of streams of size about 10
    torch.testing.assert_close(seen, expected, atol=3e-5, rtol=1e-4)


def test_only_earlier_features_feed_later_ones_and_the_strongest_are_kept(demo, demo_transcoders):
    some = {site: demo_transcoders[site] for site in (T0, T1, T2)}
    top = virtual_weights(demo, some, top=4)
    every = virtual_weights(demo, some, top=None)
    assert len(every) == 3 * 384**2 and len(top) == 3 * 384 * 4
    product = decoder_rows(demo, some[T0]) @ encoder_rows(demo, some[T2]).T  # (F, F)
    mine = every.rows[(every.rows["source_site"] == 0) & (every.rows["target_site"] == 2)]
    dense = np.zeros((384, 384), np.float32)
    dense[mine["source"], mine["target"]] = mine["weight"]
    np.testing.assert_allclose(dense, product, atol=1e-6)
    for target in (0, 17, 383):
        kept = top.into(T2, target)
        best = np.sort(np.abs(dense[:, target]))[-4:]
        mine = kept.rows[kept.rows["source_site"] == 0]
        np.testing.assert_allclose(np.sort(np.abs(mine["weight"])), best, atol=1e-6)
    assert not len(every.into(T0, 3)) and not len(every.out_of(T2, 3))
    assert len(every.out_of(T1, 3)) == 384


def test_blocks_of_targets_change_nothing(demo, demo_transcoders, monkeypatch):
    some = {site: demo_transcoders[site] for site in (T0, T2)}
    whole = virtual_weights(demo, some, through="both", top=3)
    monkeypatch.setattr("circuit_toolkit.features.virtual.DENSE", 384 * 50)
    parts = virtual_weights(demo, some, through="both", top=3)
    key = ["target", "kind", "source"]
    a, b = (np.sort(each.rows, order=key) for each in (whole, parts))
    assert (a[key] == b[key]).all()
    np.testing.assert_allclose(a["weight"], b["weight"], atol=1e-6)  # another order of sums
    assert {whole.kinds[k] for k in np.unique(whole.rows["kind"])} <= {
        "direct",
        *(f"a{layer}.h{head}" for layer in (1, 2) for head in range(demo.n_heads)),
    }


def test_the_strongest_of_all_heads_are_those_of_the_whole_table(demo, demo_transcoders):
    some, one = {site: demo_transcoders[site] for site in (T0, T1)}, {T1: [5, 9]}
    every = virtual_weights(demo, some, targets=one, through="heads", top=None)
    top = virtual_weights(demo, some, targets=one, through="heads", top=6)
    for feature in one[T1]:
        best = every.into(T1, feature).top(6)
        assert best.table().equals(top.into(T1, feature).top(6).table())


def test_autoencoders_of_the_stream_are_sources_and_targets(demo, demo_saes, demo_transcoders):
    all_of_them = {**demo_saes, **demo_transcoders}
    weights = virtual_weights(demo, all_of_them, targets={Site("mlp_in", 1): [3]}, top=1)
    sources = {weights.sites[place] for place in weights.rows["source_site"]}
    assert sources == {
        *(Site("resid_pre", 0), Site("mlp_in", 0), Site("resid_post", 0)),
    }
    assert weights.top(1).table()["target"].tolist() == ["blocks.1.ln2.hook_normalized/3"]
    own = virtual_weights(demo, all_of_them, targets={Site("resid_post", 0): [3]}, top=1)
    sources = {own.sites[place] for place in own.rows["source_site"]}
    assert sources == {Site("resid_pre", 0), Site("mlp_in", 0)}  # not itself


def test_a_planted_weight_is_the_strongest(demo, demo_transcoders):
    decoder = decoder_rows(demo, demo_transcoders[T0])
    encoder = encoder_rows(demo, demo_transcoders[T1])
    best = (decoder @ encoder.T).abs().argmax().item()
    some = {site: demo_transcoders[site] for site in (T0, T1)}
    name = virtual_weights(demo, some).top(1).table().iloc[0]
    assert name["source"] == f"{T0}/{best // 384}" and name["target"] == f"{T1}/{best % 384}"


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_through_a_head_are_the_attention_of_one_token(family, tmp_path):
    model = family_model(family)
    one = transcoders(model, tmp_path)[T0]
    row, token = model.architecture, 9
    batch = model.tokenize([[token]])  # attends to itself alone
    read = [Site("resid_pre", 0), Site("head_out", 0)]
    values = run(model, batch, read)
    x = values[read[0]][0, 0]
    gain = norm_gain(x, in_block(model, row.attn_norm, 0), row)
    feature = 11
    rows = encoder_rows(model, one)[[feature]]
    behind = rows
    if row.attn_out != row.out_proj:
        behind = rows * norm_weight(in_block(model, row.attn_out, 0), row)[0]
    nothing = run(model, batch, [read[1]], {read[0]: torch.zeros_like})[read[1]][0, 0]
    for head in range(model.n_heads):
        out = values[read[1]][0, 0, head] - nothing[head]  # without what biases add
        ours = gain * x @ through_head(model, rows, 0, head)[0]
        torch.testing.assert_close(ours, behind[0] @ out, atol=1e-5, rtol=1e-4)


def test_what_cannot_be_is_refused(demo, demo_transcoders):
    some = {T0: demo_transcoders[T0], T1: demo_transcoders[T1]}
    with pytest.raises(InputError, match="No dictionary was given for blocks.2"):
        virtual_weights(demo, some, targets={T2: [1]})
    with pytest.raises(InputError, match="features 0 to 383, targets names 384"):
        virtual_weights(demo, some, targets={T1: [384]})
    with pytest.raises(InputError, match="through must be"):
        virtual_weights(demo, some, through="mlp")  # type: ignore[arg-type]
    for top in (0, 1.5):
        with pytest.raises(InputError, match="top must be"):
            virtual_weights(demo, some, top=top)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Features are whole numbers"):
        virtual_weights(demo, some, targets={T1: [1.5]})  # type: ignore[list-item]


def test_a_table_that_would_be_too_large_is_refused(demo, demo_transcoders, monkeypatch):
    monkeypatch.setattr("circuit_toolkit.features.virtual.MOST", 1000)
    some = {T0: demo_transcoders[T0], T1: demo_transcoders[T1]}
    with pytest.raises(InputError, match="more than 1,000 weights"):
        virtual_weights(demo, some)
