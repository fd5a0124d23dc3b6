"""The attribution graph of a prompt, of the difference of two, or of the mean over many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, is_a, number, whole
from circuit_toolkit.attribution.graph.engine import PromptGraph, attribute
from circuit_toolkit.attribution.graph.pruning import graph_scores, pruned
from circuit_toolkit.attribution.graph.sums import GraphSum
from circuit_toolkit.attribution.graph.targets import Target, Targets, as_targets, metric_target
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET, TOKEN, new_edges
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.models.model import Prompt, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

OTHER = "other"  # the position of all tokens that a task does not name


def attribution_graph(
    model: Model,
    transcoders: Mapping[Site, Dictionary],
    prompt: Prompt | Task,
    *,
    targets: Targets = None,
    pairs: Prompt | bool | None = None,
    position: int = -1,
    max_features: int | None = 5000,
    node_share: float = 0.8,
    edge_share: float = 0.98,
    max_inputs: int | None = None,
    labels: Mapping[Site, Sequence[str]] | None = None,
    progress: bool = True,
) -> Circuit:
    """Draw which features at which tokens lead to what a model says next, on one prompt.

    Attention patterns and norm factors are held at what they are on the prompt, and MLPs are taken
    apart into features of transcoders and what these leave unexplained. Then everything between
    features is linear: an edge is what its source adds to its target, exactly, and what enters a
    node, biases included, adds up to its pre-activation.

    Parameters
    ----------
    model : Model
        The model.
    transcoders : dict of Site to Dictionary
        Transcoders of MLPs, skip transcoders among them; an MLP without one counts as an error.
        Autoencoders of the residual stream may stand among them: whatever reads behind one reads
        its features and what they leave unexplained.
    prompt : str, sequence of int, or Task
        A text or token ids. Of a task with one prompt that prompt; of more the mean over its
        prompts, at the positions that it names and `last`, all other tokens together as `other`.
        A task's metric is the target, a metric of probabilities by its gradient.
    targets : str, int, dict, or list of these, optional
        What is explained: tokens, as texts or numbers, or directions, such as
        `{"Mary": 1, "John": -1}` for a difference of logits. By default the likeliest tokens up to
        .95 of probability, at most 10, or the metric of a task. Logits are without their mean over
        the vocabulary, and before a cap on logits.
    pairs : str, sequence of int, or True, optional
        A corrupted prompt of the same number of tokens: the graph is the difference, clean minus
        corrupted. True with a task: of each of its prompts and the corrupted one.
    position : int
        The token after which the targets stand; by default the last.
    max_features : int or None
        At most so many active features are nodes, those of the largest influence first; None for
        all.
    node_share, edge_share : float
        Keep the fewest nodes, and then edges, with this share of all influence on the targets.
        Tokens and targets always stay. 1 keeps all.
    max_inputs : int, optional
        Keep at most so many edges into a node, the strongest; by default so many that there are 33
        million in all, so that memory does not grow with the square of a prompt's length.
        `settings["left_out"]` says which share of what enters a node was dropped at most.
    labels : dict of Site to sequence of str, optional
        Names of the features, such as `feature_labels(acts)` or `descriptions.labels()`.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Nodes: tokens, active features and errors at the number of their token, and the targets.
        `weight` of an edge: what the source adds to the pre-activation of the target, or to its
        logit. `score` of a node: its share of all influence on the targets. What MLPs write at the
        beginning-of-sequence token is the same for every prompt and counts as a bias.
        `evidence["attribution"]` has the replacement and completeness scores of the graph before
        pruning, as published, and `largest_error`: by which share of its value a sum misses it at
        most (of a hundredth of its absolute terms, where these cancel to less).

    Raises
    ------
    InputError
        If the prompt is one token or has unknown words, a target is no single token, a position is
        outside the prompt, or a dictionary is neither a transcoder nor of the stream.
    MismatchError
        If the transcoders are of another model, or two prompts differ in length.

    Notes
    -----
    Ameisen et al., "Circuit Tracing: Revealing Computational Graphs in Language Models", 2025:
    influence, pruning and both scores are as published there. Direct effects hold for the model as
    it is held; `steer` shows what the model itself does.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> prompt = ct.tasks.ioi(model, n=1).clean[0]
    >>> graph = ct.attribution_graph(model, transcoders, prompt, progress=False)
    >>> graph.evidence["attribution"]["largest_error"] < 1e-4
    True
    """
    known = as_dictionaries(model, transcoders)
    for each in known.values():
        _expect_fit(model, each)
    options: dict[str, Any] = {
        "position": whole(position, "position"),
        "max_features": None if max_features is None else whole(max_features, "max_features", 1),
        "max_inputs": None if max_inputs is None else whole(max_inputs, "max_inputs", 1),
        "progress": progress,
    }
    shares = number(node_share, "node_share", 0, 1), number(edge_share, "edge_share", 0, 1)
    if is_a(prompt, "Task"):
        plan = _of_task(model, known, prompt, targets, pairs, options["position"])  # pyright: ignore
    else:
        plan = _of_prompt(model, known, prompt, targets, pairs, options["position"])
    whole_graph = _summed(
        plan.parts, lambda each: attribute(model, known, each.ids, each.targets, **options)
    )
    if plan.label is not None:
        whole_graph.nodes["label"][whole_graph.nodes["kind"] == TARGET] = plan.label
    settings = {
        "method": "attribution_graph",
        "level": "features",
        "model": model.name,
        **plan.settings,
        "transcoders": {str(site): each.source or each.name for site, each in known.items()},
        "position": options["position"],
        "max_features": options["max_features"],
        "node_share": shares[0],
        "edge_share": shares[1],
    }
    return _circuit(whole_graph, *shares, settings, labels or {}, len(plan.parts))


@dataclass(frozen=True, eq=False)
class _Part:
    """One prompt, and what its graph counts in the sum."""

    ids: Tensor
    factor: float
    targets: Targets | Sequence[Target]
    places: list[str] | None = None


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which prompts make a graph, and what is said of them."""

    parts: list[_Part]
    settings: dict[str, Any]
    label: str | None = None


def _summed(parts: Sequence[_Part], draw: Callable[[_Part], PromptGraph]) -> PromptGraph:
    """Draw the graphs of a plan, and add them up; of one prompt its graph."""
    if len(parts) == 1:
        return draw(parts[0])
    total = GraphSum()
    for each in parts:
        total.add(draw(each), each.factor, each.places)
    return total.total()


def _expect_fit(model: Model, dictionary: Dictionary) -> None:
    """Refuse a dictionary that reads or writes what the model has not."""
    widths = dictionary.sae.W_enc.shape[0], dictionary.directions.shape[-1]
    n = model.n_layers
    if dictionary.site.layer >= n or set(widths) != {model.width}:
        raise MismatchError(
            f"{dictionary.name!r} is of another model: it reads {dictionary.site.short} with width "
            f"{widths[0]}, {model.name} has {n} layers of width {model.width}. Load dictionaries "
            "with load_dictionaries(model, ..., kind='transcoder')."
        )


def _ids(
    model: Model, known: Mapping[Site, Dictionary], prompt: Any, position: int, name: str
) -> Tensor:
    """Return the tokens of a prompt, (T,)."""
    is_text = isinstance(prompt, str)
    if not is_text and (isinstance(prompt, Mapping) or not hasattr(prompt, "__len__")):
        raise InputError(
            f"{name} must be a text, a list of token ids or a task, got {described(prompt)}."
        )
    batch = model.tokenize([prompt], bos=shared_bos(known) if is_text else None)
    n = batch.ids.shape[1]
    if int(token_mask(model, batch).sum()) < 2:
        raise InputError(
            f"{name} is one token, {model.words(batch)[0][-1]!r}: there is nothing before it that "
            "a graph could draw. Pass a text of at least two tokens."
        )
    if not -n <= position < n:
        raise InputError(
            f"position is {position}: the prompt has {n} tokens, 0 to {n - 1}, or -1 for the last."
        )
    return batch.ids[0]


def _logits(model: Model, ids: Tensor, position: int) -> Tensor:
    batch = Batch(ids[None], torch.ones_like(ids[None]))
    return run(model, batch, [LOGITS])[LOGITS][0, position].float()


def _of_prompt(
    model: Model,
    known: Mapping[Site, Dictionary],
    prompt: Any,
    targets: Any,
    pairs: Any,
    position: int,
    settings: Mapping[str, Any] | None = None,
) -> _Plan:
    """Plan the graph of one prompt, or the difference of two."""
    ids = _ids(model, known, prompt, position, "prompt")
    if pairs is True:
        raise InputError("pairs=True is for a task. Of one prompt pass the corrupted one.")
    if pairs is not None and targets is None:  # the same for both
        targets = as_targets(model, None, _logits(model, ids, position))
    parts = [_Part(ids, 1.0, targets)]
    settings = {
        "scope": "prompt",
        "prompt": _text(model, prompt, ids),
        "tokens": [str(model.tokenizer.decode([i])) for i in ids.tolist()],
        "token_ids": ids.tolist(),
        **(settings or {}),
    }
    if pairs is not None:
        other = _ids(model, known, pairs, position, "pairs")
        _expect_same_length(ids, other, settings["prompt"])
        parts.append(_Part(other, -1.0, targets))
        settings |= {"corrupted": _text(model, pairs, other), "corrupted_ids": other.tolist()}
    return _Plan(parts, settings)


def _text(model: Model, prompt: Any, ids: Tensor) -> str:
    return prompt if isinstance(prompt, str) else str(model.tokenizer.decode(ids.tolist()))


def _expect_same_length(ids: Tensor, other: Tensor, prompt: str) -> None:
    if len(ids) != len(other):
        raise MismatchError(
            f"The corrupted prompt has {len(other)} tokens, {prompt[:60]!r} has {len(ids)}: their "
            "tokens do not correspond. Pass two prompts of equal length."
        )


def _of_task(
    model: Model,
    known: Mapping[Site, Dictionary],
    task: Task,
    targets: Any,
    pairs: Any,
    position: int,
) -> _Plan:
    """Plan the graph of a task's prompt, or the mean over its prompts at named positions."""
    if pairs not in (None, False, True):
        raise InputError("The corrupted prompts of a task are its own: pass pairs=True.")
    if pairs and not task.corrupted:
        raise InputError(f"Task {task.name!r} has no corrupted prompts: leave pairs out.")
    if task.metric is None and targets is None:
        raise InputError(f"Task {task.name!r} has labels alone: say which targets are explained.")

    def wanted(row: int, ids: Tensor) -> Any:
        if targets is not None:
            return targets
        return [metric_target(model, task, row, _logits(model, ids, position))]

    about = {"task": task.name, "split": task.split, "seed": task.seed}
    if len(task) == 1:
        ids = _ids(model, known, task.clean[0], position, "prompt")
        other = task.corrupted[0] if pairs else None
        return _of_prompt(model, known, task.clean[0], wanted(0, ids), other, position, about)
    parts = []
    for row, clean in enumerate(task.clean):
        ids = _ids(model, known, clean, position, "prompt")
        places = _places(task, row, len(ids))
        share, asked = 1 / len(task), wanted(row, ids)
        parts.append(_Part(ids, share, asked, places))
        if pairs:
            other = _ids(model, known, task.corrupted[row], position, "pairs")
            _expect_same_length(ids, other, clean)
            parts.append(_Part(other, -share, asked, places))
    settings = {
        "scope": "dataset",
        **about,
        "n": len(task),
        "positions": [*task.positions, "last", OTHER],
        **({"pairs": True} if pairs else {}),
    }
    return _Plan(
        parts, settings, None if targets is not None else str(task.metric).replace("_", " ")
    )


def _places(task: Task, row: int, length: int) -> list[str]:
    """Return the name of each token of a prompt."""
    places = [OTHER] * length
    for name, ends in {**task.positions, "last": (-1,) * len(task)}.items():
        if places[ends[row]] == OTHER:
            places[ends[row]] = name
    return places


def _circuit(
    graph: PromptGraph,
    node_share: float,
    edge_share: float,
    settings: dict[str, Any],
    labels: Mapping[Site, Sequence[str]],
    n: int,
) -> Circuit:
    """Prune a graph, and write down how it fared."""
    kind = graph.nodes["kind"]
    is_token, is_error = kind == TOKEN, kind == "error"
    scores = graph_scores(graph.adjacency, graph.weights, is_token, is_error)
    always = is_token | (kind == TARGET)
    # In a difference, what comes before the first other token is the same: nothing enters it.
    has_inputs = graph.has_row & (np.diff(graph.adjacency.indptr) > 0)
    kept = pruned(graph.adjacency, graph.weights, always, has_inputs, node_share, edge_share)
    nodes = graph.nodes[kept.nodes].copy()
    whole = kept.influence.sum()
    nodes["score"] = kept.influence[kept.nodes] / (whole if whole > 0 else 1)
    nodes["score"][nodes["kind"] == TARGET] = 1.0
    named = {str(Site.parse(site)): names for site, names in labels.items()}
    for i in np.flatnonzero(nodes["kind"] == "feature"):
        names = named.get(nodes["site"][i])
        nodes["label"][i] = str(names[nodes["index"][i]]) if names is not None else ""
    rank = np.cumsum(kept.nodes) - 1
    edges = sp.coo_array(kept.edges)
    target, source = edges.coords
    weights = np.asarray(graph.adjacency[target, source])
    where = {(each[1], each[3]) for each in nodes.tolist() if each[0] == "feature"}
    activations: dict[str, dict[str, float]] = {}
    for _, site, position, index, value, _, _ in graph.active.tolist():
        if (site, index) in where:
            activations.setdefault(f"{site}/{index}", {})[position] = round(value, 4)
    return Circuit(
        nodes,
        new_edges(
            len(source),
            source=rank[source],
            target=rank[target],
            weight=weights,
            score=edges.data,
        ),
        {
            **settings,
            "target": nodes["label"][nodes["kind"] == TARGET].tolist(),
            "directions": _directions(graph, settings["scope"]),
            "probabilities": graph.weights[kind == TARGET].tolist(),
            "n_active": len(graph.active),
            "n_attributed": int((kind == "feature").sum()),
            "left_out": round(graph.left_out, 6),
            "activations": activations,
        },
        {
            "attribution": {
                **scores._asdict(),
                "largest_error": graph.largest_error,
                "n": n,
            }
        },
    )


def _directions(graph: PromptGraph, scope: str) -> list[list[list[float]]] | None:
    """Return tokens and factors of each target; of a mean over prompts there are none to tell."""
    if scope != "prompt":
        return None
    return [[[*each.tokens], [*each.factors]] for each in graph.targets]
