"""A model as components that read and write one residual stream: embedding, heads, MLPs, logits.

Every component reads the sum of what those before it wrote. `run_components` lets each read an
input of its own: whatever a method adds to it (a swapped output, a leaf for gradients) reaches
that component alone, while the stream itself goes on untouched. Edge patching, path patching,
attribution and randomised designs are all such additions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.ports import LOGITS_PORT, Edit, Port, block_port, run_ports
from circuit_toolkit.models.weights import (
    Projection,
    in_block,
    input_matrices,
    normed,
    of_every_head,
    output_matrix,
    shared_by_norm,
    with_heads,
)


@dataclass(frozen=True, eq=False)
class Components:
    """What one run showed."""

    outputs: Tensor
    inputs: Tensor
    logits: Tensor


# From the number of a slot and what was written so far, (B, writers so far, T, D), to what each
# reader of the slot gets added to its input, (B, readers, T, D); None for nothing.
Offset = Callable[[int, Tensor], Tensor | None]
Norm = Callable[[Tensor, nn.Module], Tensor]


def run_components(
    model: Model,
    batch: Batch,
    offset: Offset | None = None,
    *,
    base: Tensor | None = None,
    norm: Norm | None = None,
    last_logits: bool = False,
    grad: bool = False,
) -> Components:
    """Run the model with an input of its own for every component.

    `norm` takes the place of the norms in front of components; with `last_logits` logits are those
    at the last token, (B, 1, V).
    """
    notes, edits = component_edits(model, offset, base=base, norm=norm)
    own = range(model.n_layers) if notes.own else ()
    options: dict[str, Any] = {"ungrouped_at": own, "last_logits": last_logits, "grad": grad}
    logits = run_ports(model, batch, edits, [LOGITS_PORT], **options)[LOGITS_PORT]
    return Components(notes.outputs(), torch.stack(notes.inputs), logits)


def component_edits(
    model: Model,
    offset: Offset | None,
    *,
    base: Tensor | None = None,
    norm: Norm | None = None,
) -> tuple[_Notes, dict[Port, list[Edit]]]:
    """Return the edits that give every component an input of its own, and what they note."""
    graph = graph_of(model)
    if model.edits:
        raise InputError(
            f"{model.name} carries interventions, under which it is no sum of its components. Pass "
            "the model as it was loaded."
        )
    notes = _Notes(model, graph, offset, base, norm)
    edits: dict[Port, list[Edit]] = {}

    def at(name: str, side: str, layer: int, edit: Edit) -> None:
        edits.setdefault(block_port(model, name, side, layer), []).append(edit)

    at("", "input", 0, notes.one_wrote)  # the embedding
    for layer in range(model.n_layers):
        at("", "input", layer, partial(notes.heads_read, layer))
        for name in ("queries", "keys", "values"):
            at(name, "output", layer, partial(notes.projected, layer, name))
        at("out_proj", "input", layer, partial(notes.heads_wrote, layer))
        if notes.behind:
            at("out_proj", "output", layer, partial(notes.norm_reads, layer))
        at("mlp_norm", "input", layer, partial(notes.one_reads, 2 * layer + 1))
        if norm is not None:
            path = model.architecture.mlp_norm
            at("mlp_norm", "output", layer, partial(notes.normed_by, in_block(model, path, layer)))
        at("mlp_out", "output", layer, notes.one_wrote)
    last = model.architecture.final_norm
    edits[last, "input"] = [partial(notes.one_reads, 2 * model.n_layers)]
    if norm is not None:
        edits[last, "output"] = [partial(notes.normed_by, model.hf.get_submodule(last))]
    return notes, edits


def corrupting(graph: Graph, corrupted: Tensor, theirs: Tensor) -> Offset:
    """Put outputs of the corrupted prompts (B, W, T, D) into all edges of a mask (W, R)."""
    mask = (corrupted & graph.allowed).to(theirs)
    batch, writers, *shape = theirs.shape
    differences, done = theirs.new_empty(writers, batch, *shape), 0  # a writer each, once written

    def offset(slot: int, outputs: Tensor) -> Tensor:
        nonlocal done
        n = outputs.shape[1]
        differences[done:n] = (theirs[:, done:n] - outputs[:, done:]).transpose(0, 1)
        done = n
        added = mask[:n, graph.slots[slot]].T @ differences[:n].flatten(1)
        return added.unflatten(1, (batch, *shape)).transpose(0, 1)

    return offset


def logits_from(
    model: Model,
    batch: Batch,
    slot: int,
    stream: Tensor,
    added: Tensor,
    *,
    last_logits: bool = False,
) -> Tensor:
    """Return logits where readers of one slot alone see (B, readers, T, D) beside the stream.

    `stream` (B, T, D) is what the block of the slot reads, as an earlier run gave it: no block
    before it is computed.
    """
    graph = graph_of(model)
    notes = _Notes(model, graph, lambda *_: added, None, None)
    notes.whole = stream[:, None]  # of which nothing is written yet
    layer, is_mlp = divmod(slot, 2)
    edits: dict[Port, list[Edit]] = {}
    options: dict[str, Any] = {"last_logits": last_logits, "skip": (layer, stream)}
    if layer == model.n_layers:
        edits[model.architecture.final_norm, "input"] = [partial(notes.one_reads, slot)]
    elif is_mlp:
        edits[block_port(model, "mlp_norm", "input", layer)] = [partial(notes.one_reads, slot)]
    else:
        edits[block_port(model, "", "input", layer)] = [partial(notes.heads_read, layer)]
        for name in ("queries", "keys", "values"):
            port = block_port(model, name, "output", layer)
            edits.setdefault(port, []).append(partial(notes.projected, layer, name))
        options["ungrouped_at"] = [layer]
    return run_ports(model, batch, edits, [LOGITS_PORT], **options)[LOGITS_PORT]


class _Notes:
    """What a run has shown so far, and the edits that note it and add the offsets."""

    def __init__(
        self,
        model: Model,
        graph: Graph,
        offset: Offset | None,
        base: Tensor | None,
        norm: Norm | None,
    ):
        self.model, self.graph, self.offset, self.base = model, graph, offset, base
        self.norm = norm or normed
        self.inputs: list[Tensor] = []  # a slot each, (B, T, D)
        self.whole: Tensor | None = None  # (B, writers, T, D), n of them written
        self.n = 0
        row = model.architecture
        self.behind = row.attn_out != row.out_proj  # whether a norm stands behind attention
        self.own = offset is not None or base is not None  # inputs that are not the stream
        self.normed: Tensor | None = None  # (B, H or 1, T, D); None: heads read the stream
        self.read = torch.empty(0)  # by an MLP or the logits, (B, T, D)
        self.made: Tensor | None = None  # (B, H, T, D), until the norm behind attention is known

    def outputs(self) -> Tensor:
        """Return all that was written so far, (B, writers, T, D), without its graph."""
        assert self.whole is not None
        return self.whole[:, : self.n]

    def _add(self, x: Tensor) -> None:
        x = x.detach()
        if self.whole is None:
            batch, _, *rest = x.shape
            self.whole = x.new_empty(batch, len(self.graph.writers), *rest)
        self.whole[:, self.n : self.n + x.shape[1]] = x
        self.n += x.shape[1]

    def one_wrote(self, x: Tensor) -> Tensor:
        """Note the output of a component that is a module of its own."""
        self._add(x[:, None])
        return x

    def heads_wrote(self, layer: int, z: Tensor) -> Tensor:
        """Note what each head writes, from z of all, (B, T, H * d_head)."""
        heads = z.detach().unflatten(-1, (self.model.n_heads, self.model.d_head))
        made = torch.einsum("bthe,hed->bhtd", heads, output_matrix(self.model, layer))
        if self.behind:
            self.made = made
        else:
            self._add(made)
        return z

    def norm_reads(self, layer: int, total: Tensor) -> Tensor:
        """Note each head's share of what the norm behind attention makes of all, (B, T, D)."""
        if self.made is not None:
            row = self.model.architecture
            norm = in_block(self.model, row.attn_out, layer)
            self._add(shared_by_norm(self.made, total.detach(), norm, row))
            self.made = None
        return total

    def _seen(self, slot: int, x: Tensor) -> Tensor | None:
        """Return what readers of a slot see, (B, readers or 1, T, D); None: the stream as it is."""
        self.inputs.append(x)
        added = None
        if self.offset is not None:
            added = self.offset(slot, self.outputs()[:, : self.graph.n_upstream(slot)])
        if self.base is not None:
            x = self.base[slot]
        if added is not None:
            return x[:, None] + added
        return None if self.base is None else x[:, None]

    def one_reads(self, slot: int, x: Tensor) -> Tensor:
        """Let an MLP or the logits read its own input; the stream beside it stays."""
        seen = self._seen(slot, x)
        self.read = x if seen is None else seen[:, 0]
        return self.read

    def normed_by(self, norm: nn.Module, _: Tensor) -> Tensor:
        """Norm what was just read in another way than the module does."""
        return self.norm(self.read, norm)

    def heads_read(self, layer: int, x: Tensor) -> Tensor:
        """Let heads read their own inputs, (B, H or 1, T, D); the stream beside them stays."""
        seen = self._seen(2 * layer, x)
        norm = in_block(self.model, self.model.architecture.attn_norm, layer)
        self.normed = None if seen is None else self.norm(seen, norm)
        return x

    def projected(self, layer: int, name: Projection, y: Tensor) -> Tensor:
        """Put the queries, keys or values of every head's own input in place of the stream's."""
        row = self.model.architecture
        if self.normed is None:
            return of_every_head(y, self.model) if self.own else y
        matrices, bias = input_matrices(self.model, layer, name)
        own = torch.einsum("bhtd,hde->bthe", self.normed.expand(-1, len(bias), -1, -1), matrices)
        return with_heads(y, own + bias, name, row)
