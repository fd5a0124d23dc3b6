"""Batches of activations to train on: shuffled, repeatable, and from any step on.

Texts become sequences of tokens, these go in random order into blocks that fit into memory, and the
tokens of a block are shuffled. Which tokens are in which batch depends on the seed and on counts
alone, so training goes on at step 5,000 without running the model on what came before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import as_prompts, refuse_surrogates, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model, run, token_mask
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

AT_ONCE = 2**14  # tokens in one forward pass, padding included
Read = Callable[[np.ndarray], tuple[Tensor, ...]]  # numbers of sequences -> their activations


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Sequences of tokens."""

    rows: list[list[int]]
    begin: bool
    counts: np.ndarray

    @property
    def total(self) -> int:
        """Number of tokens to train on."""
        return int(self.counts.sum())

    @property
    def longest(self) -> int:
        """Tokens in the longest sequence."""
        return max(map(len, self.rows))

    @cached_property
    def sha256(self) -> str:
        """Checksum of all tokens and where sequences end."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(np.array([len(row), *row], dtype=np.int32).tobytes())
        return digest.hexdigest()


def token_rows(
    model: Model,
    prompts: Any,
    bos: bool | None = None,
    context: int | None = None,
    packed: bool = False,
) -> TokenRows:
    """Turn texts, or token ids, into sequences that the model takes."""
    context = min(model.context, 1024) if context is None else whole(context, "context")
    if not 2 <= context <= model.context:
        raise InputError(
            f"context must be from 2 to {model.context}, the context of {model.name}, got {context}"
        )
    given = as_prompts(prompts, model)
    items: list[Any] = getattr(given, "texts", given)
    if all(isinstance(item, str) for item in items):
        rows = _rows_of_texts(model, items, bos, context, packed)
    elif bos is not None or packed:
        raise InputError("Token ids are taken as they are: prepend_bos and packed are for texts.")
    else:
        rows = [model.tokenize([row]).ids[0].tolist() for row in items]
    if not rows:
        raise InputError("The texts to train on are all empty.")
    begins = [row[0] == model.bos_id for row in rows]
    counts = [len(row) - first for row, first in zip(rows, begins, strict=True)]
    return TokenRows(rows, all(begins), np.array(counts))


def _rows_of_texts(
    model: Model, texts: list[str], bos: bool | None, context: int, packed: bool
) -> list[list[int]]:
    if bos and model.bos_id is None:
        raise InputError(f"The tokenizer of {model.name} has no token to begin a text with.")
    for text in texts:
        refuse_surrogates(text, "A text")
    ids: list[list[int]] = model.tokenizer(texts, verbose=False)["input_ids"]  # pyright: ignore
    begins = all(row[:1] == [model.bos_id] for row in ids) if bos is None else bos
    bare = [row[1:] if row[:1] == [model.bos_id] else row for row in ids]
    first: list = [model.bos_id] if begins else []
    if packed:
        eos: Any = model.tokenizer.eos_token_id
        end = [token for token in [model.bos_id if eos is None else eos] if token is not None]
        joined = [token for row in bare for token in (*row, *end)]
        step = context - len(first)
        rows = [joined[start : start + step] for start in range(0, len(joined), step)]
    else:
        rows = [row[: context - len(first)] for row in bare]
    return [first + row for row in rows if row]


class ActivationReader:
    """Activations of sequences, in memory as far as they are allowed to be."""

    def __init__(
        self,
        model: Model,
        tokens: TokenRows,
        wanted: Sequence[tuple[Site, ...]],
        memory: float,
        progress: bool = True,
    ):
        self.model, self.tokens, self.memory, self.progress = model, tokens, memory, progress
        every = sorted({site for sites in wanted for site in sites})  # none if all is finished
        self._together = every if every and tokens.total <= self.capacity(every) else []
        self._numbers = np.array([], dtype=int)  # of the sequences that are held
        self._held: dict[Site, Tensor] = {}

    def capacity(self, sites: Sequence[Site]) -> int:
        """Tokens whose activations at these sites fit into memory."""
        return int(self.memory // (4 * sum(prod(self.model.shape_at(site)) for site in sites)))

    def batches(
        self, sites: tuple[Site, ...], size: int, seed: int, start: int = 0
    ) -> Iterator[tuple[Tensor, ...]]:
        """Return shuffled batches of activations for ever, see `shuffled`."""
        read = partial(self.read, sites)
        return shuffled(read, self.tokens.counts, self.capacity(sites), size, seed, start)

    def read(self, sites: Sequence[Site], numbers: np.ndarray) -> tuple[Tensor, ...]:
        """Return the activations of some sequences, from memory if these were the last."""
        if not (np.array_equal(numbers, self._numbers) and set(sites) <= set(self._held)):
            self._held = {}  # before more is read
            self._held = self._gathered(self._together or sites, numbers)
            self._numbers = numbers
        return tuple(self._held[site] for site in sites)

    def _gathered(self, sites: Sequence[Site], numbers: np.ndarray) -> dict[Site, Tensor]:
        model = self.model
        total, filled = int(self.tokens.counts[numbers].sum()), 0
        values = {site: torch.empty(total, prod(model.shape_at(site))) for site in sites}
        rows = [self.tokens.rows[i] for i in numbers]
        with Bar(total=total, label="read", unit="token", shown=self.progress) as bar:
            for part in _similar(rows):
                batch = model.tokenize(part)
                mask = token_mask(model, batch)
                n = int(mask.sum())
                for site, x in run(model, batch, read=sites).items():
                    values[site][filled : filled + n] = x[mask.to(x.device)].flatten(1)
                filled += n
                bar.update(n)
        return values


def shuffled(
    read: Read, counts: np.ndarray, capacity: int, size: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, ...]]:
    """Return shuffled batches for ever."""
    for epoch in count():
        for number, block in enumerate(_blocks(counts, capacity, seed, epoch)):
            n = int(counts[block].sum())
            if start >= n // size:
                start -= n // size
                continue
            values = read(block)
            order = np.random.default_rng([seed, epoch, number]).permutation(n)
            for first in range(start * size, n - size + 1, size):
                rows = torch.from_numpy(order[first : first + size])
                yield tuple(value[rows] for value in values)
            start, values = 0, ()  # lets go of the block before the next is read


def _blocks(counts: np.ndarray, capacity: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Numbers of sequences (sorted), block by block; the last block may be smaller."""
    order = np.random.default_rng([seed, epoch]).permutation(len(counts))
    blocks, block, tokens = [], [], 0
    for i in order:
        if block and tokens + counts[i] > capacity:
            blocks.append(np.sort(block))
            block, tokens = [], 0
        block.append(i)
        tokens += counts[i]
    return [*blocks, np.sort(block)]


def _similar(rows: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Put sequences of similar length together, for one forward pass each."""
    part: list[list[int]] = []
    for row in sorted(rows, key=len):
        if part and (len(part) + 1) * len(row) > AT_ONCE:
            yield part
            part = []
        part.append(row)
    if part:
        yield part
