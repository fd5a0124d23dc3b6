"""Rows of the adjacency: one walk back gives a batch of them, each kept sparse."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import Decomposed
from circuit_toolkit.attribution.frozen.readings import block_of
from circuit_toolkit.attribution.frozen.sums import Passed, Reading, backwards
from circuit_toolkit.attribution.graph.pruning import along_paths
from circuit_toolkit.attribution.graph.sources import NUMBERS, HeldPrompt, Source
from circuit_toolkit.dictionaries.directions import STREAM

CANCELLED = 0.01  # share of its absolute terms below which a sum counts as this share of them


class Rows:
    """Rows of the adjacency, filled batch by batch, each kept sparse."""

    def __init__(self, held: HeldPrompt, n_targets: int, max_inputs: int) -> None:
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
        return along_paths(weights, self._back)

    def _back(self, step: np.ndarray) -> np.ndarray:
        """Pass what reaches nodes on to what enters them, by shares."""
        now = np.zeros(len(step))
        for nodes, part in self.parts:
            if step[nodes].any():
                sizes = sp.csr_array((np.abs(part.data), part.indices, part.indptr), part.shape)
                now[: self.held.n_columns] += sizes.T @ (step[nodes] * self.scale[nodes])
        return now

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


def _walk(held: HeldPrompt, reading: Reading) -> tuple[Tensor, Tensor]:
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
