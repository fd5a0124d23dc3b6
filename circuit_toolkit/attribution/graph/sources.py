"""The model held at one prompt, and what writes to its stream: a column for each node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.linear import Decomposed, FrozenModel
from circuit_toolkit.attribution.frozen.readings import block_of, reading_of
from circuit_toolkit.attribution.frozen.run import frozen_run, frozen_weights, upstream_of
from circuit_toolkit.attribution.frozen.sums import Reading
from circuit_toolkit.circuit.tables import TOKEN, new_nodes
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
NUMBERS = 2**22  # of one gradient in memory


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


@dataclass(frozen=True, eq=False)
class HeldPrompt:
    """The model at one prompt, and the columns of its sources, in order of computation."""

    model: Model
    batch: Batch
    frozen: FrozenModel
    values: Mapping[Site, Tensor]
    sources: Sequence[Source]
    counted: Tensor  # (T,) tokens at which features count
    position: int
    n_columns: int

    @classmethod
    def of(
        cls, model: Model, dictionaries: Mapping[Site, Dictionary], batch: Batch, position: int
    ) -> HeldPrompt:
        """Run the model, and give every source its columns."""
        n = model.n_layers
        by_layer = upstream_of(dictionaries)
        streams = _streams(model, dictionaries)
        weights = frozen_weights(model, by_layer, n, n, streams)
        used = [*by_layer.values(), *streams.values()]
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
        return cls(model, batch, frozen, values, sources, counted[0], at, column)

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

    def readings(self, columns: np.ndarray) -> Iterator[tuple[np.ndarray, Reading, Tensor]]:
        """Return features as readings, of one module at a time, ordered by token."""
        size = self.batch_size
        for each in self.sources:
            mine = columns[(columns >= each.features) & (columns < each.errors)]
            if not len(mine):
                continue
            assert isinstance(each.parts, Decomposed) and each.dictionary is not None
            active = each.parts.active
            stream = self.values[stream_of(self.model, each.dictionary)]
            for part in np.split(mine, range(size, len(mine), size)):
                which = torch.as_tensor(part - each.features, device=stream.device)
                at, feature = active.place[which], active.feature[which]
                encoder = (
                    read(self.model, each.dictionary, feature).to(stream)
                    for read in (encoder_rows, encoder_constants)
                )
                x = stream[0, at]
                reading = reading_of(self.model, each.dictionary, x, at, *encoder)
                yield part, reading, active.value[which]


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
