"""Run prompts with changes, one set of them or many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.activations.store.fingerprints import (
    dictionary_fingerprint,
    edits_of,
    fingerprint_of_tensors,
)
from circuit_toolkit.arguments import as_prompts, described, is_a
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change, as_changes
from circuit_toolkit.interventions.hooks import (
    Placed,
    acts_on,
    chained,
    edits,
    frozen_attention,
    places,
)
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.models.model import Prompt
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.prompt_pairs import row_slices, rows_of


@dataclass(frozen=True, eq=False)
class Outcome:
    """What prompts gave under an intervention.

    Parameters
    ----------
    logits : Tensor, shape (prompts, V)
        At the last token.
    metric : Tensor, shape (prompts,), optional
        The metric of the task.
    activations : dict of Site to list of Tensor
        What was read, a tensor a batch, as `run` gives it.
    """

    logits: Tensor
    metric: Tensor | None = None
    activations: dict[Site, list[Tensor]] = field(default_factory=dict)


def intervene(
    model: Model,
    prompts: Task | Sequence[Prompt],
    changes: Change | Iterable[Change],
    *,
    dictionaries: Any = None,
    freeze_attention: bool = False,
    read: Sequence[Site] = (),
    batch_size: int = 128,
    progress: bool = True,
) -> Outcome:
    """Run prompts with changes, all of them in each run.

    Features are changed by the difference that it makes to their dictionary's reconstruction:
    what the dictionary does not explain stays, and setting a feature to what it is changes
    nothing. Later changes see what earlier ones made.

    Parameters
    ----------
    model : Model
        The model.
    prompts : Task or sequence of str
        What to run; of a task the clean prompts.
    changes : Change or sequence of Change
        None: the plain run.
    dictionaries : dict of Site to Dictionary, optional
        Those whose features are meant. Transcoders change what their MLP writes.
    freeze_attention : bool
        Hold attention patterns at those of the plain run.
    read : sequence of Site
        Sites to return.
    batch_size : int
        Prompts in one run.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        If there are no prompts, a change fits neither model nor dictionaries, the prompts do not
        name a position, or there are no corrupted prompts of equal length to resample from.
    """
    plan = _Plan(model, dictionaries, prompts, changes)
    read, outcomes = [Site.parse(site) for site in read], []
    for here in row_slices(len(plan.texts), batch_size, progress, "intervene"):
        batch, named = plan.batch(here)
        frozen = frozen_attention(model, batch) if freeze_attention else {}
        corrupted = plan.corrupted(here, batch)
        placed = [
            Placed(each, places(model, batch, each.positions, named), corrupted=corrupted.get(n))
            for n, each in enumerate(plan.changes)
        ]
        write = joined_edits(edits(plan.dictionaries, placed), frozen)
        outcomes.append(run(model, batch, [*read, LOGITS], write, last_logits=True))
    logits = torch.cat([values[LOGITS][:, -1] for values in outcomes])
    seen = {site: [values[site] for values in outcomes] for site in read}
    return Outcome(logits, plan.metric(logits), seen)


def intervene_each(
    model: Model,
    prompts: Task | Sequence[Prompt],
    interventions: Iterable[Change | Iterable[Change]],
    *,
    dictionaries: Any = None,
    batch_size: int = 128,
    progress: bool = True,
) -> list[Outcome]:
    """Run prompts under many interventions, several in one run.

    Prompts on which an intervention changes nothing, as where its features are not active, are not
    run again for it, and blocks before the first change are computed once.

    Parameters
    ----------
    model, prompts, dictionaries, progress
        As for `intervene`.
    interventions : sequence of sequences of Change
        Each as for `intervene`; none resamples.
    batch_size : int
        Prompts times interventions in one run; more outgrow the caches of a processor.

    Returns
    -------
    list of Outcome
        One for each intervention, equal to what `intervene` gives to rounding.

    Raises
    ------
    InputError
        As `intervene`, or if one resamples.
    """
    if is_a(interventions, "Change") or not isinstance(interventions, Iterable):
        raise InputError(
            "interventions must be a list, each a list of changes, got "
            f"{described(interventions)}. For one intervention call intervene."
        )
    each = [[one] if isinstance(one, Change) else list(one) for one in interventions]
    plan = _Plan(model, dictionaries, prompts, [change for changes in each for change in changes])
    if any(change.how == "resample" for change in plan.changes):
        raise InputError("Many interventions at once do not resample: call intervene for each.")
    if not each:
        return []
    slices = row_slices(len(plan.texts), batch_size, progress, "intervene")
    logits = torch.cat([_each(plan, each, here, batch_size) for here in slices], 1)
    return [Outcome(one, plan.metric(one)) for one in logits]


def _each(plan: _Plan, interventions: Sequence[Sequence[Change]], here: slice, size: int) -> Tensor:
    """Logits (interventions, B, V) of a batch, in runs of so many prompts under some of them."""
    batch, named = plan.batch(here)
    where = {
        positions: places(plan.model, batch, positions, named)
        for positions in {change.positions for change in plan.changes}
    }
    sites = sorted({change.site for change in plan.changes if change.features is not None})
    same = _same_blocks(plan)
    before = [Site("resid_post", same - 1)] if same else []
    plain = run(plan.model, batch, [*{*sites, *before}, LOGITS], last_logits=True)
    logits = plain[LOGITS][:, -1].repeat(len(interventions), 1, 1)
    features = {site: plan.dictionaries[site].encode(plain[site]) for site in sites}

    def matters(change: Change) -> Tensor:
        if change.features is None:
            return torch.ones(len(batch.ids), dtype=torch.bool)
        return acts_on(Placed(change, where[change.positions]), features[change.site]).cpu()

    none = torch.zeros(len(batch.ids), dtype=torch.bool)
    wanted = torch.stack(
        [torch.stack([none, *map(matters, changes)]).any(0) for changes in interventions]
    )
    # Most features are inactive on most prompts: there the outcome is that of the plain run.
    for pairs in wanted.nonzero().split(size) if wanted.any() else ():
        which, prompts = pairs.T
        placed = []
        numbers, counts = which.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0)
        for number, end, count in torch.stack([numbers, ends, counts], 1).tolist():
            rows = slice(end - count, end)
            placed += [
                Placed(change, where[change.positions][prompts[rows]], rows)
                for change in interventions[number]
            ]
        tiled = rows_of(batch, prompts)
        write = edits(plan.dictionaries, placed)
        skip = (same, plain[before[0]][prompts]) if same else None
        last = run(plan.model, tiled, [LOGITS], write, last_logits=True, skip=skip)
        logits[which, prompts] = last[LOGITS][:, -1]
    return logits


def _same_blocks(plan: _Plan) -> int:
    """Count the blocks in front of all changes, in which every run does the same."""
    if plan.model.edits or not plan.changes:
        return 0
    first = min(change.site for change in plan.changes)
    if first.kind in ("resid_post", "logits"):
        return first.layer + 1 if first.kind == "resid_post" else plan.model.n_layers
    return first.layer


@contextmanager
def intervened(
    model: Model, changes: Change | Iterable[Change], *, dictionaries: Any = None
) -> Iterator[Model]:
    """Return a model that computes with changes, to capture, to score, or to run.

    The model that was passed stays as it is, so it and the changed one can be compared inside.

    Parameters
    ----------
    model, dictionaries
        As for `intervene`.
    changes : Change or sequence of Change
        Done in every run, after those that the model brings already, at positions that need no
        task; none resamples.

    Yields
    ------
    Model

    Raises
    ------
    InputError
        If a change fits neither model nor dictionaries, or resamples.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> with intervened(model, ct.zero("attn_out 0")) as changed:
    ...     batch = changed.tokenize(["the boys near the cabinet"])
    ...     bool(run(changed, batch, [Site("attn_out", 0)])[Site("attn_out", 0)][:, 1:].any())
    False
    """
    known = as_dictionaries(model, dictionaries, optional=True)
    wanted = as_changes(model, known, changes)
    if any(item.how == "resample" for item in wanted):
        raise InputError("Only intervene knows the corrupted prompts to resample from.")
    yield replace(model, edits=_Edits(model, tuple(wanted), known))


@dataclass(frozen=True, eq=False)
class _Edits:
    """What an intervened model writes in a run."""

    model: Model
    changes: tuple[Change, ...]
    dictionaries: Mapping[Site, Dictionary]

    def __call__(self, batch: Batch) -> Mapping[Site, Edit]:
        placed = [
            Placed(each, places(self.model, batch, each.positions, {})) for each in self.changes
        ]
        outer = self.model.edits(batch) if self.model.edits else {}
        return joined_edits(edits(self.dictionaries, placed), outer)

    def described(self) -> dict[str, Any]:
        """Return all that the edits depend on but the model, for the key of a store."""
        found = edits_of(self.model)
        for each in self.changes:
            tensors = {"value": each.value, "features": each.features, "heads": each.heads}
            there = [(name, torch.as_tensor(x)) for name, x in tensors.items() if x is not None]
            of_features = each.features is not None
            found[str(len(found))] = {
                "site": each.site.short,
                "how": each.how,
                "positions": each.positions,
                "values": fingerprint_of_tensors(there),
                "dictionary": dictionary_fingerprint(self.dictionaries[each.site])
                if of_features
                else None,
            }
        return found


class _Plan:
    """Prompts and changes that fit each other."""

    def __init__(self, model: Model, dictionaries: Any, prompts: Any, changes: Any):
        self.model = model
        self.dictionaries = as_dictionaries(model, dictionaries, optional=True)
        given = as_prompts(prompts, model)
        self.task: Task | None = None if isinstance(given, list) else given
        self.texts: list[Prompt] = given if self.task is None else list(self.task.clean)
        self.changes = as_changes(model, self.dictionaries, changes)
        self.bos = shared_bos(self.dictionaries)

    def batch(self, here: slice) -> tuple[Batch, dict[str, Sequence[int]]]:
        """Return a batch, and the positions that the task names in it."""
        named = {} if self.task is None else self.task.positions
        return self.model.tokenize(self.texts[here], bos=self.bos), {
            name: values[here] for name, values in named.items()
        }

    def corrupted(self, here: slice, batch: Batch) -> dict[int, Tensor]:
        """Return what the corrupted prompts have, for each change that resamples."""
        wanted = {n: each for n, each in enumerate(self.changes) if each.how == "resample"}
        if not wanted:
            return {}
        if self.task is None or not self.task.corrupted:
            raise InputError("To resample, pass a task whose prompts have corrupted prompts.")
        corrupted = self.model.tokenize(self.task.corrupted[here], bos=self.bos)
        if corrupted.ids.shape != batch.ids.shape or not torch.equal(corrupted.mask, batch.mask):
            raise InputError(
                f"Some corrupted prompts of {self.task.name!r} differ in length from their "
                "prompts, so their tokens do not correspond. Choose ones of equal length."
            )
        return corrupted_values(self.model, self.dictionaries, wanted, corrupted)

    def metric(self, logits: Tensor) -> Tensor | None:
        """Score the clean prompts."""
        if self.task is None or self.task.metric is None:
            return None
        return self.task.score(logits, range(len(self.texts)))


def corrupted_values(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    changes: Mapping[int, Change],
    corrupted: Batch,
) -> dict[int, Tensor]:
    """Return what corrupted prompts have where changes resample, in the units of each."""
    values = run(model, corrupted, list({each.site for each in changes.values()}))
    return {
        number: dictionaries[each.site].encode(values[each.site])
        if each.features is not None
        else values[each.site]
        for number, each in changes.items()
    }


def joined_edits(*each: Mapping[Site, Edit]) -> dict[Site, Edit]:
    """Put edits of the same site after one another."""
    found: dict[Site, list[Edit]] = {}
    for one in reversed(each):  # what holds already first, then what changes it
        for site, edit in one.items():
            found.setdefault(site, []).append(edit)
    return {site: chained(steps) for site, steps in found.items()}
