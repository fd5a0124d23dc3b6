"""A circuit on one prompt of one's own: the model is run on it, so every number is measured there.

One prompt has no scatter: what goes when a source is ablated is exact, and nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, expect, expect_known, number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.names import told_apart
from circuit_toolkit.circuit.tables import TARGET, TOKEN, new_edges, new_nodes
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import (
    LEAST,
    evaluated_on,
    outcome_at_places,
    with_metric,
)
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.patching.placed_features import Place, PlacedFeatures
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

EMBED = Site("embed")


def on_prompt(
    circuit: Circuit,
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    prompt: str | Task,
    task: Task,
    *,
    answers: tuple[str, str] | None = None,
    positions: Mapping[str, int] | None = None,
    min_weight: float = 0.1,
    random_sets: int = 10,
    seed: int = 0,
) -> Circuit:
    """Measure a circuit on one prompt: its words, its features there, and what each does.

    Parameters
    ----------
    circuit : Circuit
        Of features at positions, from `find_circuit` or `LassoFit.circuit`.
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Those that the circuit was learnt on.
    prompt : str or Task
        Up to the word that is asked for; or a task of one prompt, with its answers and positions.
        Where it has a corrupted prompt, features are ablated to what they are there.
    task : Task
        Prompts over which means are taken: an ablated feature is set to its mean at the position,
        an ablated word to the mean token embedding.
    answers : (str, str), optional
        The answer and the wrong answer, single tokens; by default the two likeliest next tokens.
    positions : dict of str to int, optional
        Where positions of the circuit other than `last` are in this prompt: the index of a token,
        negative from the end. Features at positions that are not given are left out, and as they
        are in the model.
    min_weight : float
        Edges from words, and between features, that carry less of their target are not drawn.
    random_sets : int
        Random circuits of the same size to compare with.
    seed : int
        Of these.

    Returns
    -------
    Circuit
        Nodes: the words of the prompt, features of the circuit that are active on it, and the
        target `logit(A) - logit(B)` with its value. The weight of an edge is the share of its
        target that goes when its source alone is ablated: exact, so its interval is a point and its
        status `confirmed`. `evidence["ablation"]` as from `evaluate`, of this prompt and of all the
        circuit's features, as some work by being off; it is missing where the model does no better
        than with all features ablated. `settings["left_out"]` has positions that were left out.

    Raises
    ------
    InputError
        If the circuit has no features at these positions, an answer is not one token, a position is
        outside the prompt, or a dictionary is missing.
    """
    expect(circuit, "circuit", "Circuit")
    expect(model, "model", "Model")
    expect(prompt, "prompt", "str", "Task")
    task = with_metric(task)
    min_weight = number(min_weight, "min_weight", 0, 1)
    random_sets, seed = whole(random_sets, "random_sets", 1), whole(seed, "seed", 0)
    if positions is not None and not isinstance(positions, Mapping):
        raise InputError(
            f"positions must be tokens by name, as in {{'S2': -4}}, got {described(positions)}."
        )
    own = prompt if isinstance(prompt, Task) else None
    if own is not None and len(with_metric(own)) != 1:
        raise InputError(f"prompt is a task of {len(own)} prompts: pass one, task.select([0]).")
    named = positions or ({name: at[0] for name, at in own.positions.items()} if own else {})
    given = {name: whole(at, f"positions[{name!r}]") for name, at in named.items()}
    placed = circuit.placed_features()
    wanted = list(dict.fromkeys(position for _, position in placed))
    here = [name for name in wanted if name == "last" or name in given]
    if not here:
        raise InputError(
            f"The circuit has features at {', '.join(wanted) or 'no position'}: say where these "
            "are in the prompt, as in positions={'S2': -4}."
        )
    names = [str(site) for site, _ in placed]
    sites = [Site.parse(name) for name in circuit.settings.get("sites") or dict.fromkeys(names)]
    known = as_dictionaries(model, dictionaries)
    for site in sites:
        expect_known(site, known, f"No dictionary was given for {site} of the circuit")
    known = {site: known[site] for site in sites}
    if own is None or answers is not None:
        text = prompt if isinstance(prompt, str) else prompt.clean[0]
        own = _task(model, text, answers, {name: given[name] for name in here if name != "last"})
    others = PlacedFeatures.of(model, known, task, here, "mean")
    runs = PlacedFeatures.of(model, known, own, here)
    runs = runs if own.corrupted else runs.ablated_to(others)
    features = {place: units for place, units in placed.items() if place[1] in here}
    found = _tables(circuit, runs, features, _mean_embedding(others), min_weight)
    settings = {
        **{key: each for key, each in circuit.settings.items() if key != "trained_on"},
        "scope": "prompt",
        "prompt": own.clean[0],
        "positions": here,
        "left_out": [name for name in wanted if name not in here],
        "ablation": runs.ablation,
        "target": str(found[0]["label"][-1]),
    }
    drawn = Circuit(*found, settings)
    edges = {"confirmed": len(found[1]), "refuted": 0, "untested": 0, "ablation": runs.ablation}
    record = evaluated_on(circuit.settings, model, own)
    evidence: dict[str, Any] = {"edges": {**edges, "evaluated_on": record}}
    if float(runs.metric()[0]) - float(runs.metric_with({})[0]) >= LEAST:
        evidence["ablation"] = outcome_at_places(features, runs, record, random_sets, seed)
    return drawn.with_evidence(evidence)


def _task(model: Model, prompt: str, answers: Any, positions: Mapping[str, int]) -> Task:
    """Make a task of one prompt."""
    batch = model.tokenize([prompt])
    n = int(batch.mask.sum())
    for name, at in positions.items():
        if not -n <= at < n:
            raise InputError(f"positions[{name!r}] is {at}: the prompt has {n} tokens.")
    if answers is None:
        logits = run(model, batch, [LOGITS], last_logits=True)[LOGITS][0, -1]
        right, wrong = logits.topk(2).indices.tolist()
    elif _are_two_texts(answers):
        right, wrong = (model.token_id(word) for word in answers)
    else:
        raise InputError(
            f"answers must be the answer and the wrong one, two texts; got {described(answers)}."
        )
    ends = {name: (at if at < 0 else at - n,) for name, at in positions.items()}
    return Task("own", (prompt,), (), ((right,),), ((wrong,),), positions=ends)


def _are_two_texts(answers: Any) -> bool:
    pair = isinstance(answers, tuple | list) and len(answers) == 2
    return pair and all(isinstance(word, str) for word in answers)


def _mean_embedding(runs: PlacedFeatures) -> Tensor:
    """Mean over the tokens of prompts, (D,)."""
    found = run(runs.model, runs.batch, [EMBED])[EMBED]
    return found[runs.batch.mask.bool()].mean(0)


def _tables(
    circuit: Circuit,
    runs: PlacedFeatures,
    placed: Mapping[Place, np.ndarray],
    embedding: Tensor,
    min_weight: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Put words, features and the target into tables, with the effect of each on what is later."""
    model = runs.model
    inner = {}
    for place in runs.places:
        units = placed.get(place, np.array([], int))
        inner[place] = units[(runs.acts[place][0] > 0).cpu().numpy()[units]]
    listed = [(at, unit) for at, units in inner.items() for unit in units.tolist()]
    lost, on_metric = runs.effects(inner, inner)
    values = np.array([float(runs.acts[at][0, unit]) for at, unit in listed])
    metric = float(runs.metric()[0])
    words = _words(runs, inner, embedding)
    effect = np.concatenate(
        [words, np.concatenate([lost[:, :, 0], on_metric[:, :1]], 1)]
    )  # (tokens + features, features + 1)
    there = np.append(values, abs(metric))
    share = np.divide(effect, there, out=np.zeros_like(effect), where=there > 0)
    ids = runs.batch.ids[0][runs.batch.mask[0].bool()].tolist()
    texts = [_said(model, token) for token in ids]
    said = {
        (site, position, index): label
        for site, position, index, label in circuit.nodes[
            ["site", "position", "index", "label"]
        ].tolist()
    }
    n, size = len(texts), len(listed)
    special = np.isin(ids, model.tokenizer.all_special_ids)
    order = list(runs.dictionaries)
    depth = np.array([-1] * n + [order.index(site) for (site, _), _ in listed])
    pairs = [
        (s, t)
        for s in range(n + size)
        for t in range(size)
        if depth[n + t] == depth[s] + 1
        and abs(share[s, t]) >= min_weight
        and not (s < n and special[s])
    ]
    drives = {s for s, _ in pairs}
    last = len(order) - 1
    pairs += [
        (s, size)
        for s in range(n + size)
        if (s >= n and (depth[s] == last or s not in drives))
        or (s < n and s not in drives and not special[s] and abs(share[s, size]) >= min_weight)
    ]
    weight = np.array([share[pair] for pair in pairs])
    kept = [s for s in range(n) if any(pair[0] == s for pair in pairs)]
    row = {s: i for i, s in enumerate([*kept, *range(n, n + size), n + size])}
    nodes = np.concatenate(
        [
            new_nodes(
                len(kept),
                TOKEN,
                position=[str(i) for i in kept],
                index=kept,
                label=[texts[i] for i in kept],
                score=np.abs(share[kept, -1]),
                activation=1.0,
            ),
            new_nodes(
                size,
                site=[str(site) for (site, _), _ in listed],
                position=[position for (_, position), _ in listed],
                index=[unit for _, unit in listed],
                activation=values,
                score=np.abs(share[n:, -1]),
                label=[said[str(site), position, unit] for (site, position), unit in listed],
            ),
            new_nodes(1, TARGET, label=_name(model, runs.task), score=1.0, activation=metric),
        ]
    )
    edges = new_edges(
        len(pairs),
        source=[row[s] for s, _ in pairs],
        target=[row[n + t] for _, t in pairs],
        weight=weight,
        score=np.abs(weight),
        status="confirmed",
        low=weight,
        high=weight,
    )
    return told_apart(nodes), edges


def _words(
    runs: PlacedFeatures, inner: Mapping[Place, np.ndarray], embedding: Tensor
) -> np.ndarray:
    """Return what features and the metric lose without each word, (tokens, m + 1)."""
    model, batch = runs.model, runs.batch
    at = batch.mask[0].bool().nonzero()[:, 0]
    many = replace(batch, ids=batch.ids.repeat(len(at), 1), mask=batch.mask.repeat(len(at), 1))

    def without(x: Tensor) -> Tensor:
        x = x.clone()
        x[torch.arange(len(at)), at] = embedding.to(x)
        return x

    seen = run(model, many, [*runs.dictionaries, LOGITS], {EMBED: without}, last_logits=True)
    parts = []
    for (site, position), units in inner.items():
        values = runs.dictionaries[site].encode(seen[site][:, int(runs.where[position][0])])
        parts.append((runs.acts[site, position][:, units] - values[:, units]).cpu().numpy())
    scored = runs.task.score(seen[LOGITS][:, -1], [0] * len(at)).double().numpy()
    return np.concatenate([*parts, (runs.metric() - scored)[:, None]], 1)


def _said(model: Model, token: int) -> str:
    return model.word(token).strip()


def _name(model: Model, task: Task) -> str:
    """Return the target in words."""
    right, wrong = (_said(model, each[0][0]) for each in (task.answers, task.wrong))
    return f"logit({right}) - logit({wrong})"
