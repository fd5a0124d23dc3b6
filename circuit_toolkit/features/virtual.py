"""Virtual weights: what one feature does to another by the weights alone, directly or by a head.

The input-invariant factor of an attribution (Dunefsky, Chlenski & Nanda, 2024): decoder row times
encoder row, with every norm's factor taken as 1 and every attention weight as 1. In a run, the
change of a pre-activation at token t by a feature of activation a at token s is

    a * gain[t] * direct                                         where s is t, and
    a * gain[t] * pattern[t, s] * gain of attention[s] * by_head     for each head,

as long as patterns, norms and what stands between stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, one_of, whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows, encoder_rows, stream_of
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.weight_table import WEIGHT, VirtualWeights
from circuit_toolkit.models import Model
from circuit_toolkit.models.weights import in_block, input_matrices, norm_weight, output_matrix
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

ChosenFeatures = Mapping[Site, Sequence[int] | np.ndarray]
DENSE = 2**24  # numbers of a block of weights in memory at a time
MOST = 50_000_000  # rows of a table: 1 GB


def virtual_weights(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    *,
    sources: ChosenFeatures | None = None,
    targets: ChosenFeatures | None = None,
    through: Literal["direct", "heads", "both"] = "direct",
    top: int | None = 10,
    progress: bool = True,
) -> VirtualWeights:
    """Return the weights between features of different places of the stream.

    Decoder row of the source times encoder row of the target, in the stream's own coordinates
    (see `encoder_rows`), with the factors of norms taken as 1; through a head also with the weight
    of attention's norm, W_V, W_O and the weight of a norm behind attention. What MLPs and chains of
    heads make of a feature is left out.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Autoencoders of the stream, transcoders, or what else writes to it (as sources).
    sources, targets : dict of Site to sequence of int, optional
        Which features; by default all of those that write to the stream, or read it.
    through : {"direct", "heads", "both"}
        Along the stream, through one head, or either.
    top : int, optional
        For every target, from each site, keep so many of the strongest direct weights, and so many
        through heads, all heads together. None keeps all: for chosen features.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    VirtualWeights
        Pairs whose source writes before the target reads; of a target those of a site together.

    Raises
    ------
    InputError
        If a feature or site does not exist, what was chosen cannot be a source or a target, `top`
        makes no sense, or there would be too many rows.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> weights = virtual_weights(model, transcoders, targets={"mlp_in 2": [5]}, top=3)
    >>> weights
    VirtualWeights(6 rows at 6 sites: direct)
    """
    one_of(through, "through", "direct", "heads", "both")
    if top is not None:
        top = whole(top, "top", 1)
    dictionaries = as_dictionaries(model, dictionaries)
    reading = _rows(encoder_rows, model, dictionaries, targets, "targets")
    writing = _rows(decoder_rows, model, dictionaries, sources, "sources")
    sites = tuple(sorted(dictionaries))
    kinds = ("direct", *(f"a{layer}.h{head}" for layer, head in _heads(model)))
    found = [np.empty(0, WEIGHT)]
    bar = Bar(reading.items(), "virtual weights", shown=progress)
    for target, (chosen, encoder) in bar:
        place = stream_of(model, dictionaries[target])
        earlier = {s: rows for s, (_, rows) in writing.items() if dictionaries[s].out < place}
        size = max(1, DENSE // max(map(len, earlier.values()), default=1))
        for start in range(0, len(encoder) if earlier else 0, size):
            here = slice(start, start + size)
            strongest = _into(model, dictionaries, earlier, encoder[here], place, through, top)
            for source, each in strongest:
                table = each.rows(writing[source][0], chosen[here])
                table["source_site"] = sites.index(source)
                table["target_site"] = sites.index(target)
                found.append(table)
            if sum(map(len, found)) > MOST:
                raise InputError(
                    f"There would be more than {MOST:,} weights. Choose features with sources= or "
                    "targets=, or keep fewer of each target: top=10."
                )
    return VirtualWeights(np.concatenate(found), sites, kinds)


def _into(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    earlier: Mapping[Site, Tensor],
    encoder: Tensor,
    place: Site,
    through: str,
    top: int | None,
) -> list[tuple[Site, _Strongest]]:
    """Strongest weights into some features that read the stream at a place, (chunk, D)."""
    direct, by_head = ({site: _Strongest(top) for site in earlier} for _ in range(2))
    if through != "heads":
        for source, decoder in earlier.items():
            direct[source].add(decoder @ encoder.T.to(decoder), 0)
    for number, (layer, head) in enumerate(_heads(model), start=1):
        if through == "direct" or not Site("attn_out", layer) < place:
            break
        before = [s for s in earlier if dictionaries[s].out < Site("attn_pattern", layer)]
        seen = through_head(model, encoder, layer, head) if before else encoder
        for source in before:
            by_head[source].add(earlier[source] @ seen.T.to(earlier[source]), number)
    return [*direct.items(), *by_head.items()]


@torch.no_grad()
def through_head(model: Model, rows: Tensor, layer: int, head: int) -> Tensor:
    """Return what readers of the stream read of an earlier token, through one head."""
    architecture = model.architecture
    if architecture.attn_out != architecture.out_proj:
        rows = _behind(model, rows, architecture.attn_out, layer)
    rows = rows @ output_matrix(model, layer)[head].to(rows).T  # (n, d_head)
    rows = rows @ input_matrices(model, layer, "values")[0][head].to(rows).T  # (n, D)
    return _behind(model, rows, architecture.attn_norm, layer)


def _behind(model: Model, rows: Tensor, path: str | None, layer: int) -> Tensor:
    """Return what readers of a norm's output read of its input, its factor left out."""
    norm: Any = in_block(model, path, layer)
    weight, _ = norm_weight(norm, model.architecture)
    rows = rows * weight.to(rows)
    return rows - rows.mean(1, keepdim=True) if model.architecture.layer_norm else rows


def _heads(model: Model) -> Iterator[tuple[int, int]]:
    return ((layer, head) for layer in range(model.n_layers) for head in range(model.n_heads))


def _rows(
    of: Any,
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    chosen: ChosenFeatures | None,
    what: str,
) -> dict[Site, tuple[np.ndarray, Tensor]]:
    """Chosen features of each site and their rows; by default of all sites that have such rows."""
    found = {}
    if chosen is not None and not isinstance(chosen, Mapping):
        raise InputError(f"{what} must be features by site, got {described(chosen)}.")
    for name, features in (dict.fromkeys(dictionaries) if chosen is None else chosen).items():
        site = Site.parse(name)
        if site not in dictionaries:
            known = ", ".join(map(str, dictionaries)) or "none"
            raise InputError(f"No dictionary was given for {site} ({what}), only for {known}.")
        try:
            rows = of(model, dictionaries[site])
        except InputError:
            if chosen is None:
                continue  # it only writes to the stream, or only reads it
            raise
        found[site] = np.arange(len(rows)), rows
        if features is not None:
            index = _numbers(features, site, len(rows) - 1, what)
            found[site] = index, rows[torch.as_tensor(index, device=rows.device)]
    return found


def _numbers(features: Any, site: Site, last: int, what: str) -> np.ndarray:
    """Return numbers of features of a site as an array."""
    index = np.atleast_1d(np.asarray(features))
    if index.size and (index.ndim > 1 or index.dtype.kind not in "iu"):
        raise InputError(f"Features are whole numbers such as [3, 17], got {described(features)}.")
    if index.size and not 0 <= index.min() <= index.max() <= last:
        wrong = index.max() if index.max() > last else index.min()
        raise InputError(f"{site} has features 0 to {last}, {what} names {wrong}.")
    return index.astype(np.int64)


class _Strongest:
    """The strongest weights into each of some targets, over several blocks of weights."""

    def __init__(self, top: int | None) -> None:
        self.top = top
        self.weight = torch.empty(0, 0)  # (kept, targets)
        self.source = self.kind = torch.empty(0, 0, dtype=torch.int64)

    def add(self, block: Tensor, kind: int) -> None:
        """Take a block (sources, targets) into account."""
        block = block.cpu()
        kept = min(self.top or len(block), len(block))
        source = torch.arange(len(block))[:, None].expand_as(block)
        if kept < len(block):
            source = block.abs().topk(kept, dim=0).indices
        parts = block.gather(0, source), source, torch.full_like(source, kind)
        held = (self.weight, self.source, self.kind)
        if held[0].numel():
            parts = tuple(torch.cat(pair) for pair in zip(held, parts, strict=True))
        if self.top and len(parts[0]) > self.top:
            best = parts[0].abs().topk(self.top, dim=0).indices
            parts = tuple(each.gather(0, best) for each in parts)
        self.weight, self.source, self.kind = parts

    def rows(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return what is kept as rows of a table, whose sites are not filled in."""
        table = np.zeros(self.weight.numel(), WEIGHT)
        if not len(table):
            return table
        table["source"] = sources[self.source.T.reshape(-1).numpy()]
        table["target"] = np.repeat(targets, len(self.weight))
        table["kind"], table["weight"] = (x.T.reshape(-1).numpy() for x in (self.kind, self.weight))
        return table
