"""The graph of one prompt before pruning: what every source adds to every target.

The model is held at one prompt (`attribution.frozen`), so that everything between features is
linear. A batch of targets is one walk back, without autograd: all sources are met on the way. Rows
are kept sparse, and with a limit those of the features with the largest influence so far come next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import Decomposed, FrozenModel
from circuit_toolkit.attribution.frozen.readings import block_of, reading_of
from circuit_toolkit.attribution.frozen.run import frozen_run, frozen_weights, upstream_of
from circuit_toolkit.attribution.frozen.sums import Passed, Reading, backwards
from circuit_toolkit.attribution.graph.targets import (
    Target,
    Targets,
    as_targets,
    target_reading,
    values_of,
    weights_of,
)
from circuit_toolkit.circuit.tables import TARGET, TOKEN, new_nodes
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import (
    STREAM,
    encoder_constants,
    encoder_rows,
    stream_of,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model
from circuit_toolkit.models.model import token_mask
from circuit_toolkit.sites import Site

ROWS = 256  # targets in one walk at most
RANKINGS = 16  # of the features that are left, at most
NUMBERS = 2**22  # of one gradient in memory
CANCELLED = 0.01  # share of its absolute terms below which a sum counts as this share of them
EDGES = 2**25  # that are kept in all before pruning, the strongest into each node: 8 bytes each


@dataclass(frozen=True, eq=False)
class PromptGraph:
    """All nodes of a prompt in order of computation, and what each adds to each.

    `adjacency` (N, N) holds in row i what enters node i; `weights` (N,) what a target counts, 0 for
    all else. `value` and `bias` (N,) are the pre-activation (or logit) of nodes with a row, and
    what of it no node adds. `largest_error` is by how much a sum misses its value at most, as a
    share of it (or of a hundredth of its absolute terms, if that is more); `left_out` the largest
    share of what enters a node that was not kept. `active` are all features that are active, with
    a row or not. `targets` are what the last nodes stand for.
    """

    nodes: np.ndarray
    adjacency: sp.csr_array
    weights: np.ndarray
    value: np.ndarray
    bias: np.ndarray
    has_row: np.ndarray
    largest_error: float
    left_out: float
    active: np.ndarray
    targets: Sequence[Target]


@dataclass(frozen=True, eq=False)
class Source:
    """A module that writes to the stream: the first columns of its features and of its errors."""

    site: Site
    dictionary: Dictionary | None
    out: Site
    parts: Decomposed | Tensor
    features: int
    errors: int
    starts: list[int]  # where the features of each token begin, T + 1 of them

    @property
    def n_features(self) -> int:
        """How many are active."""
        return self.starts[-1]


@torch.no_grad()
def attribute(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    ids: Tensor,
    targets: Targets | Sequence[Target] = None,
    *,
    position: int = -1,
    max_features: int | None = None,
    max_inputs: int | None = None,
    progress: bool = False,
) -> PromptGraph:
    """Compute the graph of one prompt, of token ids (T,)."""
    batch = Batch(ids[None].to(model.device), torch.ones_like(ids[None]).to(model.device))
    held = _Held.of(model, dictionaries, batch, position)
    wanted = as_targets(model, targets, held.logits)
    n_columns = held.n_columns
    weights = np.zeros(n_columns + len(wanted))
    weights[n_columns:] = weights_of(wanted, held.logits)
    is_feature = held.of_features()
    active = np.flatnonzero(is_feature)
    limit = len(active) if max_features is None else min(max_features, len(active))
    n_rows = limit + len(wanted)
    rows = _Rows(held, len(wanted), EDGES // n_rows if max_inputs is None else max_inputs)
    last = held.values[Site("resid_post", model.n_layers - 1)]
    rows.add(
        target_reading(model, wanted, last, held.position),
        np.arange(n_columns, len(weights)),
        values_of(model, wanted, held.logits),
    )
    _fill(rows, held, active, limit, weights, progress)
    has_row = rows.has_row()
    keep = np.append(~is_feature, np.ones(len(wanted), bool)) | has_row
    sources = held.table()
    ends = new_nodes(
        len(wanted),
        TARGET,
        label=[each.label for each in wanted],
        index=[each.index for each in wanted],
        activation=rows.value[n_columns:],
    )
    nodes = np.concatenate([sources, ends])
    return PromptGraph(
        nodes[keep],
        rows.matrix(keep),
        weights[keep],
        rows.value[keep],
        rows.bias[keep],
        has_row[keep],
        rows.largest_error,
        rows.left_out,
        sources[active],
        wanted,
    )


def _fill(
    rows: _Rows,
    held: _Held,
    active: np.ndarray,
    limit: int,
    weights: np.ndarray,
    progress: bool,
) -> None:
    """Add rows of features, those of the largest influence first where there is a limit."""
    from tqdm.auto import tqdm

    left, size, done = active, held.batch_size, 0
    with tqdm(total=limit, desc="attribution", disable=not progress, leave=False) as bar:
        while n := min(max(ROWS, limit // RANKINGS), limit - done):
            if limit < len(active):
                best = np.argsort(-rows.influence(weights)[left], kind="stable")[:n]
                chosen, left = np.sort(left[best]), np.delete(left, best)
            else:
                chosen, left = left[:n], left[n:]
            for columns, reading, value in held.readings(chosen, size):
                rows.add(reading, columns, value)
            done += n
            bar.update(n)


@dataclass(frozen=True, eq=False)
class _Held:
    """The model at one prompt, and the columns of its sources, in order of computation."""

    model: Model
    batch: Batch
    frozen: FrozenModel
    values: Mapping[Site, Tensor]
    sources: Sequence[Source]
    counted: Tensor  # (T,) tokens at which features count
    position: int
    n_columns: int
    rows: Mapping[Site, tuple[Tensor, ...]]  # encoder rows of each dictionary, and constants

    @classmethod
    def of(
        cls, model: Model, dictionaries: Mapping[Site, Dictionary], batch: Batch, position: int
    ) -> _Held:
        """Run the model, and give every source its columns."""
        n = model.n_layers
        by_layer = upstream_of(dictionaries)
        streams = _streams(model, dictionaries)
        weights = frozen_weights(model, by_layer, n, n, streams)
        used = [*by_layer.values(), *streams.values()]
        readings = {
            each.site: tuple(
                part.to(model.device)
                for part in (encoder_rows(model, each), encoder_constants(model, each))
            )
            for each in used
        }
        read = {LOGITS, Site("resid_post", n - 1), *(each.site for each in used)}
        read |= {stream_of(model, each) for each in used}
        counted = token_mask(model, batch)
        frozen, values = frozen_run(model, batch, weights, read, counted)
        length = batch.ids.shape[1]
        modules: list[tuple[Site, Site, Dictionary | None, Decomposed | Tensor]] = [
            (each.dictionary.site, each.dictionary.site, each.dictionary, frozen.streams[place])
            for place, each in weights.streams.items()
        ]
        for layer, each in enumerate(weights.transcoders):
            out = Site("mlp_out", layer)
            dictionary = each.dictionary if each else None
            modules.append(
                (dictionary.site if dictionary else out, out, dictionary, frozen.mlps[layer])
            )
        sources, column = [], length  # tokens come first
        for site, out, dictionary, parts in sorted(modules, key=lambda each: each[0]):
            starts = [0] * (length + 1)
            if isinstance(parts, Decomposed):
                count = torch.bincount(parts.active.place, minlength=length)
                starts = [0, *count.cumsum(0).tolist()]
            errors = column + starts[-1]
            sources.append(Source(site, dictionary, out, parts, column, errors, starts))
            column = errors + length
        at = position + length if position < 0 else position
        return cls(model, batch, frozen, values, sources, counted[0], at, column, readings)

    @property
    def logits(self) -> Tensor:
        """Logits (V,) at the token that is explained."""
        return self.values[LOGITS][0, self.position]

    @property
    def batch_size(self) -> int:
        """Targets in one walk, so that memory does not grow with the prompt."""
        numbers = self.batch.ids.shape[1] * max(self.model.width, self.model.n_heads)
        return max(1, min(ROWS, NUMBERS // numbers))

    def of_features(self) -> np.ndarray:
        """Which columns are features."""
        found = np.zeros(self.n_columns, bool)
        for each in self.sources:
            found[each.features : each.errors] = True
        return found

    def table(self) -> np.ndarray:
        """Nodes of all columns."""
        length = self.batch.ids.shape[1]
        positions = [str(i) for i in range(length)]
        ids = self.batch.ids[0].tolist()
        words = self.model.words(self.batch)[0]
        tables = [
            new_nodes(
                length,
                TOKEN,
                position=positions,
                index=ids,
                label=[word.strip() or repr(word) for word in words],
                activation=1.0,
            )
        ]
        for each in self.sources:
            if isinstance(each.parts, Decomposed):
                active = each.parts.active
                tables.append(
                    new_nodes(
                        each.n_features,
                        site=str(each.site),
                        position=[positions[i] for i in active.place.tolist()],
                        index=active.feature.cpu().numpy(),
                        activation=active.value.cpu().numpy(),
                    )
                )
            label = "MLP" if each.dictionary is None else "error"
            tables.append(
                new_nodes(length, "error", site=str(each.out), position=positions, label=label)
            )
        return np.concatenate(tables)

    def readings(self, columns: np.ndarray, size: int) -> list[tuple[np.ndarray, Reading, Tensor]]:
        """Return features as readings, of one module at a time, ordered by token."""
        found = []
        for each in self.sources:
            mine = columns[(columns >= each.features) & (columns < each.errors)]
            if not len(mine):
                continue
            assert isinstance(each.parts, Decomposed) and each.dictionary is not None
            active = each.parts.active
            rows, constants = self.rows[each.dictionary.site]
            stream = self.values[stream_of(self.model, each.dictionary)]
            for part in np.split(mine, range(size, len(mine), size)):
                which = torch.as_tensor(part - each.features, device=stream.device)
                at, feature = active.place[which], active.feature[which]
                reading = reading_of(
                    self.model,
                    each.dictionary,
                    stream[0, at],
                    at,
                    rows[feature],
                    constants[feature],
                )
                found.append((part, reading, active.value[which]))
        return found


def _streams(
    model: Model, dictionaries: Mapping[Site, Dictionary]
) -> dict[tuple[int, bool], Dictionary]:
    """Return autoencoders of the stream by where they stand; refuse what is of no use."""
    found: dict[tuple[int, bool], Dictionary] = {}
    for each in dictionaries.values():
        if each.out.kind == "mlp_out" and each.kind == "transcoder":
            continue
        if each.kind != "sae" or each.site.kind not in STREAM or each.needs_input:
            raise InputError(
                f"{each.name!r} reads {each.site} and reconstructs {each.out}: an attribution "
                "graph needs transcoders of MLPs, or autoencoders of the residual stream."
            )
        other = found.setdefault(block_of(each.site), each)
        if other is not each:
            raise InputError(
                f"{other.site} and {each.site} are the same stream: pass one dictionary of it."
            )
    return found


class _Rows:
    """Rows of the adjacency, filled batch by batch, each kept sparse."""

    def __init__(self, held: _Held, n_targets: int, max_inputs: int) -> None:
        self.held, self.max_inputs = held, max_inputs
        self.parts: list[tuple[np.ndarray, sp.csr_array]] = []  # which nodes they are of, and rows
        self.value = np.zeros(held.n_columns + n_targets)
        self.bias = np.zeros_like(self.value)
        self.scale = np.zeros_like(self.value)  # one over what enters a node, in absolute values
        self.largest_error, self.left_out = 0.0, 0.0

    def add(self, reading: Reading, nodes: np.ndarray, value: Tensor) -> None:
        """Work out the rows of some nodes with one walk back."""
        row, bias = _walk(self.held, reading)
        total = row.sum(1, dtype=torch.float64) + bias
        value = value.double()
        self.bias[nodes], self.value[nodes] = bias.cpu().numpy(), value.cpu().numpy()
        terms = row.abs().sum(1, dtype=torch.float64) + bias.abs()  # which may nearly cancel
        off = (total - value).abs() / value.abs().maximum(CANCELLED * terms)
        self.largest_error = max(self.largest_error, float(off.max()))
        part = self._sparse(row)
        self.scale[nodes] = 1 / np.maximum(np.asarray(abs(part).sum(1), dtype=float), 1e-30)
        self.parts.append((nodes, part))

    def has_row(self) -> np.ndarray:
        """Return which nodes have a row so far."""
        found = np.zeros(len(self.value), bool)
        for nodes, _ in self.parts:
            found[nodes] = True
        return found

    def influence(self, weights: np.ndarray) -> np.ndarray:
        """Return the influence of all nodes on the targets, by the rows so far."""
        step, found = weights, np.zeros(len(weights))
        while step.any():
            now = np.zeros(len(weights))
            for nodes, part in self.parts:
                if step[nodes].any():
                    sizes = sp.csr_array((np.abs(part.data), part.indices, part.indptr), part.shape)
                    now[: self.held.n_columns] += sizes.T @ (step[nodes] * self.scale[nodes])
            step = now
            found += step
        return found

    def _sparse(self, row: Tensor) -> sp.csr_array:
        """Keep the strongest entries of each row, (R, columns)."""
        n = self.max_inputs
        if row.shape[1] <= n:
            return sp.csr_array(row.cpu().numpy())
        parts = []
        for few in row.split(max(1, NUMBERS // (8 * row.shape[1]))):
            size, which = few.abs().topk(n, dim=1, sorted=False)
            left = 1 - size.sum(1) / few.abs().sum(1).clamp(min=1e-30)
            self.left_out = max(self.left_out, float(left.max()))
            columns = which.sort(1).values
            data = few.gather(1, columns).flatten().cpu().numpy()
            ends = np.arange(0, len(data) + 1, n)
            columns = columns.flatten().cpu().numpy().astype(np.int32)
            parts.append(sp.csr_array((data, columns, ends), (len(few), row.shape[1])))
        found = sp.csr_array(sp.vstack(parts))
        found.eliminate_zeros()
        return found

    def matrix(self, keep: np.ndarray) -> sp.csr_array:
        """Return all rows in their places, of the nodes that are kept, and give the parts back."""
        n, rank = int(keep.sum()), np.cumsum(keep) - 1
        columns = np.flatnonzero(keep[: self.held.n_columns])
        count = np.zeros(n + 1, np.int64)
        for i, (nodes, part) in enumerate(self.parts):
            self.parts[i] = nodes, part[:, columns]
            count[1 + rank[nodes]] = np.diff(self.parts[i][1].indptr)
        ends = np.cumsum(count)
        data, indices = np.empty(ends[-1], np.float32), np.empty(ends[-1], np.int32)
        while self.parts:
            nodes, part = self.parts.pop()
            size = np.diff(part.indptr)
            at = np.repeat(ends[rank[nodes]] - part.indptr[:-1], size) + np.arange(part.nnz)
            data[at], indices[at] = part.data, part.indices
        return sp.csr_array((data, indices, ends), shape=(n, n))


def _walk(held: _Held, reading: Reading) -> tuple[Tensor, Tensor]:
    """Return what every source adds to some readings, (R, columns), and what no source does."""
    model, at = held.frozen, reading.at
    out = reading.row.new_zeros(len(at), held.n_columns)
    bias = torch.zeros_like(out[:, 0]).double() + reading.constant
    by_place = {}
    for each in held.sources:
        by_place["stream" if each.out.kind in STREAM else "mlp", *block_of(each.out)] = each
    for passed in backwards(model, reading, reading.row, at):
        g, here = passed.g, passed.at
        if passed.kind == "attention":
            added = model.attention[passed.layer].biases(g, here)
            bias += added if here is not None else added.double().sum(1)
        elif passed.kind == "embed":
            token, place = model.embed[0], (model.start - model.embed)[0]
            if here is None:
                n = g.shape[1]
                out[:, :n] = torch.linalg.vecdot(g, token[:n])
                bias += torch.linalg.vecdot(g, place[:n]).double().sum(1)
            else:
                out[torch.arange(len(at)), here] = torch.linalg.vecdot(g, token[here])
                bias += torch.linalg.vecdot(g, place[here])
        else:
            source = by_place[passed.kind, passed.layer, passed.mid]
            bias += _add(out, source, passed, held.counted)
    return out, bias


def _add(out: Tensor, source: Source, passed: Passed, counted: Tensor) -> Tensor:
    """Add what a module writes; return what of it counts as bias."""
    g, at, parts = passed.g, passed.at, source.parts
    error = parts.error[0] if isinstance(parts, Decomposed) else parts[0]
    if at is None:
        n = g.shape[1]
        errors = torch.linalg.vecdot(g, error[:n])  # (R, n)
        out[:, source.errors : source.errors + n] = errors * counted[:n]
        bias = (errors * ~counted[:n]).double().sum(1)
    else:
        errors = torch.linalg.vecdot(g, error[at])
        out[torch.arange(len(at), device=at.device), source.errors + at] = errors * counted[at]
        bias = (errors * ~counted[at]).double()
    if not isinstance(parts, Decomposed):
        return bias
    added = g @ parts.bias
    bias = bias + (added.double() if at is not None else added.double().sum(1))
    if at is None:
        tokens = [(slice(None), g[:, t], t) for t in range(g.shape[1])]
    else:  # ordered by token
        places, count = at.unique_consecutive(return_counts=True)
        ends = [0, *count.cumsum(0).tolist()]
        tokens = [
            (slice(a, b), g[a:b], t)
            for (a, b), t in zip(pairwise(ends), places.tolist(), strict=True)
        ]
    active, first = parts.active, source.features
    for rows, here, t in tokens:
        a, b = source.starts[t], source.starts[t + 1]
        if a < b:
            written = active.value[a:b, None] * parts.decoder[active.feature[a:b]]
            out[rows, first + a : first + b] = here @ written.T
    return bias
