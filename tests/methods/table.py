"""Every public method that runs a model: how it is called, and what is compared of it.

`tests/precision` holds each row in half precision against float32, `tests/devices` on another
device against the CPU. A public name that takes a model has a row, or a place in `RUNS_NOTHING`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit import attribution, evidence, features, interventions, weight_lens
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.sites import KINDS, Site
from tests.methods.cases import Case, most_active
from tests.methods.numbers import numbers

QUIET: dict[str, Any] = {"progress": False}
Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A public name, and a call of it that returns what is compared; `how` tells two calls apart.

    `effects` are differences of two runs: they are as sure as the logits that they are differences
    of. So are `shares` of the metric, in which the metric is 1. `unstable` says why numbers are
    compared on the bundled model alone. With `small` it runs once for each edge, so on small
    models alone.
    """

    name: str
    call: Callable[[Case], Any]
    effects: bool = False
    shares: bool = False
    unstable: str = ""
    small: bool = False
    how: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.how}".strip()


def _features(case: Case) -> ct.Circuit:
    sizes = {"n_prompts": 8, "max_features": 10, "max_edges": 10, "draws": 2, "random_sets": 2}
    return ct.find_circuit(case.model, case.saes, case.task, **sizes, **QUIET)


def _tested(case: Case) -> Numbers:
    sizes = {"max_sites": 2, "max_features": 10, "max_edges": 4, "random_sets": 2}
    held_out = case.task.select([2, 3, 4, 5])
    return _nodes(ct.find_circuit(case.model, case.saes, case.task, held_out, **sizes, **QUIET))


def _tested_heads(case: Case) -> Numbers:
    sizes = {"max_heads": 4, "random_sets": 2, "by": "change towards the answer"}
    return _nodes(ct.find_heads(case.model, case.task, case.task.select([2, 3]), **sizes, **QUIET))


def _heads(case: Case) -> ct.Circuit:
    sizes = {"n_prompts": 8, "max_heads": 4, "random_sets": 2}
    return ct.find_heads(case.model, case.task, **sizes, **QUIET)


def _graph(case: Case) -> ct.Circuit:
    """All of it: which of two like nodes pruning leaves out turns on a rounding."""
    prompt, most = case.task.select([0]), None if case.small else 100
    options = {"max_features": most, "node_share": 1, "edge_share": 1, **QUIET}
    return ct.attribution_graph(case.model, case.transcoders, prompt, **options)


def _nodes(circuit: ct.Circuit) -> Numbers:
    """Scores of nodes: which edges are tested turns on which of two like nodes comes first."""
    return {"nodes": numbers(circuit)["nodes"]}


def _task_of_two(case: Case) -> tuple[ct.Task, ...]:
    """Texts with two labels: tied, of all four groups, and of all four again."""
    texts = [*case.task.clean, *case.task.corrupted]
    texts = [texts[i % len(texts)] for i in range(24)]

    def labelled(tied: bool) -> ct.Task:
        first = [i % 2 for i in range(24)]
        second = first if tied else [i // 2 % 2 for i in range(24)]
        labels = {
            "profession": tuple(("nurse", "judge")[i] for i in first),
            "gender": tuple(("female", "male")[i] for i in second),
        }
        return ct.Task("labels", tuple(texts), metric=None, labels=labels)

    return labelled(True), labelled(False), labelled(False)


def _generalised(case: Case) -> Numbers:
    judged = {case.first: range(40)}
    sizes = {"n_ranked": 10, "shift_prompts": 4, "shift_steps": 2, "draws": 1}
    found = ct.generalise(
        case.model, case.saes, *_task_of_two(case), site=case.first, judged=judged, **sizes, **QUIET
    )
    return {"accuracy": found.table()["profession accuracy"]}


def _lens(case: Case) -> Numbers:
    site = list(case.transcoders)[-1]
    acts = ct.capture(case.model, case.transcoders, case.task, **QUIET)
    unit = case.found.setdefault("lens", most_active(acts, site))
    lens = ct.CircuitLens(n_examples=24)
    found = lens.analyse(case.model, case.transcoders, case.task, (site, unit), acts=acts, **QUIET)
    return {"activation": np.sort(found.table["activation"])}


def _card(case: Case) -> Numbers:
    card = ct.feature_card(case.model, case.saes, (case.first, case.unit), case.acts)
    assert card.logits is not None
    return {"logits": [each["value"] for each in card.logits["promoted"]]}


def _described(case: Case, preset: Any = "robust") -> Numbers:
    lens = ct.WeightLens(preset, n_permuted=16)
    found = lens.describe(case.model, case.first_transcoder, **QUIET)
    found.coverage()
    return {str(site): each.embedding_total for site, each in found.tables.items()}


def _weights(case: Case) -> Numbers:
    some = {site: range(8) for site in case.transcoders}
    ends = {"sources": some, "targets": some, "through": "both", "top": None}
    found = ct.virtual_weights(case.model, case.transcoders, **ends, **QUIET)
    return {"weights": found.rows["weight"]}


def _steered(case: Case) -> Numbers:
    graph = case.found["graph"]
    row = int((graph.nodes["kind"] == "feature").argmax())
    sizes = {"random_sets": 2, "max_new_tokens": 2}
    found = ct.steer(
        case.model, graph, {graph.ids()[row]: 0}, dictionaries=case.transcoders, **sizes, **QUIET
    )
    return {"before": found.logits_before, "after": found.logits_after}


def _written(case: Case) -> Numbers:
    graph = case.found["graph"]
    features = graph.nodes["kind"] == "feature"
    graph = graph.group("two", np.array(graph.ids())[features][:2])
    with TemporaryDirectory() as folder:
        graph.to_csv(Path(folder) / "tables")
        graph.to_graphml(Path(folder) / "graph.graphml")
        again = ct.Circuit.from_neuronpedia(graph.to_neuronpedia(Path(folder) / "graph.json"))
    return {"nodes": [len(again.nodes)], "edges": [len(graph.supernode_edges())]}


def _codes() -> ct.HeadCodes:
    return ct.HeadCodes(n_features=8, steps=4, n_seeds=1, n_train=4)


def _coded(case: Case) -> Numbers:
    acts = ct.capture(case.model, "head_out", case.task, "last", **QUIET)
    return {"moved": _codes().fit(acts, case.task).moved}


def _trained(case: Case, site: Site | None = None, kind: Any = "sae") -> Numbers:
    site = site or case.first
    sizes = {"n_features": 16, "k": 4, "steps": 4, "batch": 16, "context": 8}
    sizes |= {"learning_rate": 1e-3}  # Adam's first steps are of this size, however small a slope
    texts, sizes = case.task.texts, {**sizes, **QUIET}
    found = ct.train_dictionaries(case.model, [site], texts, kind, **sizes)
    return {"decoder": found[site].directions}


def _trained_transcoder(case: Case) -> Numbers:
    return _trained(case, next(iter(case.transcoders)), "transcoder")


def _fitted(case: Case) -> Numbers:
    given = {"model": case.model, "dictionaries": case.saes, **QUIET}
    fit = ct.CircuitLasso(min_active=2, draws=2).fit(case.acts, case.task, **given)
    return _nodes(fit.circuit(0.5))


def _observed(case: Case) -> Numbers:
    with TemporaryDirectory() as folder:
        store = ct.capture(case.model, case.saes, case.task, store=Path(folder) / "acts", **QUIET)
        lasso = ct.CircuitLasso(design="observational", min_active=2)
        replace(lasso, adaptive=True).fit(store, case.task, **QUIET).circuit(0.5)
        return _nodes(lasso.fit(store, case.task, **QUIET).circuit(0.9))


def _captured(case: Case) -> Numbers:
    return {**case.acts.features, "metric": case.acts.metric}


def _stored(case: Case) -> Numbers:
    with TemporaryDirectory() as folder:
        store = ct.capture(case.model, case.saes, case.task, store=Path(folder) / "acts", **QUIET)
        (acts,) = store.shards()
        return {**acts.features, "metric": acts.metric}


def _explored_task(case: Case) -> Numbers:
    lasso = ct.CircuitLasso(min_active=2, draws=2)
    panel = ct.explore(case.model, case.saes, case.task, estimator=lasso)
    panel.test()
    return _nodes(panel.circuit)


def _explored(case: Case) -> Numbers:
    panel = ct.explore(case.model, case.transcoders, case.task.select([0]))
    panel.test()
    return _nodes(panel.whole)


def _explored_features(case: Case) -> Numbers:
    described = ct.WeightLens("robust").describe(case.model, case.first_transcoder, **QUIET)
    given = case.model, case.transcoders, case.task
    panel = ct.explore_features(*given, descriptions=described, **QUIET)
    return {"maximum": panel.card.examples.maximum}


def _explored_heads(case: Case) -> Numbers:
    panel = ct.explore_heads(case.model, case.task, n=8, codes=_codes())
    panel.compare()
    return dict(panel.scores)


def _compared(case: Case) -> Numbers:
    sizes = {"n_prompts": 4, "sizes": [5]}
    found = ct.compare(case.model, case.task, ["eap"], **sizes, **QUIET)
    return numbers(found.runs["eap"].circuit)


def _compared_heads(case: Case) -> Numbers:
    truth = np.zeros((case.model.n_layers, case.model.n_heads), bool)
    truth[0, 0] = True
    options = {"interventions": case.small, **QUIET}
    found = ct.compare_heads(case.model, case.task, truth, _codes(), **options)
    return {name: scores for name, scores in found.scores.items() if "patch" in name}


def _edges_scored(method: Callable[..., ct.Circuit], **options: Any) -> Callable[[Case], Any]:
    return lambda case: method(case.model, case.task, n_prompts=6, **options, **QUIET)


def _feature_scores(case: Case) -> ct.Circuit:
    sizes = {"min_active": 2, "max_features": 30}
    return ct.feature_attribution(case.model, case.saes, case.task, **sizes, **QUIET)


def _patched_feature(case: Case) -> Numbers:
    options = {"value": "zero", "dictionaries": case.saes, "n_prompts": 6}
    ends = (case.first, case.unit), "logits"
    found = ct.path_patching(case.model, case.task, *ends, **options, **QUIET)
    return {"effect": found.effect, "logits": found.logits}


def _path(case: Case) -> Numbers:
    ends, last = ("a0.h1", "logits"), case.model.n_layers - 1
    found = ct.path_patching(case.model, case.task, *ends, through=[f"m{last}"], **QUIET)
    return {"effect": found.effect, "logits": found.logits}


def _off(case: Case) -> ct.Change:
    return ct.zero(case.first, features=[case.unit])


def _outcome(found: Any) -> Numbers:
    return {"logits": found.logits.cpu(), "metric": found.metric.cpu()}


def _changed(case: Case) -> Numbers:
    changes = [_off(case), ct.resample(list(case.saes)[1], features=range(8))]
    return _outcome(ct.intervene(case.model, case.task, changes, dictionaries=case.saes, **QUIET))


def _changed_components(case: Case) -> Numbers:
    changes = [
        ct.zero("attn_z 1", heads=[0]),
        ct.resample("head_out 0", heads=[1]),
        ct.scale("mlp_out 1", 0.5),
    ]
    return _outcome(ct.intervene(case.model, case.task, changes, **QUIET))


def _each_changed(case: Case) -> Numbers:
    options = {"dictionaries": case.saes, **QUIET}
    return _outcome(ct.intervene_each(case.model, case.task, [_off(case)], **options)[0])


def _held_changed(case: Case) -> Numbers:
    with ct.intervened(case.model, _off(case), dictionaries=case.saes) as model:
        batch = model.tokenize(case.task.clean)
        return {"logits": run(model, batch, [LOGITS], last_logits=True)[LOGITS].cpu()}


def _hooked(case: Case) -> Numbers:
    with interventions.hooked(case.model, _off(case), dictionaries=case.saes) as module:
        batch = case.model.tokenize(case.task.clean)
        with torch.no_grad():
            logits = module(input_ids=batch.ids, attention_mask=batch.mask).logits
        return {"logits": logits[:, -1:].float().cpu()}


def _hooked_edges(case: Case) -> Numbers:
    graph = graph_of(case.model)
    scores = np.random.default_rng(0).random(tuple(graph.allowed.shape)).round()
    circuit = component_circuit(graph, scores, {})
    with interventions.hooked(case.model, circuit, task=case.task) as module:
        batch = case.model.tokenize(case.task.clean)
        with torch.no_grad():
            logits = module(input_ids=batch.ids, attention_mask=batch.mask).logits
        return {"logits": logits[:, -1:].float().cpu()}


def _generated(case: Case) -> Numbers:
    options = {"dictionaries": case.saes, "max_new_tokens": 3}
    found = ct.generate(case.model, case.task.clean[0], _off(case), **options, **QUIET)
    return {"goes on": found.before.startswith(case.task.clean[0])}


def _read(case: Case) -> Numbers:
    batch = case.model.tokenize(case.task.clean)
    found = run(case.model, batch, [*(Site(kind, 1) for kind in KINDS[1:-1]), LOGITS])
    return {str(site): value.cpu() for site, value in found.items()}


def _checked(case: Case) -> Numbers:
    found = ct.check_dictionaries(case.model, case.saes, case.task, **QUIET)
    return {name: found.table()[name] for name in ("explained_variance", "l0", "ce_recovered")}


def _estimated(case: Case) -> Numbers:
    return {"tokens": ct.estimate_capture(case.model, case.saes, case.task, **QUIET).tokens}


def _edges_tested(case: Case) -> ct.Circuit:
    circuit = case.found["features"]
    return ct.confirm_edges(circuit, case.model, case.saes, case.task, n_prompts=4, **QUIET)


def _nodes_tested(case: Case) -> Numbers:
    graph, sizes = case.found["graph"], {"n": 2, "random": 2}
    return _nodes(ct.confirm_nodes(graph, case.model, case.transcoders, **sizes, **QUIET))


def _evaluated(case: Case) -> Numbers:
    circuit = case.found["features"]
    found = ct.evaluate(circuit, case.model, case.saes, case.task, draws=2, **QUIET)
    names = ("model", "empty", "circuit", "others")
    return {name: found.evidence["ablation"][f"metric_{name}"] for name in names}


def _on_prompt(case: Case) -> ct.Circuit:
    circuit, prompt = case.found["features"], case.task.select([0])
    return ct.on_prompt(circuit, case.model, case.saes, prompt, case.task, random_sets=2)


def _curve(case: Case) -> Numbers:
    options = {"acts": case.found["acts"], "draws": 1, "n_prompts": 4}
    kept = {case.first: np.arange(20)}
    found = ct.faithfulness(kept, case.model, case.saes, case.task, **options, **QUIET)
    return {"inside": found.inside, "outside": found.outside}


def _paths(case: Case) -> ct.Circuit:
    circuit = case.found["heads"]
    return evidence.draw_paths(circuit, case.model, case.task, n_prompts=4, **QUIET)


def _without_heads(case: Case) -> Numbers:
    found = evidence.heads_effect(case.model, case.task, [(1, 0)], n_prompts=4, random_sets=2)
    return {"before": found.before, "after": found.after, "random": found.random}


def _named(case: Case) -> Numbers:
    return {"n": len(features.named_features(case.model, case.saes, case.acts)[case.first])}


def _promoted(case: Case) -> Numbers:
    return {"n": len(features.promoted_words(case.model, case.saes[case.first], np.arange(3)))}


def _alone(case: Case) -> Numbers:
    found = weight_lens.single_token_activations(case.model, case.saes, 5)
    return {str(site): each for site, each in found.items()}


NEAR = "which nodes are taken turns on scores that are nearly equal"
SHARES = "shares of effects that are near 0 in a random model"
FEW = "a lasso with more features than prompts"
DRAWN = {"draws": 16, "confirm": False}
METHODS = (
    Method("models.run", _read),
    Method("check_dictionaries", _checked),
    Method("train_dictionaries", _trained),
    Method("train_dictionaries", _trained_transcoder, how="of an MLP"),
    Method("capture", _captured),
    Method("capture", _stored, how="in a store"),
    Method("estimate_capture", _estimated),
    Method("Task.performance", lambda case: {"metric": case.task.performance(case.model).metric}),
    Method("Task.solved_by", lambda case: {"n": len(case.task.solved_by(case.model))}),
    Method("CircuitLasso.fit", _fitted, unstable=FEW),
    Method("CircuitLasso.fit", _observed, unstable=FEW, how="observational, on a store"),
    Method("randomised_lasso", _edges_scored(ct.randomised_lasso, **DRAWN)),
    Method("edge_lasso", _edges_scored(ct.edge_lasso, **DRAWN), unstable="fewer draws than edges"),
    Method("component_lasso", _edges_scored(ct.component_lasso), small=True),
    Method("HeadCodes.fit", _coded),
    Method("eap", _edges_scored(ct.eap)),
    Method("eap_ig", _edges_scored(ct.eap_ig, steps=2)),
    Method("attribution.gim", _edges_scored(attribution.gim)),
    Method("attribution_patching", _edges_scored(ct.attribution_patching)),
    Method("feature_attribution", _feature_scores),
    Method("head_scores", lambda c: {"scores": ct.head_scores(c.model, c.task, **QUIET)}),
    Method("attribution_graph", _graph),
    Method("activation_patching", _edges_scored(ct.activation_patching), effects=True),
    Method("edge_patching", _edges_scored(ct.edge_patching), effects=True, small=True),
    Method("path_patching", _patched_feature, effects=True),
    Method("path_patching", _path, effects=True, how="of a head"),
    Method("WeightLens.describe", _described),
    Method("WeightLens.describe", lambda case: _described(case, "paper"), how="as published"),
    Method("CircuitLens.analyse", _lens),
    Method("feature_card", _card),
    Method("virtual_weights", _weights),
    Method("intervene", _changed),
    Method("intervene", _changed_components, how="with heads and sites"),
    Method("intervene_each", _each_changed),
    Method("intervened", _held_changed),
    Method("interventions.hooked", _hooked),
    Method("interventions.hooked", _hooked_edges, how="a circuit of edges"),
    Method("generate", _generated),
    Method("steer", _steered),
    Method("find_circuit", lambda case: _nodes(_features(case)), unstable=NEAR),
    Method("find_circuit", _tested, unstable=NEAR, how="and test it"),
    Method("find_heads", lambda case: _nodes(_heads(case))),
    Method("find_heads", _tested_heads, unstable=NEAR, how="without gradients, and test them"),
    Method("confirm_edges", _edges_tested, shares=True, unstable=SHARES),
    Method("confirm_nodes", _nodes_tested),
    Method("evaluate", _evaluated),
    Method("on_prompt", _on_prompt, unstable=SHARES),
    Method("faithfulness", _curve),
    Method("compare", _compared),
    Method("compare_heads", _compared_heads),
    Method("generalise", _generalised, unstable="an accuracy on 24 texts"),
    Method("attribution_graph", _written, how="written and read"),
    Method("explore", _explored),
    Method("explore", _explored_task, unstable=FEW, how="a task"),
    Method("explore_features", _explored_features),
    Method("explore_heads", _explored_heads),
    Method("evidence.draw_paths", _paths),
    Method("evidence.heads_effect", _without_heads),
    Method("features.named_features", _named),
    Method("features.promoted_words", _promoted),
    Method("weight_lens.single_token_activations", _alone),
)
RUNS_NOTHING = {  # public names that take a model and do not run it
    "interventions.bridge_hooks",  # hooks for a bridge, which runs
    *("load_dictionaries", "dictionaries.as_dictionaries", "dictionaries.bind_dictionary"),
    *("dictionaries.coordinates", "benchmark.known_heads", "models.shift", "models.token_mask"),
    *(
        "Task.as_chat",
        "Task.from_hub",
        "Task.from_pairs",
        "Task.from_table",
        "Task.from_tokens",
        "tasks.agreement",
        "tasks.bios",
    ),
    *("tasks.docstring", "tasks.greater_than", "tasks.ioi"),
}


def begin(case: Case) -> dict[str, Any]:
    """Make what calls begin with, so that those on another device begin with the same."""
    made = {"features": _features, "heads": _heads, "graph": _graph}
    case.found.update({name: make(case) for name, make in made.items()}, acts=case.acts)
    return case.found
