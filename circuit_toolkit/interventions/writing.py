"""What changes or a circuit write, for the tokens of a call: for hooks on models of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import expect, is_a
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change, as_changes
from circuit_toolkit.interventions.circuit_changes import Ablate, ablating
from circuit_toolkit.interventions.hooks import Placed, edits, places
from circuit_toolkit.interventions.runs import corrupted_values, joined_edits
from circuit_toolkit.models import Batch, Model
from circuit_toolkit.models.components import component_edits, corrupting, run_components
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.models.ports import Edit, Port
from circuit_toolkit.models.tracing import port_edits
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

What = Change | Iterable[Change] | Circuit


@dataclass(frozen=True, eq=False)
class Writing:
    """What is written at ports in a call, which may be of any prompts or of those of a task."""

    model: Model
    changes: tuple[Change, ...]
    edges: Tensor | None  # (writers, readers): those that carry the corrupted prompts
    dictionaries: Mapping[Site, Dictionary]
    prompts: _PromptsByTokens | None

    @property
    def ungrouped_at(self) -> range:
        """Blocks in which every head is given keys and values of its own."""
        return range(self.model.n_layers if self.edges is not None else 0)

    def ports(self) -> list[Port]:
        """Return the ports at which changes write, whatever the prompts."""
        sites = {each.site for each in self.changes}
        read = [self.dictionaries[each.site] for each in self.changes if each.features is not None]
        sites |= {each.out for each in read if each.kind != "sae"}
        return [*port_edits(self.model, dict.fromkeys(sites, lambda x: x))]

    def __call__(self, batch: Batch) -> Mapping[Port, list[Edit]]:
        """Return the edits for the tokens of one call."""
        with torch.no_grad():
            rows, corrupted = self.prompts.of(batch) if self.prompts else ([], None)
            if self.edges is not None:
                assert corrupted is not None
                graph, theirs = graph_of(self.model), run_components(self.model, corrupted).outputs
                return component_edits(self.model, corrupting(graph, self.edges, theirs))[1]
            wanted = {n: each for n, each in enumerate(self.changes) if each.how == "resample"}
            values = {}
            if wanted:
                assert corrupted is not None
                values = corrupted_values(self.model, self.dictionaries, wanted, corrupted)
        named = self.prompts.task.positions if self.prompts else {}
        named = {name: [each[row] for row in rows] for name, each in named.items()}
        placed = [
            Placed(each, places(self.model, batch, each.positions, named), corrupted=values.get(n))
            for n, each in enumerate(self.changes)
        ]
        outer = self.model.edits(batch) if self.model.edits else {}
        return port_edits(self.model, joined_edits(edits(self.dictionaries, placed), outer))


def writing(
    model: Model,
    what: What,
    dictionaries: Any,
    task: Task | None,
    acts: Activations | None,
    ablate: Ablate,
) -> Writing:
    """Check what is to be written, and by what it is told."""
    expect(model, "model", "Model")
    known = as_dictionaries(model, dictionaries, optional=True)
    found: Any = what
    if is_a(what, "Circuit"):
        found = ablating(what, model, acts, ablate)  # pyright: ignore[reportArgumentType]
    elif acts is not None:
        raise InputError("acts are for a circuit: changes have values of their own.")
    edges, changes = None, []
    if isinstance(found, Tensor):
        edges = found
    else:
        changes = as_changes(model, known, found)
    prompts = None
    if task is not None:
        prompts = _PromptsByTokens(model, task)
    elif edges is not None or any(each.how == "resample" for each in changes):
        raise InputError(
            "What is ablated here carries what it has on corrupted prompts: pass task=, whose "
            "prompts the calls are of."
        )
    if edges is not None and model.edits:
        raise InputError("Edges are ablated in the model as it was loaded, without interventions.")
    return Writing(model, tuple(changes), edges, known, prompts)


class _PromptsByTokens:
    """Prompts of a task, found by their tokens, with or without one that begins the sequence."""

    def __init__(self, model: Model, task: Task):
        expect(task, "task", "Task")
        if not task.corrupted or len(task.corrupted) != len(task.clean):
            raise InputError(f"Task {task.name!r} has no corrupted prompt for each prompt.")
        self.task = task
        self.found: dict[tuple[int, ...], tuple[int, list[int]]] = {}
        for bos in (None, False, True) if model.bos_id is not None else (None,):
            pairs = zip(
                _tokens(model, task.clean, bos), _tokens(model, task.corrupted, bos), strict=True
            )
            for row, (clean, corrupted) in enumerate(pairs):
                if len(clean) != len(corrupted):
                    raise InputError(
                        f"Prompt {row} of {task.name!r} and its corrupted prompt differ in length, "
                        "so their tokens do not correspond. Choose ones of equal length."
                    )
                before = self.found.setdefault(tuple(clean), (row, corrupted))
                if before[1] != corrupted:
                    raise InputError(
                        f"Prompts {before[0]} and {row} of {task.name!r} are the same, their "
                        "corrupted prompts are not: which is meant cannot be told by the tokens."
                    )

    def of(self, batch: Batch) -> tuple[list[int], Batch]:
        """Return which prompts a call is of, and their corrupted prompts."""
        rows, ids = [], batch.ids.clone()
        for n, (row, mask) in enumerate(zip(batch.ids, batch.mask.bool(), strict=True)):
            tokens = tuple(row[mask].tolist())
            if tokens not in self.found:
                raise InputError(
                    f"Prompt {n} of this call, of {len(tokens)} tokens, is none of the clean "
                    f"prompts of {self.task.name!r}, so it has no corrupted prompt."
                )
            number, corrupted = self.found[tokens]
            rows.append(number)
            ids[n, mask] = torch.tensor(corrupted).to(ids)
        return rows, Batch(ids, batch.mask)


def _tokens(model: Model, prompts: Any, bos: bool | None) -> list[list[int]]:
    batch = model.tokenize(prompts, bos=bos)
    return [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask.bool(), strict=True)]
