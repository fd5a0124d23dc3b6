"""Features at places, a site and a position that the task names, and runs without some of them.

An ablated feature is set to what it is on the corrupted prompt, or to its mean there. So a circuit
of (feature, position) pairs can be kept alone, or taken away, and one feature can be ablated by
itself to see what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, one_of
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices, rows_of, tokenized_pairs

Ablation = Literal["corrupted", "mean"]
Errors = Literal["kept", "ablated"]
Place = tuple[Site, str]  # a site and a position
Units = Mapping[Place, np.ndarray]  # features at each place
TABLES = ("where", "acts", "reference", "error")
SIZE = 128  # prompts in a run: more outgrow the caches of a processor


@dataclass(frozen=True, eq=False)
class PlacedFeatures:
    """n prompts, their features at places, and what an ablated one is set to."""

    model: Model
    dictionaries: Mapping[Site, Dictionary]
    task: Task
    batch: Batch
    where: Mapping[str, Tensor]  # (n,) token of each prompt
    acts: Mapping[Place, Tensor]  # (n, F)
    reference: Mapping[Place, Tensor]  # (n, F)
    error: Mapping[Place, Tensor]  # (n, D), what the dictionary leaves unexplained there
    logits: Tensor  # (n, V)
    start: tuple[int, Tensor] | None  # blocks before the first site, and what they put out
    ablation: Ablation

    @classmethod
    def of(
        cls,
        model: Model,
        dictionaries: Any,
        task: Task,
        positions: str | Sequence[str] | None = None,
        ablation: Ablation | None = None,
        *,
        means: Mapping[Place, Any] | None = None,
    ) -> Self:
        """Run prompts once; `means` (F,) may be those of other prompts."""
        ordered = as_dictionaries(model, dictionaries)
        ablation = ablation or ("corrupted" if task.corrupted else "mean")
        one_of(ablation, "ablation", "corrupted", "mean")
        bos = shared_bos(ordered)
        pairs = tokenized_pairs(model, task, bos=bos, corrupted=ablation == "corrupted")
        where = _where(task, pairs.clean, positions)
        first = min(ordered)
        blocks = first.layer + (first.kind == "resid_post")
        before = [Site("resid_post", blocks - 1)] if blocks and not model.edits else []
        found = _read(model, ordered, pairs.clean, where, before)
        acts, error = found.acts, found.error
        if ablation == "corrupted":
            other = _read(model, ordered, pairs.corrupted, where, [])
            reference, replaced = other.acts, other.error
        else:
            known = (
                {place: each.mean(0) for place, each in acts.items()} if means is None else means
            )
            reference = {
                place: torch.as_tensor(known[place]).to(each).expand_as(each)
                for place, each in acts.items()
            }
            replaced = {place: each.mean(0).expand_as(each) for place, each in error.items()}
        start = (blocks, found.before) if found.before is not None else None
        rest = (acts, reference, replaced, found.logits, start, ablation)
        return cls(model, ordered, task, pairs.clean, where, *rest)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.batch.ids)

    def subset(self, n: int) -> Self:
        """Keep the first n prompts."""
        n = min(n, len(self))

        def first(table: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
            return {key: value[:n] for key, value in table.items()}

        return replace(
            self,
            task=self.task.subset(n),
            batch=rows_of(self.batch, slice(0, n)),
            **{name: first(getattr(self, name)) for name in TABLES},
            logits=self.logits[:n],
            start=(self.start[0], self.start[1][:n]) if self.start else None,
        )

    @property
    def places(self) -> list[Place]:
        """Places in order of computation."""
        return list(self.acts)

    @property
    def positions(self) -> list[str]:
        """Positions, as they were given."""
        return list(self.where)

    def metric(self, logits: Tensor | None = None, rows: Sequence[int] | None = None) -> np.ndarray:
        """Score logits (B, V) of some prompts; by default those of the model as it is."""
        logits = self.logits if logits is None else logits
        rows = range(len(self)) if rows is None else rows
        return self.task.score(logits, rows).double().numpy()

    def changed(self, units: Units) -> np.ndarray:
        """Return on which prompts an ablation changes features, (features, n)."""
        each = [
            self.acts[place][:, listed] != self.reference[place][:, listed]
            for place in self.places
            if len(listed := _units(units, place))
        ]
        return torch.cat(each, 1).T.cpu().numpy()

    def active(self) -> dict[Place, np.ndarray]:
        """Features that an ablation changes on any prompt."""
        changed = {place: (self.acts[place] != self.reference[place]).any(0) for place in self.acts}
        return {place: mask.nonzero()[:, 0].cpu().numpy() for place, mask in changed.items()}

    def metric_with(
        self,
        circuits: Iterable[Units],
        *,
        kept: bool = True,
        errors: Errors = "kept",
        progress: bool = False,
    ) -> np.ndarray:
        """Measure every prompt, shape (circuits, n), with only a circuit kept, or with it ablated.

        Everything else at these places is ablated; what the dictionaries leave unexplained is kept,
        or ablated as well.
        """
        from tqdm.auto import tqdm

        bar = tqdm(list(circuits), "ablating", disable=not progress, leave=False)
        rows = [self._metric_with(units, kept, errors) for units in bar]
        return np.stack(rows) if rows else np.zeros((0, len(self)))

    def _metric_with(self, units: Units, kept: bool, errors: Errors) -> np.ndarray:
        masks = {}
        for place, acts in self.acts.items():
            mask = torch.zeros(acts.shape[1], dtype=torch.bool, device=acts.device)
            mask[torch.as_tensor(np.asarray(units.get(place, []), dtype=np.int64))] = True
            masks[place] = mask if kept else ~mask
        measured = []
        for rows in row_slices(len(self), SIZE):
            write = self._edits(rows, masks, errors)
            logits = self.run(rows, write, [LOGITS])[LOGITS][:, -1]
            measured.append(self.metric(logits, range(rows.start, rows.stop)))
        return np.concatenate(measured)

    def run(
        self, rows: slice | Tensor, write: Mapping[Site, Edit], read: Sequence[Site]
    ) -> dict[Site, Tensor]:
        """Run some prompts, from the first block that may be changed."""
        batch = rows_of(self.batch, rows)
        skip = (self.start[0], self.start[1][rows]) if self.start else None
        return run(self.model, batch, read, write, last_logits=True, skip=skip)

    def _edits(
        self, rows: slice, masks: Mapping[Place, Tensor], errors: Errors
    ) -> dict[Site, Edit]:
        """Keep some features at every place, and set the others to their reference."""
        found: dict[Site, Edit] = {}
        for site, dictionary in self.dictionaries.items():
            held: dict[str, Tensor] = {}

            def look(x: Tensor, site: Site = site, held: dict[str, Tensor] = held) -> Tensor:
                each = self.dictionaries[site]
                for position, at in self.where.items():
                    place = (site, position)
                    seen = x[torch.arange(len(x)), at[rows]]
                    old = each.encode(seen)
                    new = torch.where(masks[place], old, self.reference[place][rows])
                    held[position] = (
                        each.difference(old, new, seen)
                        if errors == "kept"
                        else each.decode(new, seen) + self.error[place][rows]
                    )
                return x

            def put(y: Tensor, held: dict[str, Tensor] = held) -> Tensor:
                y = y.clone()
                for position, value in held.items():
                    here = torch.arange(len(y)), self.where[position][rows]
                    y[here] = (y[here] + value if errors == "kept" else value).to(y)
                return y

            if dictionary.out == site:
                found[site] = lambda x, look=look, put=put: put(look(x))
            else:
                found |= {site: look, dictionary.out: put}
        return found

    def effects(
        self, sources: Units, targets: Units, *, progress: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ablate every source by itself.

        Returns what is lost on every prompt of the target features, shape (sources, targets, n),
        and of the metric, shape (sources, n): as it is minus without the source. Rows and columns
        are in the order of the places.
        """
        asked = {place: _units(sources, place) for place in self.places}
        ends = {place: _units(targets, place) for place in self.places}
        first, column = (_offsets(each) for each in (asked, ends))
        on_features = np.zeros((_total(asked), _total(ends), len(self)), np.float32)
        on_metric = np.zeros((_total(asked), len(self)))
        plain = torch.from_numpy(self.metric())
        pairs = torch.cat([self._changing(place, asked[place], first[place]) for place in asked])
        numbers = torch.cat([torch.full((len(asked[at]),), i) for i, at in enumerate(asked)])
        units = torch.cat(list(asked.values()))
        for part in row_slices(len(pairs), SIZE, progress, "ablating features"):
            which, rows = pairs[part].T
            used = {self.places[i]: numbers[which] == i for i in numbers[which].unique().tolist()}
            earliest = min(site for site, _ in used)
            later = {at: each for at, each in ends.items() if len(each) and at[0] > earliest}
            write = self._single(used, rows, units[which])
            seen: dict[Place, Tensor] = {}
            for site in dict.fromkeys(site for site, _ in later):
                write[site] = self._watch(site, rows, later, seen, write.get(site))
            logits = self.run(rows, write, [LOGITS])[LOGITS][:, -1]
            lost = plain[rows] - torch.from_numpy(self.metric(logits, rows.tolist()))
            on_metric[which, rows] = lost
            for place, values in seen.items():
                there = self.acts[place][rows][:, later[place]] - values
                columns = column[place] + np.arange(len(later[place]))
                on_features[which[:, None], columns, rows[:, None]] = there.cpu().numpy()
        return on_features, on_metric

    def _changing(self, place: Place, units: Tensor, first: int) -> Tensor:
        """Pair sources, counted from `first`, with the prompts where they change, (m, 2)."""
        differ = self.acts[place][:, units] != self.reference[place][:, units]
        found = differ.T.nonzero().cpu()
        found[:, 0] += first
        return found

    def _single(
        self, used: Mapping[Place, Tensor], rows: Tensor, units: Tensor
    ) -> dict[Site, Edit]:
        """Set one feature of each row to its reference; `used` says which rows are of a place."""
        added: dict[Site, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for (site, position), chosen in used.items():
            lines, place = chosen.nonzero()[:, 0], (site, position)
            prompts, mine = rows[lines], units[lines]
            change = (self.reference[place] - self.acts[place])[prompts, mine]
            directions = decoder_rows(self.model, self.dictionaries[site])[mine]
            at = self.where[position][prompts]
            added.setdefault(site, []).append((lines, at, change[:, None] * directions))
        return {
            self.dictionaries[site].out: lambda y, parts=parts: _added(y, parts)
            for site, parts in added.items()
        }

    def adding(
        self, added: Mapping[Place, Tensor], units: Mapping[Place, Tensor], rows: slice
    ) -> dict[Site, Edit]:
        """Add (B, p) to features at places, by what their directions add to the model."""
        found: dict[Site, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for (site, position), value in added.items():
            directions = decoder_rows(self.model, self.dictionaries[site])
            moved = value @ directions[units[site, position]].to(value)
            at = self.where[position][rows]
            found.setdefault(site, []).append((torch.arange(len(at)), at, moved))
        return {
            self.dictionaries[site].out: lambda y, parts=parts: _added(y, parts)
            for site, parts in found.items()
        }

    def _watch(
        self,
        site: Site,
        rows: Tensor,
        targets: Mapping[Place, Tensor],
        seen: dict[Place, Tensor],
        edit: Edit | None,
    ) -> Edit:
        """Encode target features of a site before anything is changed there."""

        def watch(x: Tensor) -> Tensor:
            for place, units in targets.items():
                if place[0] == site:
                    values = x[torch.arange(len(x)), self.where[place[1]][rows]]
                    acts = self.dictionaries[site].encode(values)
                    seen[place] = acts[:, units]
            return edit(x) if edit else x

        return watch


def _units(chosen: Units, place: Place) -> Tensor:
    return torch.as_tensor(np.asarray(chosen.get(place, []), dtype=np.int64))


def _offsets(units: Mapping[Place, Tensor]) -> dict[Place, int]:
    """Row of the first feature of each place."""
    return dict(zip(units, np.cumsum([0, *map(len, units.values())]).tolist(), strict=False))


def _total(units: Mapping[Place, Tensor]) -> int:
    return sum(map(len, units.values()))


def _added(y: Tensor, parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Add vectors (m, D) at rows and tokens."""
    y = y.clone()
    for lines, at, vectors in parts:
        y[lines, at] += vectors.to(y)
    return y


@dataclass
class _Read:
    """What one run of all prompts gave at the places."""

    acts: dict[Place, Tensor]
    error: dict[Place, Tensor]
    logits: Tensor
    before: Tensor | None


def _read(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    batch: Batch,
    where: Mapping[str, Tensor],
    before: Sequence[Site],
) -> _Read:
    sites = dict.fromkeys([*dictionaries, *(each.out for each in dictionaries.values()), *before])
    acts: dict[Place, list[Tensor]] = {}
    error: dict[Place, list[Tensor]] = {}
    logits, starts = [], []
    for rows in row_slices(len(batch.ids), SIZE):
        found = run(model, rows_of(batch, rows), [*sites, LOGITS], last_logits=True)
        logits.append(found[LOGITS][:, -1])
        starts += [found[site] for site in before]
        for site, dictionary in dictionaries.items():
            for position, at in where.items():
                here = torch.arange(len(logits[-1])), at[rows]
                x, y = found[site][here], found[dictionary.out][here]
                coded = dictionary.encode(x)
                acts.setdefault((site, position), []).append(coded)
                left = y.float() - dictionary.decode(coded, x)
                error.setdefault((site, position), []).append(left)
    return _Read(
        {place: torch.cat(parts) for place, parts in acts.items()},
        {place: torch.cat(parts) for place, parts in error.items()},
        torch.cat(logits),
        torch.cat(starts) if starts else None,
    )


def named_positions(task: Task) -> list[str]:
    """Return the positions that a task names, each a token of its own, and `last`."""
    ends = {"last": (-1,) * len(task), **task.positions}
    found: list[str] = ["last"]
    for name in task.positions:
        if not any(_meet(ends[name], ends[other]) for other in found):
            found.append(name)
    return [*found[1:], "last"]


def _meet(one: Sequence[int], other: Sequence[int]) -> bool:
    return any(a == b for a, b in zip(one, other, strict=True))


def _where(task: Task, batch: Batch, positions: str | Sequence[str] | None) -> dict[str, Tensor]:
    """Return the token of every prompt at each position."""
    if positions is None:
        positions = named_positions(task)
    names = [positions] if isinstance(positions, str) else list(positions)
    n, length = batch.ids.shape
    found: dict[str, Tensor] = {}
    for name in names:
        if name != "last" and name not in task.positions:
            known = ", ".join([*task.positions, "last"])
            raise InputError(
                f"Task {task.name!r} names no position {described(name)}. Use some of {known}."
            )
        ends = torch.full((n,), -1) if name == "last" else torch.tensor(task.positions[name][:n])
        found[name] = (length + ends).to(batch.ids.device)
    if not found:
        raise InputError("positions is empty: name at least one.")
    for one, other in combinations(found, 2):
        if bool((found[one] == found[other]).any()):
            raise InputError(
                f"On some prompts of {task.name!r}, {one!r} and {other!r} are the same token. "
                "Leave one of them out."
            )
    return found
