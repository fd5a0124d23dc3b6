"""Wrong objects at the front door: each gets an error of the toolkit that names the way out."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.errors import ToolkitError
from circuit_toolkit.sites import Site
from tests.tiny import TEXTS, residual_sites, task_it_does

SITES = residual_sites()
SITE, FEATURE = SITES[1], 3
TASK, MODEL = (
    r"task must be a Task, .*ct\.tasks\.ioi\(model\)",
    r"model must be a Model, .*load_model",
)
CIRCUIT, FIT = r"circuit must be a Circuit, .*fit\.circuit", r"fit must be a LassoFit, .*fit\("
DICTIONARIES = r"load_dictionaries\(model\)"
PROMPTS = r"prompts must be .*(a task|list of texts)"
ACTS = r"acts must be .*capture\("


@pytest.fixture(scope="module")
def g(tiny, tiny_saes, tiny_folder) -> SimpleNamespace:
    """One of each object that a user may mix up."""
    saes = {site: tiny_saes[site] for site in SITES}
    does = task_it_does([f"the {thing} near the cabinet" for thing in ("boys", "girls", "doctors")])
    task = ct.tasks.ioi(tiny, n=24, seed=2)
    acts = ct.capture(tiny, saes, task, progress=False)
    fit = ct.CircuitLasso().fit(acts, progress=False)
    heads = ct.capture(tiny, "head_out", task, "last", progress=False)
    return SimpleNamespace(
        model=tiny,
        saes=saes,
        sae=saes[SITE],
        transcoders=ct.load_dictionaries(tiny, tiny_folder, kind="transcoder"),
        task=task,
        does=does,
        texts=list(TEXTS[:3]),
        acts=acts,
        heads=heads,
        fit=fit,
        circuit=fit.circuit(0.1),
        codes=ct.HeadCodes(n_seeds=1, steps=1),
    )


REFUSED = {
    # A model where a task belongs, and the reverse.
    "capture, swapped": (lambda g: ct.capture(g.saes, g.model, g.task), MODEL),
    "estimate_capture, swapped": (lambda g: ct.estimate_capture(g.task, g.saes, g.model), MODEL),
    "eap, swapped": (lambda g: ct.eap(g.task, g.model), MODEL),
    "eap_ig, swapped": (lambda g: ct.eap_ig(g.task, g.model), MODEL),
    "attribution_patching, swapped": (lambda g: ct.attribution_patching(g.task, g.model), MODEL),
    "activation_patching, swapped": (lambda g: ct.activation_patching(g.task, g.model), MODEL),
    "edge_patching, swapped": (lambda g: ct.edge_patching(g.task, g.model), MODEL),
    "path_patching, swapped": (lambda g: ct.path_patching(g.task, g.model, "m0", "m1"), MODEL),
    "feature_attribution, swapped": (
        lambda g: ct.feature_attribution(g.saes, g.model, g.task),
        MODEL,
    ),
    "randomised_lasso, swapped": (lambda g: ct.randomised_lasso(g.task, g.model), MODEL),
    "component_lasso, swapped": (lambda g: ct.component_lasso(g.task, g.model), MODEL),
    "compare, swapped": (lambda g: ct.compare(g.task, g.model), MODEL),
    "compare_heads, swapped": (
        lambda g: ct.compare_heads(g.task, g.model, np.ones((3, 4))),
        MODEL,
    ),
    "intervene, swapped": (lambda g: ct.intervene(g.task, g.model, []), MODEL),
    "generate, swapped": (lambda g: ct.generate("Anna", g.model, []), MODEL),
    "steer, swapped": (lambda g: ct.steer(g.circuit, g.model, {}), MODEL),
    "steer a fit": (lambda g: ct.steer(g.model, g.fit, {}), CIRCUIT),
    "explore, swapped": (lambda g: ct.explore(g.model, g.task, g.saes), DICTIONARIES),
    "explore_heads, swapped": (lambda g: ct.explore_heads(g.task, g.model), MODEL),
    "explore_features, swapped": (
        lambda g: ct.explore_features(g.model, g.texts, g.transcoders),
        DICTIONARIES,
    ),
    "evaluate, model first": (
        lambda g: ct.evaluate(g.model, g.saes, g.task, g.circuit),
        CIRCUIT,
    ),
    "check_dictionaries, swapped": (
        lambda g: ct.check_dictionaries(g.model, g.texts, g.saes),
        DICTIONARIES,
    ),
    "describe, swapped": (lambda g: ct.WeightLens().describe(g.transcoders, g.model), MODEL),
    "analyse, swapped": (
        lambda g: ct.CircuitLens().analyse(g.transcoders, g.model, g.texts, ("mlp_in 1", 3)),
        MODEL,
    ),
    "virtual_weights, swapped": (lambda g: ct.virtual_weights(g.transcoders, g.model), MODEL),
    "feature_card, swapped": (
        lambda g: ct.feature_card(g.model, g.saes, g.acts, (SITE, FEATURE)),
        r"names no feature\. Write",
    ),
    "train_dictionaries, swapped": (
        lambda g: ct.train_dictionaries(g.model, g.texts, [SITE]),
        r"is not a site",
    ),
    # A circuit, a fit or activations where something else belongs.
    "eap of a circuit": (lambda g: ct.eap(g.model, g.circuit), TASK),
    "eap of texts": (lambda g: ct.eap(g.model, g.texts), TASK),
    "edge_patching of activations": (lambda g: ct.edge_patching(g.model, g.acts), TASK),
    "feature_attribution of texts": (
        lambda g: ct.feature_attribution(g.model, g.saes, g.texts),
        TASK,
    ),
    "randomised_lasso of a fit": (lambda g: ct.randomised_lasso(g.model, g.fit), TASK),
    "component_lasso of texts": (lambda g: ct.component_lasso(g.model, g.texts), TASK),
    "compare on texts": (lambda g: ct.compare(g.model, g.texts), TASK),
    "evaluate a fit": (lambda g: ct.evaluate(g.fit, g.model, g.saes, g.task), CIRCUIT),
    "evaluate on texts": (lambda g: ct.evaluate(g.circuit, g.model, g.saes, g.texts), TASK),
    "faithfulness of a fit": (
        lambda g: ct.faithfulness(g.fit, g.model, g.saes, g.task),
        r"circuit must be .*fit\.circuit",
    ),
    "confirm_edges of a fit": (
        lambda g: ct.confirm_edges(g.fit, g.model, g.saes, g.task),
        CIRCUIT,
    ),
    "confirm_edges on texts": (
        lambda g: ct.confirm_edges(g.circuit, g.model, g.saes, g.texts),
        TASK,
    ),
    "find_circuit of texts": (lambda g: ct.find_circuit(g.model, g.saes, g.texts), TASK),
    "CircuitLasso fit to a task": (lambda g: ct.CircuitLasso().fit(g.task), ACTS),
    "HeadCodes fit to a task": (lambda g: g.codes.fit(g.task, g.heads), ACTS),
    "HeadCodes fit to texts": (lambda g: g.codes.fit(g.heads, g.texts), TASK),
    "feature_labels of a circuit": (lambda g: ct.feature_labels(g.circuit), ACTS),
    "feature_card of a circuit": (
        lambda g: ct.feature_card(g.model, g.saes, (SITE, FEATURE), g.circuit),
        ACTS,
    ),
    "mean_ablation of a task": (
        lambda g: ct.mean_ablation(g.task, g.circuit.features),
        ACTS,
    ),
    "mean_ablation of a circuit": (
        lambda g: ct.mean_ablation(g.acts, g.circuit),
        r"pass circuit\.features",
    ),
    "intervene on a circuit": (lambda g: ct.intervene(g.model, g.circuit, []), PROMPTS),
    "intervene with a circuit": (
        lambda g: ct.intervene(g.model, g.texts, g.circuit),
        r"changes must be .*zero\(",
    ),
    "intervene with sites": (
        lambda g: ct.intervene(g.model, g.texts, [SITE]),
        r"must be a Change.*ct\.zero",
    ),
    "intervene_each with one change": (
        lambda g: ct.intervene_each(g.model, g.texts, ct.zero(SITE)),
        r"call intervene",
    ),
    "generate from a task": (
        lambda g: ct.generate(g.model, g.task, []),
        r"prompt must be one text",
    ),
    "a path from a number": (
        lambda g: ct.path_patching(g.model, g.task, 3, "m1"),
        r"a component, such as 'a0\.h1'",
    ),
    "eap of labels alone": (lambda g: ct.eap(g.model, labels_alone()), r"no metric"),
    # Prompts.
    "capture a circuit": (lambda g: ct.capture(g.model, g.saes, g.circuit), PROMPTS),
    "capture one text": (lambda g: ct.capture(g.model, g.saes, "Anna"), r"write \[text\]"),
    "capture a table": (
        lambda g: ct.capture(g.model, g.saes, pd.DataFrame({"text": g.texts})),
        r"data\['text'\]",
    ),
    "intervene on a mapping": (
        lambda g: ct.intervene(g.model, {"text": g.texts}, []),
        r"data\['text'\]",
    ),
    "explore_features of a table": (
        lambda g: ct.explore_features(g.model, g.transcoders, pd.DataFrame({"text": g.texts})),
        r"data\['text'\]",
    ),
    "analyse a table": (
        lambda g: ct.CircuitLens().analyse(
            g.model, g.transcoders, pd.DataFrame({"text": g.texts}), ("mlp_in 1", 3)
        ),
        r"data\['text'\]",
    ),
    "check_dictionaries on a table": (
        lambda g: ct.check_dictionaries(g.model, g.saes, pd.DataFrame({"text": g.texts})),
        r"data\['text'\]",
    ),
    "train_dictionaries on one text": (
        lambda g: ct.train_dictionaries(g.model, [SITE], "Anna"),
        r"write \[text\]",
    ),
    # Dictionaries.
    "capture with a task for dictionaries": (
        lambda g: ct.capture(g.model, g.task, g.saes),
        DICTIONARIES,
    ),
    "evaluate with activations for dictionaries": (
        lambda g: ct.evaluate(g.circuit, g.model, g.acts, g.task),
        DICTIONARIES,
    ),
    "intervene with a fit for dictionaries": (
        lambda g: ct.intervene(g.model, g.texts, [], dictionaries=g.fit),
        DICTIONARIES,
    ),
    "path_patching with a task for dictionaries": (
        lambda g: ct.path_patching(g.model, g.task, "m0", "m1", dictionaries=g.task),
        DICTIONARIES,
    ),
    "generalise, swapped": (
        lambda g: ct.generalise(
            g.saes, g.model, g.task, g.task, g.task, site=SITE, judged={SITE: [1]}
        ),
        MODEL,
    ),
    "describe with a circuit": (
        lambda g: ct.WeightLens().describe(g.model, g.circuit),
        DICTIONARIES,
    ),
    # Numbers.
    "a share of a prompt": (lambda g: ct.eap(g.model, g.task, n_prompts=0.5), r"whole number"),
    "half a head": (lambda g: ct.zero("head_out 1", heads=[0.5]), r"whole numbers"),
    "a feature by name": (lambda g: ct.zero(SITE, features=["three"]), r"whole numbers"),
    "a text as a value": (lambda g: ct.put(SITE, "much"), r"must be numbers"),
    "a number as a site": (lambda g: ct.zero(3), r"A site is a name or a Site"),
    "a text as a strength": (lambda g: g.fit.circuit("strong"), r"strength"),
}


def labels_alone() -> ct.Task:
    return ct.Task("labels", ("a", "b"), metric=None, labels={"kind": ("one", "two")})


@pytest.mark.parametrize("probe", REFUSED)
def test_a_wrong_object_is_refused_with_the_way_out(g, probe):
    call, message = REFUSED[probe]
    with pytest.raises(ToolkitError) as refused:
        call(g)
    assert re.search(message, str(refused.value), re.DOTALL), refused.value


def named(saes: dict, of=lambda site: str(site)) -> dict:
    return {of(site): each for site, each in saes.items()}


def quick(g, dictionaries, **options):
    return ct.capture(g.model, dictionaries, g.texts, progress=False, **options)


def changed(g, *changes, **options):
    return ct.intervene(g.model, g.texts, changes, progress=False, **options).logits


ACCEPTED = {
    "dictionaries by hook names": lambda g: quick(g, named(g.saes)),
    "dictionaries by short names": lambda g: quick(g, named(g.saes, lambda site: site.short)),
    "one dictionary": lambda g: quick(g, g.sae),
    "a list of dictionaries": lambda g: quick(g, list(g.saes.values())),
    "an object of sae_lens": lambda g: quick(g, g.sae.sae),
    "objects of sae_lens by name": lambda g: quick(g, {str(SITE): g.sae.sae}),
    "a column of a table": lambda g: ct.capture(
        g.model, g.saes, pd.DataFrame({"text": g.texts})["text"], progress=False
    ),
    "evaluate by names": lambda g: ct.evaluate(
        g.fit.circuit(max_features=3), g.model, named(g.saes), g.does, draws=1, progress=False
    ),
    "feature_attribution with a list": lambda g: ct.feature_attribution(
        g.model, list(g.saes.values()), g.task, max_features=5, progress=False
    ),
    "virtual_weights with a list": lambda g: ct.virtual_weights(
        g.model, list(g.transcoders.values())
    ),
    "path_patching with one dictionary": lambda g: ct.path_patching(
        g.model, g.task, "a0.h1", (str(SITE), np.int64(3)), dictionaries=g.sae, progress=False
    ),
    "check_dictionaries of one": lambda g: ct.check_dictionaries(
        g.model, g.sae, g.texts, progress=False
    ),
    "n_prompts of numpy": lambda g: ct.eap(
        g.model, g.task, n_prompts=np.int64(4), batch_size=torch.tensor(2), progress=False
    ),
    "a strength of torch": lambda g: g.fit.circuit(torch.tensor(0.1), max_edges=np.int64(5)),
}


@pytest.mark.parametrize("probe", ACCEPTED)
def test_what_is_meant_is_accepted(g, probe):
    assert ACCEPTED[probe](g) is not None


@pytest.mark.parametrize("integer", [int, np.int64, np.int32, torch.tensor])
def test_integers_of_any_kind_name_the_same_units(g, integer):
    want = changed(g, ct.zero("head_out 1", heads=[2], positions=-1))
    got = changed(
        g, ct.zero(Site("head_out", integer(1)), heads=[integer(2)], positions=integer(-1))
    )
    assert torch.equal(want, got)
    want = changed(g, ct.put(SITE, 2.0, features=[FEATURE]), dictionaries=g.saes)
    one = ct.put(SITE, 2.0, features=integer(FEATURE))
    assert torch.equal(want, changed(g, one, dictionaries=g.sae.sae))
    alone = ct.intervene(g.model, g.texts, one, dictionaries=g.saes, progress=False)
    assert torch.equal(want, alone.logits)
    card = ct.feature_card(g.model, g.saes, (SITE, integer(FEATURE)), g.acts)
    assert card.name == f"{SITE}/{FEATURE}"
