"""Features at places, a site and a position that the task names, and runs without some of them.

An ablated feature is set to what it is on the corrupted prompt, or to its mean there. So a circuit
of (feature, position) pairs can be kept alone, or taken away, and one feature can be ablated by
itself to see what follows from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, expect_known, one_of
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
    starts: Mapping[Site, tuple[int, Tensor]]  # blocks before a site, and what they put out
    ablation: Ablation

    @classmethod
    def of(
        cls,
        model: Model,
        dictionaries: Any,
        task: Task,
        positions: str | Sequence[str] | None = None,
        ablation: Ablation | None = None,
    ) -> Self:
        """Run prompts once."""
        ordered = as_dictionaries(model, dictionaries)
        ablation = ablation or ("corrupted" if task.corrupted else "mean")
        one_of(ablation, "ablation", "corrupted", "mean")
        corrupted = ablation == "corrupted"
        pairs = tokenized_pairs(model, task, bos=shared_bos(ordered), corrupted=corrupted)
        where = _where(task, pairs.clean, positions)
        blocks = {} if model.edits else {s: s.layer + (s.kind == "resid_post") for s in ordered}
        before = {site: Site("resid_post", n - 1) for site, n in blocks.items() if n}
        also = dict.fromkeys([LOGITS, *before.values()])
        acts, error, whole = _read(model, ordered, pairs.clean, where, [*also])
        if corrupted:
            reference, replaced, _ = _read(model, ordered, pairs.corrupted, where)
        else:
            reference, replaced = (
                {place: each.mean(0).expand_as(each) for place, each in table.items()}
                for table in (acts, error)
            )
        starts = {site: (blocks[site], whole[output]) for site, output in before.items()}
        rest = (acts, reference, replaced, whole[LOGITS][:, -1], starts, ablation)
        return cls(model, ordered, task, pairs.clean, where, *rest)

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.batch.ids)

    def subset(self, n: int) -> Self:
        """Keep the first n prompts."""
        tables = {name: getattr(self, name).items() for name in TABLES}
        return replace(
            self,
            task=self.task.subset(n),
            batch=rows_of(self.batch, slice(0, n)),
            **{name: {key: each[:n] for key, each in table} for name, table in tables.items()},
            logits=self.logits[:n],
            starts={site: (blocks, each[:n]) for site, (blocks, each) in self.starts.items()},
        )

    def ablated_to(self, other: Self) -> Self:
        """Return the same prompts, whose ablated features are set to means over other prompts."""
        tables = {
            name: {
                at: each.mean(0).expand_as(getattr(self, name)[at]) for at, each in table.items()
            }
            for name, table in (("reference", other.acts), ("error", other.error))
        }
        return replace(self, **tables, ablation="mean")

    @property
    def places(self) -> list[Place]:
        """Places in order of computation."""
        return list(self.acts)

    @property
    def positions(self) -> list[str]:
        """Positions, as they were given."""
        return list(self.where)

    def metric(self, logits: Tensor | None = None, rows: Any = None) -> np.ndarray:
        """Score logits (B, V) of some prompts; by default those of the model as it is."""
        logits = self.logits if logits is None else logits
        rows = range(len(self)) if rows is None else rows
        return self.task.score(logits, rows).double().numpy()

    def changed(self, units: Units) -> np.ndarray:
        """Return on which prompts an ablation changes features, (features, n)."""
        listed = {place: _units(units, place) for place in self.places}
        each = [self.acts[at][:, i] != self.reference[at][:, i] for at, i in listed.items()]
        return torch.cat(each, 1).T.cpu().numpy()

    def sizes(self) -> dict[Place, np.ndarray]:
        """Return the mean change of each feature times the norm of its decoder, (F,) at each place.

        It is what a ranking has to beat.
        """
        found = {}
        for place, acts in self.acts.items():
            norm = self.dictionaries[place[0]].directions.flatten(1).norm(dim=1)
            change = (acts - self.reference[place]).abs().mean(0)
            found[place] = (change * norm.to(change)).cpu().numpy()
        return found

    def active(self) -> dict[Place, np.ndarray]:
        """Features that an ablation changes on any prompt."""
        changed = {place: (self.acts[place] != self.reference[place]).any(0) for place in self.acts}
        return {place: mask.nonzero()[:, 0].cpu().numpy() for place, mask in changed.items()}

    def metric_with(
        self, units: Units, *, kept: bool = True, errors: Errors = "kept"
    ) -> np.ndarray:
        """Measure every prompt, shape (n,), with only a circuit kept, or with it ablated.

        Everything else at these places is ablated; what the dictionaries leave unexplained is kept,
        or ablated as well.
        """
        masks = {}
        for place, acts in self.acts.items():
            mask = torch.zeros(acts.shape[1], dtype=torch.bool, device=acts.device)
            mask[_units(units, place)] = True
            masks[place] = mask if kept else ~mask
        measured = []
        for rows in row_slices(len(self), SIZE):
            write = self._edits(rows, masks, errors)
            logits = self.run(rows, write, [LOGITS])[LOGITS][:, -1]
            measured.append(self.metric(logits, range(rows.start, rows.stop)))
        return np.concatenate(measured)

    def run(
        self,
        rows: slice | Tensor,
        write: Mapping[Site, Edit],
        read: Sequence[Site],
        first: Site | None = None,
        grad: bool = False,
    ) -> dict[Site, Tensor]:
        """Run some prompts, from the first site that is changed; by default that of all."""
        batch = rows_of(self.batch, rows)
        start = self.starts.get(first or min(self.dictionaries))
        skip = (start[0], start[1][rows]) if start else None
        return run(self.model, batch, read, write, last_logits=True, skip=skip, grad=grad)

    def _edits(
        self, rows: slice, masks: Mapping[Place, Tensor], errors: Errors
    ) -> dict[Site, Edit]:
        """Keep some features at every place, and set the others to their reference."""
        found: dict[Site, Edit] = {}
        keep = errors == "kept"
        for site, dictionary in self.dictionaries.items():
            held: dict[str, Tensor] = {}

            def look(x: Tensor, site: Site = site, held: dict[str, Tensor] = held) -> Tensor:
                each = self.dictionaries[site]
                for position, at in self.where.items():
                    place = (site, position)
                    seen = x[torch.arange(len(x)), at[rows]]
                    old = each.encode(seen)
                    new = torch.where(masks[place], old, self.reference[place][rows])
                    if keep:
                        held[position] = each.difference(old, new, seen)
                    else:
                        held[position] = each.decode(new, seen) + self.error[place][rows]
                return x

            def put(y: Tensor, held: dict[str, Tensor] = held) -> Tensor:
                y = y.clone()
                for position, value in held.items():
                    here = torch.arange(len(y)), self.where[position][rows]
                    y[here] = (y[here] + value if keep else value).to(y)
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
        asked, ends = (
            {place: _units(each, place) for place in self.places} for each in (sources, targets)
        )
        changed = self.changed(sources)
        pairs = torch.from_numpy(changed).nonzero()  # (runs, 2), a source and a prompt
        column = dict(zip(ends, np.cumsum([0, *map(len, ends.values())]).tolist(), strict=False))
        on_features = np.zeros((len(changed), sum(map(len, ends.values())), len(self)), np.float32)
        on_metric = np.zeros(changed.shape)
        plain = torch.from_numpy(self.metric())
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
                write[site] = partial(self._watch, site, rows, later, seen, write.get(site))
            logits = self.run(rows, write, [LOGITS], earliest)[LOGITS][:, -1]
            on_metric[which, rows] = plain[rows] - torch.from_numpy(self.metric(logits, rows))
            for place, values in seen.items():
                there = self.acts[place][rows][:, later[place]] - values
                columns = column[place] + np.arange(len(later[place]))
                on_features[which[:, None], columns, rows[:, None]] = there.cpu().numpy()
        return on_features, on_metric

    def _single(
        self, used: Mapping[Place, Tensor], rows: Tensor, units: Tensor
    ) -> dict[Site, Edit]:
        """Set one feature of each row to its reference; `used` says which rows are of a place."""
        parts = []
        for place, chosen in used.items():
            lines = chosen.nonzero()[:, 0]
            prompts, mine = rows[lines], units[lines]
            change = (self.reference[place] - self.acts[place])[prompts, mine]
            directions = decoder_rows(self.model, self.dictionaries[place[0]])[mine]
            at = self.where[place[1]][prompts]
            parts.append((place[0], lines, at, change[:, None] * directions))
        return self._adding(parts)

    def adding(
        self,
        added: Mapping[Place, Tensor],
        units: Mapping[Place, Tensor],
        rows: slice,
        *,
        watch: bool = False,
    ) -> tuple[Tensor, dict[Place, Tensor]]:
        """Add (B, p) to features at places, by what their directions add to the model.

        Returns the logits at the last token, (B, V), and where it is asked for what the same
        features of later sites are before anything is added there, (B, p) at each place.
        """
        parts = []
        for (site, position), value in added.items():
            directions = decoder_rows(self.model, self.dictionaries[site])
            moved = value @ directions[units[site, position]].to(value)
            at = self.where[position][rows]
            parts.append((site, torch.arange(len(at)), at, moved))
        write, seen = self._adding(parts), {}
        later = {at: units[at] for at in units if watch and at[0] != min(self.dictionaries)}
        for site in dict.fromkeys(site for site, _ in later):
            write[site] = partial(self._watch, site, rows, later, seen, write.get(site))
        return self.run(rows, write, [LOGITS])[LOGITS][:, -1].float(), seen

    def _adding(self, parts: Iterable[tuple[Site, Tensor, Tensor, Tensor]]) -> dict[Site, Edit]:
        """Add vectors (m, D) at rows and tokens to what dictionaries of sites write."""
        found: dict[Site, list[tuple[Tensor, ...]]] = {}
        for site, *part in parts:
            found.setdefault(self.dictionaries[site].out, []).append(tuple(part))
        return {site: partial(_added, each) for site, each in found.items()}

    def _watch(
        self,
        site: Site,
        rows: slice | Tensor,
        targets: Mapping[Place, Tensor],
        seen: dict[Place, Tensor],
        edit: Edit | None,
        x: Tensor,
    ) -> Tensor:
        """Encode target features of a site before anything is changed there."""
        for place, units in targets.items():
            if place[0] == site:
                values = x[torch.arange(len(x)), self.where[place[1]][rows]]
                seen[place] = self.dictionaries[site].encode(values)[:, units]
        return edit(x) if edit else x


def _units(chosen: Units, place: Place) -> Tensor:
    return torch.as_tensor(np.asarray(chosen.get(place, []), dtype=np.int64))


def _added(parts: Iterable[tuple[Tensor, ...]], y: Tensor) -> Tensor:
    y = y.clone()
    for lines, at, vectors in parts:
        y[lines, at] += vectors.to(y)
    return y


def _read(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    batch: Batch,
    where: Mapping[str, Tensor],
    also: Sequence[Site] = (),
) -> tuple[dict[Place, Tensor], dict[Place, Tensor], dict[Site, Tensor]]:
    """Features at places, what dictionaries leave unexplained there, and all of other sites."""
    sites = dict.fromkeys([*dictionaries, *(each.out for each in dictionaries.values()), *also])
    acts, error, whole = defaultdict(list), defaultdict(list), defaultdict(list)
    for rows in row_slices(len(batch.ids), SIZE):
        found = run(model, rows_of(batch, rows), [*sites], last_logits=True)
        for site in also:
            whole[site].append(found[site])
        for site, dictionary in dictionaries.items():
            for position, at in where.items():
                here = torch.arange(len(at[rows])), at[rows]
                x, y = found[site][here], found[dictionary.out][here]
                coded = dictionary.encode(x)
                acts[site, position].append(coded)
                error[site, position].append(y.float() - dictionary.decode(coded, x))
    first, second, third = (
        {key: torch.cat(parts) for key, parts in table.items()} for table in (acts, error, whole)
    )
    return first, second, third


def named_positions(task: Task, *others: Task) -> list[str]:
    """Return the positions that all tasks name, each a token of its own, and `last`."""
    found: list[str] = ["last"]
    for name in task.positions:
        if all(
            name in each.positions and not any(_coincide(each, name, other) for other in found)
            for each in (task, *others)
        ):
            found.append(name)
    return [*found[1:], "last"]


def expect_positions(task: Task, positions: str | Sequence[str]) -> list[str]:
    """Return positions by name; refuse those that are unknown, or the same token somewhere."""
    names = list(dict.fromkeys([positions] if isinstance(positions, str) else positions))
    for name in names:
        known = (*task.positions, "last")
        expect_known(name, known, f"Task {task.name!r} names no position {described(name)}")
    if not names:
        raise InputError("positions is empty: name at least one.")
    for one, other in combinations(names, 2):
        if _coincide(task, one, other):
            raise InputError(
                f"On some prompts of {task.name!r}, {one!r} and {other!r} are the same token. "
                "Leave one of them out."
            )
    return names


def _coincide(task: Task, one: str, other: str) -> bool:
    ends = {"last": (-1,) * len(task), **task.positions}
    return any(a == b for a, b in zip(ends[one], ends[other], strict=True))


def _where(task: Task, batch: Batch, positions: str | Sequence[str] | None) -> dict[str, Tensor]:
    """Return the token of every prompt at each position."""
    names = named_positions(task) if positions is None else expect_positions(task, positions)
    n, length = batch.ids.shape
    found: dict[str, Tensor] = {}
    for name in names:
        ends = torch.full((n,), -1) if name == "last" else torch.tensor(task.positions[name][:n])
        found[name] = (length + ends).to(batch.ids.device)
    return found
