"""Attribution patching: effects of patching, approximated by gradients, for all edges at once.

The effect of putting the corrupted output of component i into the input of j is, to first order,
(f_i(corrupted) - f_i(clean)) . d metric / d x_j. Sources: Nanda, "Attribution patching", 2023
(nodes); Syed, Rager and Conmy, 2023, arXiv 2310.10348 (EAP, edges); Hanna, Pezzelle and Belinkov,
2024, arXiv 2403.17806 (EAP-IG: gradients averaged on the way from corrupted to clean).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import one_of, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import Average
from circuit_toolkit.models.components import Norm, run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import circuit_of_effects
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, TokenPairs, rows_of, tokenized_pairs
from circuit_toolkit.tasks.task import reads_last_token

PathPoints = Literal["right", "left", "midpoint"]
_COPIES = 8  # of every component's input, that a backward pass needs
_FIRST = {"right": 1.0, "left": 0.0, "midpoint": 0.5}  # of the points, in steps from clean


def eap(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    average: Average = "absolute mean",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score edges by edge attribution patching (Syed et al., 2023).

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts with corrupted prompts, and the metric; a `Task` is one.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    average : {"absolute mean", "mean of absolutes"}
        Whether effects on different prompts may cancel (the published form) or not.
    seed : int
        Without effect: nothing here is random.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; the weight of an edge is its mean effect, in units of the metric.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, or an option is unknown.
    """
    return _attributed(model, task, n_prompts, batch_size, average, progress, "EAP", {})


def eap_ig(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    steps: int = 5,
    rule: PathPoints = "right",
    average: Average = "absolute mean",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score edges by attribution patching with integrated gradients (Hanna et al., 2024).

    Parameters
    ----------
    model, task, n_prompts, batch_size, average, seed, progress
        As for `eap`.
    steps : int
        Points between the clean and the corrupted embedding at which gradients are taken.
    rule : {"right", "left", "midpoint"}
        Where these are in equal steps from clean to corrupted: at the end of each (the authors'
        code: the corrupted prompt is one), at its beginning (the clean one is), or in its middle.

    Returns
    -------
    Circuit
        Over components; the weight of an edge is its mean effect, in units of the metric.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, fewer than one step, or no such rule.
    """
    points: dict[str, Any] = {"steps": whole(steps, "steps", 1), "rule": rule}
    return _attributed(model, task, n_prompts, batch_size, average, progress, "EAP-IG", points)


def attribution_patching(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    average: Average = "absolute mean",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score components by attribution patching (Nanda, 2023): no edges, only nodes.

    Parameters
    ----------
    model, task, n_prompts, batch_size, average, seed, progress
        As for `eap`.

    Returns
    -------
    Circuit
        Scores of its nodes: (f(corrupted) - f(clean)) . d metric / d f, as averaged.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, or an option is unknown.
    """
    method = "attribution patching"
    return _attributed(model, task, n_prompts, batch_size, average, progress, method, {})


def _attributed(
    model: Model,
    task: PromptPairs,
    n_prompts: int | None,
    batch_size: int | None,
    average: Average,
    progress: bool,
    method: str,
    points: dict[str, Any],
) -> Circuit:
    sizes: dict[str, Any] = {"n_prompts": n_prompts, "batch_size": batch_size, "progress": progress}

    def effects(graph: Graph) -> Tensor:
        found = edge_attributions(model, task, **sizes, **points).cpu()
        # An output is read only through its edges, so its gradient is the sum of theirs.
        return found.sum(2) if method == "attribution patching" else found

    return circuit_of_effects(method, model, task, effects, average, points)


def edge_attributions(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    steps: int = 0,
    rule: PathPoints = "right",
    norm: Norm | None = None,
    progress: bool = False,
) -> Tensor:
    """Return the attributed effect of every edge on every prompt, shape (n, W, R)."""
    one_of(rule, "rule", *_FIRST)
    points = [(step + _FIRST[rule]) / steps for step in range(steps)]
    pairs = tokenized_pairs(model, task, n_prompts)
    graph, found = graph_of(model), []
    size = batch_size or max(pairs.fitting(model) // _COPIES, 1)
    for rows in pairs.batches(size, progress, "attribution"):
        difference, gradient = _gradients(model, graph, task, pairs, rows, points, norm)
        found.append(torch.bmm(difference.flatten(2), gradient.flatten(2).transpose(1, 2)))
    return torch.cat(found).mul_(graph.allowed.to(found[0].device))


def _gradients(
    model: Model,
    graph: Graph,
    task: PromptPairs,
    pairs: TokenPairs,
    rows: slice,
    points: Sequence[float],
    norm: Norm | None,
) -> tuple[Tensor, Tensor]:
    """Differences of outputs (B, W, T, D), gradients of the metric to inputs (B, R, T, D)."""
    clean, numbers = rows_of(pairs.clean, rows), range(rows.start, rows.stop)
    last = reads_last_token(task)

    def run(shift: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        leaves: list[Tensor] = []

        def offset(slot: int, outputs: Tensor) -> Tensor:
            readers = graph.slots[slot]
            n = readers.stop - readers.start
            if shift is None:
                leaf = outputs.new_zeros(len(outputs), n, *outputs.shape[2:])
            else:  # what every reader gets added is what the embedding would have changed
                leaf = shift.expand(-1, n, -1, -1).clone()
            leaves.append(leaf.requires_grad_())
            return leaves[-1]

        got = run_components(model, clean, offset, norm=norm, last_logits=last, grad=True)
        score = task.metric_of(got.logits, numbers).sum()
        return got.outputs.detach(), list(torch.autograd.grad(score, leaves))

    other = rows_of(pairs.corrupted, rows)
    corrupted = run_components(model, other, last_logits=last).outputs
    if not points:
        outputs, gradients = run(None)
        return (corrupted - outputs).float(), torch.cat(gradients, 1).float()
    difference = corrupted - run_components(model, clean, last_logits=last).outputs
    total = torch.zeros(())
    for point in points:
        total = total + torch.cat(run(point * difference[:, :1])[1], 1).float()
    return difference.float(), total / len(points)
