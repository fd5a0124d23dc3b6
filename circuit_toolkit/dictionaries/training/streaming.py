"""Several dictionaries trained side by side on a stream that is larger than memory.

Sequences come one after the other, from a generator or a file. As many as fit into memory make a
block: the model reads it once, at all sites, and every dictionary makes its steps on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuit_toolkit.dictionaries.training.batches import ActivationReader, TokenRows, token_rows
from circuit_toolkit.dictionaries.training.checkpoints import TrainingRun
from circuit_toolkit.dictionaries.training.trainers import SAMPLE
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.checks import existing_file
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

AT_A_TIME = 256  # texts that are turned into tokens together


@dataclass(frozen=True, eq=False)
class TokenStream:
    """Texts or token ids that come one by one; `begin` starts them anew."""

    model: Model
    begin: Callable[[], Iterable[Any]]
    bos: bool | None
    context: int | None
    packed: bool
    tokens: int  # in a block

    def blocks(self) -> Iterator[TokenRows]:
        """Return blocks of sequences until the stream ends."""
        rows: list[list[int]] = []
        held, starts = 0, []
        for part in _parts(self.begin()):
            found = token_rows(self.model, part, self.bos, self.context, self.packed)
            for row, n in zip(found.rows, found.counts.tolist(), strict=True):
                if rows and held + n > self.tokens:
                    yield _block(rows, starts)
                    rows, held, starts = [], 0, []
                rows.append(row)
                starts.append(n)
                held += n
        if rows:
            yield _block(rows, starts)


def _block(rows: list[list[int]], counts: list[int]) -> TokenRows:
    begin = all(n < len(row) for row, n in zip(rows, counts, strict=True))
    return TokenRows(rows, begin, np.array(counts))


def _parts(items: Iterable[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == AT_A_TIME:
            yield part
            part = []
    if part:
        yield part


def train_on_stream(
    model: Model,
    runs: Mapping[Site, TrainingRun],
    blocks: Iterable[TokenRows],
    *,
    passes: int,
    every: int,
    seed: int,
    progress: bool,
) -> dict[Site, Any]:
    """Train dictionaries side by side, from their last checkpoints on; return what was trained."""
    config = next(iter(runs.values())).config
    size, end = config.batch, config.steps
    sites = sorted({site for run in runs.values() for site in run.sites})
    reached = min(run.reached() for run in runs.values())
    training: dict[Site, Any] = {}
    saved = {site: run.reached() for site, run in runs.items()}
    begun = 0  # step at which the block begins
    with Bar(total=end, initial=reached, label="train", shown=progress) as bar:
        for number, block in enumerate(blocks):
            there = block.total // size
            first, begun = begun, begun + there * passes
            if begun <= reached:
                continue
            values = _activations(model, block, sites)
            orders = [
                np.random.default_rng([seed, number, i]).permutation(block.total)
                for i in range(passes)
            ]
            parts = [
                torch.from_numpy(order[i * size : (i + 1) * size])
                for order in orders
                for i in range(there)
            ]
            for site, run in runs.items():
                columns = [values[each] for each in run.sites]
                if site not in training:
                    sample = [tuple(x[rows] for x in columns) for rows in parts[:SAMPLE]]
                    training[site] = run.begin(sample)
                mine = training[site]
                for rows in parts[max(mine.step - first, 0) : end - first]:
                    mine.update(*[x[rows] for x in columns])
                if mine.step < end and mine.step - saved[site] >= every:
                    run.save_checkpoint(mine)
                    saved[site] = mine.step
            bar.update(min(begun, end) - bar.done)
            if begun >= end:
                return {site: each.finish() for site, each in training.items()}
    raise InputError(
        f"The stream ended after {begun} of {end} steps of {size} tokens. Pass more text, fewer "
        "steps or more passes."
    )


def _activations(model: Model, block: TokenRows, sites: list[Site]) -> dict[Site, Any]:
    reader = ActivationReader(model, block, [], memory=0, progress=False)
    found = reader.read(sites, np.arange(len(block.rows)))
    return dict(zip(sites, found, strict=True))


def beginning(prompts: Any) -> Callable[[], Iterable[Any]] | None:
    """Return what begins a stream, or None for a list of texts or token ids."""
    if isinstance(prompts, Path):
        return partial(lines_of, existing_file(resolved(prompts), _ONE_EACH))
    if callable(prompts):
        function: Any = prompts
        return function
    return (lambda: prompts) if isinstance(prompts, Iterator) else None


def lines_of(path: Path) -> Iterator[str]:
    """Return the lines of a file, which is not read whole."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in map(str.strip, file) if line)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is no text in UTF-8: {error}. {_ONE_EACH}") from error


_ONE_EACH = "Pass a file with a prompt on each line."
