"""The same gradients by autograd through Hugging Face's own modules, one prompt at a time.

Norms multiply by a factor that is held, queries and keys are cut so that patterns are held, and
MLPs put out what they put out, but for the skip path of a transcoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.models import Model
from circuit_toolkit.models.weights import in_block, norm_weight
from circuit_toolkit.sites import Site


class Gradients:
    """A run with autograd: the activation of a feature, and its gradients along the stream."""

    def __init__(self, model: Model, dictionaries: dict[Site, Dictionary]) -> None:
        self.model, self.dictionaries = model, dictionaries
        self.skips = {
            each.out.layer: each
            for each in dictionaries.values()
            if getattr(each.sae, "W_skip", None) is not None
        }

    def of(self, ids: Tensor, site: Site, feature: int, at: int) -> tuple[Tensor, ...]:
        """Gradient at the embedding (T, D) and behind each MLP in front, (layers, T, D)."""
        self.seen: dict[Site, Tensor] = {}
        self.probes = []
        with ExitStack() as stack:
            for context in self._changes():
                stack.enter_context(context)
            self.model.hf(input_ids=ids[None])
        activation = self.dictionaries[site].encode_for_gradients(self.seen[site])[0, at, feature]
        found = torch.autograd.grad(activation, [self.embed, *self.probes], allow_unused=True)
        grads = [torch.zeros_like(self.embed) if g is None else g for g in found]
        return activation.detach(), grads[0][0], torch.stack([g[0] for g in grads[1:]])

    def _changes(self) -> Iterator[Any]:
        row, model = self.model.architecture, self.model
        yield hook(model.hf.get_submodule(row.embed), self._begin)
        for layer in range(model.n_layers):
            for path in {row.attn_norm, row.mlp_norm, row.attn_out, row.mlp_out}:
                module = in_block(model, path, layer)
                if "Norm" in type(module).__name__:
                    note = layer if path == row.mlp_norm else None
                    yield changed(module, self._held_norm(module, note))
            for name in {row.queries, row.keys, row.values}:
                roles = [r for r in ("queries", "keys", "values") if getattr(row, r) == name]
                yield hook(in_block(model, name, layer), self._cut(roles))
            yield hook(in_block(model, row.mlp_out, layer), self._held_mlp(layer))

    def _begin(self, y: Tensor) -> Tensor:
        self.embed = y.detach().requires_grad_()
        return self.embed

    def _held_norm(self, norm: Any, layer: int | None):
        row = self.model.architecture
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        weight, bias = norm_weight(norm, row)

        def forward(x: Tensor) -> Tensor:
            y = x - x.mean(-1, keepdim=True) if row.layer_norm else x
            y = y * (y.pow(2).mean(-1, keepdim=True) + eps).rsqrt().detach()
            out = y * weight if bias is None else y * weight + bias
            if layer is not None:
                self.seen |= {Site("mlp_in", layer): y, Site("mlp_norm", layer): out}
            return out

        return forward

    def _cut(self, roles: list[str]):
        model, row = self.model, self.model.architecture

        def cut(y: Tensor) -> Tensor:
            if "values" not in roles:
                return y.detach()
            if row.value_rows == "thirds":
                q, k, v = y.chunk(3, -1)
                return torch.cat([q.detach(), k.detach(), v], -1)
            if row.value_rows == "interleaved":
                y = y.unflatten(-1, (model.n_heads, 3, model.d_head))
                return torch.cat([y[..., :2, :].detach(), y[..., 2:, :]], -2).flatten(-3)
            return y

        return cut

    def _held_mlp(self, layer: int):
        def hold(y: Tensor) -> Tensor:
            y = y.detach()
            if layer in self.skips:
                each = self.skips[layer]
                skipped = each._seen(self.seen[each.site]) @ each.sae.W_skip.T
                skipped = each.writes.revert_difference(skipped)
                y = y + skipped - skipped.detach()
            probe = torch.zeros_like(y, requires_grad=True)
            self.probes.append(probe)
            return y + probe

        return hold


@contextmanager
def hook(module: Any, change) -> Iterator[None]:
    handle = module.register_forward_hook(lambda _, __, y: change(y))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changed(module: Any, forward) -> Iterator[None]:
    module.forward, old = forward, module.forward
    try:
        yield
    finally:
        module.forward = old
