"""What a capture runs and how: checked first, then run batch by batch as sparse activations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from circuit_toolkit.activations.activations import Activations, Positions, beside, several_of
from circuit_toolkit.arguments import as_prompts, expect, one_of, whole
from circuit_toolkit.dictionaries import Coordinates, Dictionary, coordinates, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.task import Task, trained_on

Encoders = Mapping[Site, Dictionary] | Dictionary | str | Sequence[Site | str]
Prompts = Task | Sequence[str] | Sequence[Sequence[int]]
DENSE = 2**24  # features that are dense at a time: a dictionary encodes so many tokens x features


@dataclass(frozen=True, eq=False)
class CapturePlan:
    """What a capture runs, and how; made by `plan_capture`, which checks it."""

    model: Model
    prompts: list
    task: Task | None
    dictionaries: Mapping[Site, Dictionary | Coordinates]
    positions: Positions
    bos: bool
    remote: bool | str
    batch_size: int

    @cached_property
    def scored(self) -> bool:
        """Whether the task scores the model; one of labels alone does not."""
        return self.task is not None and self.task.metric is not None

    @cached_property
    def read(self) -> list[Site]:
        """Sites that a run reads."""
        return [*self.dictionaries, *([LOGITS] if self.scored else [])]

    @cached_property
    def settings(self) -> dict:
        """Where activations come from, and the shapes of sites that are read as they are."""
        each = self.dictionaries.items()
        shapes = {str(site): list(d.shape) for site, d in each if isinstance(d, Coordinates)}
        return {
            "model": self.model.name,
            **self.captured_on,
            "positions": self.positions,
            "bos": self.bos,
            "dictionaries": {str(site): each.name for site, each in self.dictionaries.items()},
            **({"shapes": shapes} if shapes else {}),
        }

    @cached_property
    def captured_on(self) -> dict:
        """What the prompts are, which evidence says too."""
        return {
            "task": self.task.name if self.task else None,
            "n_prompts": len(self.prompts),
            "trained_on": trained_on(self.task),
        }

    def tokenize(self, rows: range) -> Batch:
        """Tokenize some of the prompts as the dictionaries want them."""
        prompts = [self.prompts[row] for row in rows]
        return self.model.tokenize(prompts, bos=_begins(self.dictionaries))

    def activations(self, rows: range, batch: Batch) -> Activations:
        """Run some of the prompts and encode what they give."""
        values = run(self.model, batch, read=self.read, last_logits=True, remote=self.remote)
        mask = batch.mask.bool() if self.bos else token_mask(self.model, batch)  # (B, T)
        prompt, place = (index.cpu().numpy() for index in mask.nonzero(as_tuple=True))
        padding = (batch.mask == 0).sum(1).cpu().numpy()
        words = self.model.words(batch)
        scores = values[LOGITS][:, -1] if self.scored else None
        tokens = Activations(
            features={},
            prompt=prompt,
            position=place - padding[prompt],
            tokens=words,
            texts=[self._text(row) for row in rows],
            settings={**self.settings, "positions": "all"},
            **self._of_prompts(np.array(rows), np.array([*map(len, words)]), scores),
        )
        several = [] if self.positions == "all" else several_of(self.positions)
        pools = [tokens.pooling(each) for each in several]
        read: Any = slice(None)  # tokens that are encoded: those that go into a pool
        if pools:
            read = np.unique(np.concatenate([pool.indices for pool in pools])).astype(int)
            pools = [pool[:, read] for pool in pools]
        features = {}
        for site, dictionary in self.dictionaries.items():
            value = values.pop(site)  # let go of: raw values are most of what a batch needs
            acts = _sparse(dictionary, value[mask.to(value.device)][read])
            features[site] = beside(pools, acts) if pools else acts
            del value
        return replace(tokens.pooled(self.positions), features=features)

    def _text(self, row: int) -> str:
        """Return a prompt as it was given; of token ids the text that they make."""
        given = self.prompts[row]
        return given if isinstance(given, str) else str(self.model.tokenizer.decode(given))

    def _of_prompts(self, rows: np.ndarray, lengths: np.ndarray, logits: Tensor | None) -> dict:
        """Return what is known of each prompt of a batch, most of it by the task."""
        if (task := self.task) is None:
            return {"groups": rows}
        pairs = task.groups[rows]
        return {
            "groups": pairs,
            "metric": None if logits is None else task.score(logits, rows.tolist()).numpy(),
            "directions": np.asarray(task.directions)[pairs] if len(task.directions) else None,
            "labels": {name: np.asarray(each)[pairs] for name, each in task.labels.items()},
            "named": {name: lengths + np.asarray(i)[pairs] for name, i in task.positions.items()},
        }


def plan_capture(
    model: Model,
    encoders: Encoders,
    prompts: Prompts,
    positions: Positions,
    bos: bool,
    remote: bool | str,
    batch_size: int = 128,
) -> CapturePlan:
    """Check what is to be captured."""
    expect(model, "model", "Model")
    chosen = _encoders(model, encoders)
    given = as_prompts(prompts, model)
    task = None if isinstance(given, list) else given
    known = ["mean", "last", *(task.positions if task else [])]
    several, one = several_of(positions), isinstance(positions, str)
    for each in several:
        one_of(each, "positions", *(["all"] if one else []), *known)
    _begins(chosen)
    texts, size = list(task.texts) if task else given, whole(batch_size, "batch_size", 1)
    where = positions if one else several
    return CapturePlan(model, texts, task, chosen, where, bos, remote, size)


def _encoders(model: Model, given: Any) -> Mapping[Site, Dictionary | Coordinates]:
    """Return dictionaries by site, or the coordinates of sites."""
    one = isinstance(given, str | Mapping) or hasattr(given, "encode")  # sae_lens's iterate
    if isinstance(given, Iterable) and not one:
        given = list(given)
    names: list[Any] = given if isinstance(given, list) else [given]
    if names and all(isinstance(each, Site | str) for each in names):
        return coordinates(model, given if isinstance(given, str) else names)
    return as_dictionaries(model, given)


def _begins(dictionaries: Mapping[Site, Dictionary | Coordinates]) -> bool | None:
    """Return how prompts must begin; sites as they are leave it to the tokenizer."""
    return shared_bos(each for each in dictionaries.values() if isinstance(each, Dictionary))


def _sparse(dictionary: Dictionary | Coordinates, x: Tensor) -> sp.csr_array:
    """Features of n tokens, shape (n, F), encoded piece by piece where they are many."""
    pieces = []
    for piece in x.split(max(1, DENSE // dictionary.n_features)):
        acts = dictionary.encode(piece)  # (tokens, F)
        place = acts.nonzero(as_tuple=True)  # row by row
        rows, columns = (index.int().cpu().numpy() for index in place)
        values = acts[place].cpu().numpy()
        pieces.append(sp.csr_array((values, (rows, columns)), shape=acts.shape))
    return sp.csr_array(sp.vstack(pieces, format="csr"))
