"""The attribution graph of a prompt, of the difference of two, or of the mean over many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.arguments import is_a, number, whole
from circuit_toolkit.attribution.graph.engine import PromptGraph, attribute
from circuit_toolkit.attribution.graph.plans import Part, plan_of_prompt, plan_of_task
from circuit_toolkit.attribution.graph.pruning import graph_scores, pruned
from circuit_toolkit.attribution.graph.sums import GraphSum
from circuit_toolkit.attribution.graph.targets import Targets
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.names import told_apart
from circuit_toolkit.circuit.tables import TARGET, TOKEN, new_edges
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.models.model import Prompt
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task


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
        A text, token ids or a chat. Of a task with one prompt that prompt; of more the mean over
        its prompts, at the positions that it names and `last`, all other tokens together as
        `other`. A task's metric is the target, a metric of probabilities by its gradient.
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
        plan = plan_of_task(model, known, prompt, targets, pairs, options["position"])  # pyright: ignore
    else:
        plan = plan_of_prompt(model, known, prompt, targets, pairs, options["position"])
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


def _summed(parts: Sequence[Part], draw: Callable[[Part], PromptGraph]) -> PromptGraph:
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
        told_apart(nodes),
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
