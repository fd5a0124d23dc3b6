"""CircuitLasso over heads and MLPs, from activations as they come: no swap, no backward pass.

Yin et al., 2026, arXiv 2606.16939 (the component setting): the output of every component is
regressed on those of all components before it. What correlates with a parent and what is one look
alike here; `randomised_lasso` tells them apart.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit_lasso.randomised_edges import propagate_relevance, threshold
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Model
from circuit_toolkit.regression.paths.lasso import lasso_at
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, TokenPairs, rows_of
from circuit_toolkit.tasks.task import trained_on

Form = Literal["ours", "paper"]
Score = Literal["variance", "frobenius"]
Positions = Literal["all", "last"]
Scaling = Literal["none", "component", "standard"]
Penalty = Literal["lasso", "group"]

# What the paper does, and what measured best on known circuits.
FORMS: dict[str, dict[str, Any]] = {
    "ours": {"score": "variance", "relevance": True, "scaling": "none", "directions": 16},
    "paper": {"score": "frobenius", "relevance": False, "scaling": "standard", "directions": 8},
}


def component_lasso(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    form: Form = "ours",
    score: Score | None = None,
    relevance: bool | None = None,
    scaling: Scaling | None = None,
    positions: Positions = "all",
    penalty: Penalty = "lasso",
    stability: int = 0,
    strength: float = 0.05,
    directions: int | None = None,
    false_edges: float = 1.0,
    shuffles: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> Circuit:
    """Find a circuit by regressing every component on all before it, on clean prompts.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Its clean prompts are read, and nothing else.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    form : {"ours", "paper"}
        What `score`, `relevance`, `scaling` and `directions` are where they are not given:
        variance, carried back, none, 16; or frobenius, as it is, standard, 8.
    score : {"variance", "frobenius"}, optional
        Strength of an edge: root of the share of the reader's variance that the writer explains
        by its block of coefficients; or the Frobenius norm of that block, in scaled units.
    relevance : bool, optional
        Whether the score of an edge is the relevance that it carries back from the target, which
        is shared out by strength squared; or the strength itself.
    scaling : {"none", "component", "standard"}, optional
        Units in which coefficients are penalised: of the stream; with every component of variance
        1 in all; or with every direction of a component of variance 1.
    positions : {"all", "last"}
        Whether every token makes a row, or the last of a prompt alone. Heads are given the mean
        over the prompt beside the token, since they read other tokens (ours).
    penalty : {"lasso", "group"}
        Whether coefficients are zero one by one, or as the whole block of an edge.
    stability : int
        Number of random halves of the prompts on which all is fitted again; strengths are then
        multiplied by the share of them in which the edge is there. The operating point is that
        without. 0: off.
    strength : float
        Penalty, as a share of the smallest at which a target has no sources, in (0, 1].
    directions : int, optional
        An output stands for itself by its values along so many principal directions.
    false_edges : float
        How many edges the operating point lets in where rows of the targets are shuffled.
    shuffles : int
        How often they are shuffled to find that out.
    seed : int
        Decides the order of shuffled rows, and the halves.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Over components; scores are dependencies, not effects, weights are strengths.
        `settings["threshold"]` is the operating point.

    Raises
    ------
    InputError
        If a setting is out of range.

    Warns
    -----
    ConvergenceWarning
        If a regression is not solved.
    """
    options = {
        "form": form,
        **_form(form, score=score, relevance=relevance, scaling=scaling, directions=directions),
        "positions": positions,
        "penalty": penalty,
        "stability": stability,
        "strength": strength,
        "false_edges": false_edges,
        "shuffles": shuffles,
        "seed": seed,
    }
    _check(options)
    graph, start = graph_of(model), time.perf_counter()
    outputs = _outputs(
        model, task, graph, n_prompts, batch_size, positions, options["directions"], progress
    ).scaled(options["scaling"])
    rng, X = np.random.default_rng(seed), outputs.values
    order = [np.arange(len(X)), *(rng.permutation(len(X)) for _ in range(shuffles))]
    fit = _Fit(graph, outputs, options["score"], penalty, strength)
    strengths = fit.strengths(X, [X[rows] for rows in order])
    if stability:
        strengths[0] *= np.mean(
            [fit.strengths(half, [half])[0] > 0 for half in outputs.halves(stability, rng)], 0
        )
    scores = torch.from_numpy(strengths)
    if options["relevance"]:
        scores = propagate_relevance(graph, scores)[0]
    settings = {
        "method": "CircuitLasso over components",
        "model": model.name,
        "task": task.name,
        "n_prompts": min(n_prompts or len(task.clean), len(task.clean)),
        "trained_on": trained_on(task, n_prompts),
        **options,
        "threshold": threshold(scores[1:, graph.allowed], false_edges),
        "seconds": time.perf_counter() - start,
    }
    return component_circuit(graph, scores[0], settings, weights=strengths[0])


def _form(form: str, **given: Any) -> dict[str, Any]:
    if form not in FORMS:
        raise InputError(f"form must be 'ours' or 'paper', got {form!r}.")
    return {key: FORMS[form][key] if value is None else value for key, value in given.items()}


def _check(options: dict[str, Any]) -> None:
    allowed = {"score": Score, "scaling": Scaling, "positions": Positions, "penalty": Penalty}
    for key, kinds in allowed.items():
        if options[key] not in get_args(kinds):
            known = " or ".join(map(repr, get_args(kinds)))
            raise InputError(f"{key} must be {known}, got {options[key]!r}.")
    if not 0 < options["strength"] <= 1 or options["false_edges"] <= 0:
        raise InputError(
            "strength must be in (0, 1] and false_edges above 0, got "
            f"{options['strength']} and {options['false_edges']}."
        )
    if options["directions"] < 1 or options["shuffles"] < 1 or options["stability"] < 0:
        raise InputError(
            "directions and shuffles must be at least 1 and stability 0 or more, got "
            f"{options['directions']}, {options['shuffles']}, {options['stability']}."
        )


@dataclass(frozen=True, eq=False)
class _Outputs:
    """What W components wrote and the target was, token by token."""

    values: np.ndarray  # (n, p) centred
    prompt: np.ndarray  # (n,)
    part: np.ndarray  # (p,) writer, W + writer for its mean over the prompt, 2 W for the target
    scale: np.ndarray  # (p,) what values were divided by

    def scaled(self, scaling: Scaling) -> _Outputs:
        """Divide columns by their scale."""
        variance = np.square(self.values).mean(0)
        if scaling == "component":
            variance = np.bincount(self.part, weights=variance)[self.part]
        scale = np.ones(len(variance)) if scaling == "none" else np.sqrt(variance)
        safe = np.where(scale > 0, scale, 1.0)
        return _Outputs(self.values / safe, self.prompt, self.part, scale)

    def halves(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Return the centred values of random halves of the prompts."""
        names = np.unique(self.prompt)
        chosen = [rng.permutation(names)[: (len(names) + 1) // 2] for _ in range(count)]
        parts = [self.values[np.isin(self.prompt, half)] for half in chosen]
        return [part - part.mean(0) for part in parts]


def _outputs(
    model: Model,
    task: PromptPairs,
    graph: Graph,
    n_prompts: int | None,
    batch_size: int | None,
    positions: Positions,
    directions: int,
    progress: bool,
) -> _Outputs:
    """Read outputs along their principal directions."""
    clean = model.tokenize(task.clean[:n_prompts])
    pairs = TokenPairs(clean, clean)
    own: list[list[Tensor]] = [[] for _ in graph.writers]
    mean: list[list[Tensor]] = [[] for _ in graph.writers]
    logits, prompts = [], []
    with torch.no_grad():
        for part in pairs.batches(batch_size or pairs.fitting(model), progress, "reading"):
            batch = rows_of(clean, part)
            got = run_components(model, batch)
            mask = batch.mask.bool().cpu()
            used = mask.clone()
            if positions == "last":
                used[:, :-1] = False
            logits.append(got.logits.cpu()[used])
            prompts.append(part.start + used.nonzero()[:, 0])
            outputs = got.outputs.cpu()
            seen = mask[:, None, :, None]
            means = (outputs * seen).sum(2, keepdim=True) / seen.sum(2, keepdim=True)
            means = means.expand_as(outputs)
            for writer in range(len(own)):
                own[writer].append(outputs[:, writer][used])
                mean[writer].append(means[:, writer][used])
    blocks, sides = [], []
    for values, others in zip(own, mean, strict=True):
        basis = _directions(torch.cat(values), directions)
        blocks.append(torch.cat(values).double() @ basis)
        sides.append(torch.cat(others).double() @ basis)
    target = torch.cat(logits)
    parts = [*blocks, *sides, target.double() @ _directions(target, directions)]
    whole = torch.cat(parts, 1).numpy()
    centred = whole - whole.mean(0)
    # What is left of a constant is rounding.
    centred[:, np.abs(centred).max(0) <= 1e-13 * np.abs(whole).max(0)] = 0
    number = np.repeat(np.arange(len(parts)), [part.shape[1] for part in parts])
    return _Outputs(centred, torch.cat(prompts).numpy(), number, np.ones(len(number)))


def _directions(x: Tensor, most: int) -> Tensor:
    """Principal directions (D, k) of rows (n, D) with more than a millionth of the variance."""
    x = x.double() - x.double().mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x)  # ascending
    k = max(1, min(most, int((values > 1e-6 * values[-1]).sum())))
    return vectors[:, -k:]


@dataclass(frozen=True, eq=False)
class _Fit:
    """The regressions of all components: one Gram matrix, of which each takes its part."""

    graph: Graph
    outputs: _Outputs
    score: Score
    penalty: Penalty
    strength: float

    def strengths(self, X: np.ndarray, Ys: list[np.ndarray]) -> np.ndarray:
        """Return how much of each reader every writer explains."""
        graph, part, W = self.graph, self.outputs.part, len(self.graph.writers)
        gram, products = X.T @ X / len(X), [X.T @ Y / len(X) for Y in Ys]
        found = np.zeros((len(Ys), *graph.allowed.shape))
        for slot, readers in enumerate(graph.slots):
            upstream, heads = graph.n_upstream(slot), slot % 2 == 0 and slot < 2 * graph.n_layers
            sees = (part < upstream) | (heads & (part >= W) & (part < W + upstream))
            sources = np.flatnonzero(sees)
            last = readers.stop == len(graph.readers)
            first = 2 * W if last else readers.start + 1  # reader j is writer j + 1
            count = readers.stop - readers.start
            targets = np.flatnonzero((part >= first) & (part < first + count))
            owner, of = part[sources] % W, part[targets] - first
            G = gram[np.ix_(sources, sources)]
            C = np.concatenate([each[np.ix_(sources, targets)] for each in products], 1)
            columns = np.concatenate([of + k * count for k in range(len(Ys))])
            B = lasso_at(G, C, self.strength * np.abs(C).max(0))
            sizes = self._sizes(B, G, owner, columns, targets)  # (upstream, K * count)
            found[:, :upstream, readers] = sizes.reshape(upstream, len(Ys), count).swapaxes(0, 1)
        return found

    def _sizes(
        self, B: np.ndarray, G: np.ndarray, owner: np.ndarray, columns: np.ndarray, targets: Any
    ) -> np.ndarray:
        """Strength of each block of coefficients, (writers, readers of all Ys)."""
        readers = (columns[:, None] == np.arange(columns.max() + 1)).astype(float)
        if self.score == "variance":
            copies = len(columns) // len(targets)
            B = B * np.tile(self.outputs.scale[targets], copies)
            raw = self.outputs.values[:, targets] * self.outputs.scale[targets]
            variance = np.tile(np.square(raw).mean(0), copies) @ readers
        sizes = []
        for writer in range(owner.max() + 1):
            mine = np.flatnonzero(owner == writer)
            block = B[mine]
            if self.score == "variance":
                explained = (block * (G[np.ix_(mine, mine)] @ block)).sum(0) @ readers
                sizes.append(explained / np.where(variance > 0, variance, 1.0))
            else:
                sizes.append(np.square(block).sum(0) @ readers)
        return np.sqrt(np.maximum(sizes, 0))
