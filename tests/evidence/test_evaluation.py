"""Evidence by ablation: planted circuits carry the metric, random ones do not."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

import circuit_toolkit as ct
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence import evaluate, random_features
from circuit_toolkit.evidence.evaluation import share_kept
from circuit_toolkit.evidence.intervals import bootstrap
from circuit_toolkit.head_codes.fit import head_nodes
from circuit_toolkit.interventions import intervene, put, resample
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task, ioi
from tests.tiny import FEATURES, LAYERS, WIDTH, last_logits, task_it_does, tiny_hf

SITE = Site("resid_post", LAYERS - 1)
ABOUT = {"evaluated_on", "ablation", "ablated_positions", "errors", "unit", "size", "random_seed"}
METRICS = {"metric_model", "metric_empty", "metric_circuit", "metric_others"}
SHARES = {"faithfulness", "completeness", "random_faithfulness", "random_completeness"}
SHARES |= {"faithfulness_interval", "completeness_interval"}


def circuit_of(features):
    rows = [(str(site), i) for site, chosen in features.items() for i in chosen]
    sites, numbers = zip(*rows, strict=True) if rows else ((), ())
    inner = new_nodes(len(rows), site=sites, index=numbers, activation=1, score=1)
    nodes = np.concatenate([inner, new_nodes(1, TARGET, score=1, label="m")])
    n = len(rows)
    edges = new_edges(n, source=np.arange(n), target=n, weight=1, score=1)
    return Circuit(nodes, edges, {"method": "made up"}, {"fit": {"held_out_r2": 0.5}})


@pytest.fixture(scope="module")
def planted(tiny):
    """A task whose metric is read off one direction, and a dictionary with that direction."""
    module = tiny_hf()
    texts = list(ioi(tiny, n=60, seed=0).clean)
    logits = torch.stack([last_logits(module, text) for text in texts])  # (60, V)
    right = tiny.token_id("Mary")
    differences = logits[:, [right]] - logits
    differences[:, right] = torch.nan  # the other word: one that is as often the likelier
    ratio = (differences.mean(0).abs() / differences.std(0)).nan_to_num(nan=torch.inf)
    wrong = int(ratio.argmin())
    scores = differences[:, wrong].numpy()
    order = np.argsort(-scores)
    clean, twins = order[:30], order[30:]
    head, norm = module.lm_head.weight, module.transformer.ln_f.weight
    d = (head[right] - head[wrong]) * norm
    d = (d - d.mean()).detach()
    torch.manual_seed(0)
    Q = torch.linalg.qr(torch.cat([d[:, None], torch.randn(WIDTH, WIDTH - 1)], 1)).Q  # (D, D)
    sae = StandardSAE(StandardSAEConfig(d_in=WIDTH, d_sae=2 * WIDTH))
    with torch.no_grad():  # both signs of each direction: relu(x q) q - relu(-x q) q = x
        sae.W_enc.copy_(torch.cat([Q, -Q], 1))
        sae.W_dec.copy_(torch.cat([Q, -Q], 1).T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    task = Task(
        "direction",
        tuple(texts[i] for i in clean),
        tuple(texts[i] for i in twins),
        ((right,),) * 30,
        ((wrong,),) * 30,
    )
    saes = {SITE: Dictionary(sae.eval().requires_grad_(False), SITE, SITE, "both signs")}
    return task, saes, capture(tiny, saes, task, progress=False)


def found_by(circuit, model, *args, **options):
    return evaluate(circuit, model, *args, progress=False, **options).evidence["ablation"]


def test_the_direction_that_is_read_carries_the_metric_and_others_do_not(tiny, planted):
    task, saes, acts = planted
    circuit = circuit_of({SITE: [0, WIDTH]})
    found = found_by(circuit, tiny, saes, task, acts.pooled("last"), draws=20)
    alone, without = found["random_faithfulness"], found["random_completeness"]
    assert found["faithfulness"] > 0.5 > 3 * abs(np.mean(alone))
    assert found["completeness"] < 0.5 < 1 - 3 * abs(1 - np.mean(without))
    assert found["faithfulness"] > max(alone) and found["completeness"] < min(without)
    assert found["metric_model"] == pytest.approx(acts.metric[:30].mean(), rel=1e-4)
    assert found["evaluated_on"]["n"] == 30 and found["size"] == 2
    assert found["ablated_positions"] == "last"


@pytest.fixture(scope="module")
def easy(tiny, tiny_saes):
    task = task_it_does(list(ioi(tiny, n=12, seed=1).clean))
    return task, capture(tiny, tiny_saes, task, progress=False)


@pytest.fixture(scope="module")
def some(easy):
    """A circuit of five features at each of three sites, learnt on the task."""
    _, acts = easy
    chosen = {site: np.unique(acts.features[site].indices)[3:8] for site in acts.sites[:3]}
    circuit = circuit_of(chosen)
    return replace(circuit, settings={"trained_on": acts.settings["trained_on"]})


def test_shares_are_those_of_interventions_by_hand(tiny, tiny_saes, easy, some):
    task, acts = easy
    found = found_by(some, tiny, tiny_saes, task, acts, draws=3)
    means, sites = acts.means(), list(some.features())

    def metric(kept):
        """The metric with all features but those kept set to their means, site by site."""
        changes = []
        for site in sites:
            ablated = np.setdiff1d(np.arange(FEATURES), kept.get(site, []))
            changes.append(put(site, means[site][ablated], features=ablated))
        outcome = intervene(tiny, task, changes, dictionaries=tiny_saes).metric
        return float(outcome.double().mean())

    every = {site: np.arange(FEATURES) for site in sites}
    own = some.features()
    others = {site: np.setdiff1d(every[site], own[site]) for site in sites}
    full = float(intervene(tiny, task, []).metric.double().mean())
    empty = metric({})
    raw = {"model": full, "empty": empty, "circuit": metric(own), "others": metric(others)}
    for name, value in raw.items():
        assert found[f"metric_{name}"] == pytest.approx(value, abs=1e-5)
    share = {name: (value - empty) / (full - empty) for name, value in raw.items()}
    assert found["faithfulness"] == pytest.approx(share["circuit"], abs=1e-5)
    assert found["completeness"] == pytest.approx(share["others"], abs=1e-5)
    rng = np.random.default_rng(0)
    drawn = [random_features(acts, own, rng) for _ in range(3)]
    alone = [(metric(each) - empty) / (full - empty) for each in drawn]
    assert found["random_faithfulness"] == pytest.approx(alone, abs=1e-5)
    assert metric(every) == pytest.approx(full, abs=1e-5)


def test_all_features_are_faithful_and_complete_and_so_are_random_sets(tiny, tiny_saes, easy):
    task, acts = easy
    every = {site: np.arange(FEATURES) for site in acts.sites}
    circuit = evaluate(circuit_of(every), tiny, tiny_saes, task, fires_all(acts), draws=2)
    found = circuit.evidence["ablation"]
    assert set(found) == ABOUT | METRICS | SHARES
    for faithful in (found["faithfulness"], *found["random_faithfulness"]):
        assert faithful == pytest.approx(1, abs=1e-5)
    for left in (found["completeness"], *found["random_completeness"]):
        assert left == pytest.approx(0, abs=1e-5)
    assert len(found["random_faithfulness"]) == len(found["random_completeness"]) == 2
    assert found["metric_model"] - found["metric_empty"] > 0.05
    assert (found["ablation"], found["ablated_positions"]) == ("mean", "all")
    assert (found["errors"], found["unit"]) == ("kept", "feature")
    assert circuit.evidence["fit"] == {"held_out_r2": 0.5}  # what was known stays


def fires_all(acts):
    """Activations in which every feature is active, with the means of others."""
    features = {}
    for site, matrix in acts.features.items():
        dense = matrix.toarray()
        dense[0][dense[0] == 0] = 1e-6
        features[site] = sp.csr_array(dense)
    return replace(acts, features=features)


def test_draws_are_seeded_and_as_many_as_asked(tiny, tiny_saes, easy, some):
    task, acts = easy

    def drawn(**settings):
        return found_by(some, tiny, tiny_saes, task, acts, n_prompts=5, **settings)

    one, again = drawn(draws=3), drawn(draws=np.int64(3))
    assert one == again and one["evaluated_on"]["n"] == 5
    assert one["random_faithfulness"] != drawn(draws=3, seed=1)["random_faithfulness"]


def test_evidence_says_which_prompts_it_was_measured_on(tiny, tiny_saes, easy, some):
    task, acts = easy
    on = found_by(some, tiny, tiny_saes, task, acts, draws=1, n_prompts=4)["evaluated_on"]
    assert on == {
        **{"task": "easy", "metric": "logit_difference", "split": "training", "seed": None},
        **{"n": 4, "unsolved": 0, "seen": 4, "model": tiny.name},
    }
    again = Task("new", task.clean, (), task.answers, task.wrong, split="held-out")  # it is not
    on = found_by(some, tiny, tiny_saes, again, acts, draws=1, n_prompts=4)["evaluated_on"]
    assert (on["task"], on["split"], on["seen"]) == ("new", "training", 4)
    other = task_it_does([f"{text} a" for text in task.clean[:3]] + list(task.clean[:2]))
    on = found_by(some, tiny, tiny_saes, other, acts, draws=1)["evaluated_on"]
    assert (on["split"], on["seen"], on["n"]) == ("training", 2, 5)
    fresh = replace(other.subset(3), split="held-out", seed=7)
    on = found_by(some, tiny, tiny_saes, fresh, acts, draws=1)["evaluated_on"]
    assert (on["split"], on["seen"], on["seed"]) == ("held-out", 0, 7)
    untold = replace(some, settings={})
    on = found_by(untold, tiny, tiny_saes, fresh, acts, draws=1)["evaluated_on"]
    assert (on["split"], on["seen"]) == ("held-out", None)


def test_circuits_know_what_they_were_learnt_on_and_no_key_has_two_meanings(demo, demo_saes):
    task, held_out = (ct.tasks.agreement(demo, n=40, seed=s, test=s == 1) for s in (0, 1))
    assert task.record() == {
        **{"task": "agreement", "metric": "logit_difference", "split": "training"},
        **{"seed": 0, "n": 40, "unsolved": 0},
    }
    saes = dict(list(demo_saes.items())[-2:])
    fit = ct.CircuitLasso(min_active=5).fit(ct.capture(demo, saes, task, progress=False), task)
    circuit = evaluate(fit.circuit(0.3), demo, saes, held_out, draws=1, n_prompts=9)
    learnt = circuit.settings["trained_on"]
    assert {key: learnt[key] for key in task.record()} == task.record()
    found = circuit.evidence["ablation"]
    assert found["evaluated_on"]["split"] == "held-out" and found["evaluated_on"]["seen"] == 0
    assert found["ablated_positions"] == "last"  # those of the fit
    assert not {*circuit.settings} & {*circuit.evidence, *found, *circuit.evidence["fit"]}
    trained = found_by(fit.circuit(0.3), demo, saes, task.select([7, 2, 4]), draws=1)
    assert trained["evaluated_on"]["seen"] == 3
    heads = ct.HeadCodes(n_seeds=1, steps=2).fit(
        ct.capture(demo, "head_out", task, "last", progress=False), task
    )
    assert heads.predict(n_heads=3).settings["trained_on"] == learnt
    edges = ct.eap(demo, task, n_prompts=8).settings
    assert edges["trained_on"]["n"] == 8


def test_random_features_are_active_ones_as_many_a_site(easy):
    _, acts = easy
    like = {acts.sites[0]: np.arange(5), acts.sites[2]: np.arange(9)}
    drawn = random_features(acts, like, np.random.default_rng(0))
    assert list(drawn) == list(like)
    for site, features in drawn.items():
        assert len(set(features.tolist())) == len(like[site])
        assert set(features.tolist()) <= set(acts.features[site].indices.tolist())
    with pytest.raises(InputError, match="are to be drawn. Capture more prompts"):
        random_features(acts, {acts.sites[0]: np.arange(FEATURES + 1)}, np.random.default_rng(0))
    with pytest.raises(InputError, match="was not captured"):
        random_features(acts, {Site("resid_mid", 0): [1]}, np.random.default_rng(0))


def test_what_cannot_be_tested_is_refused(tiny, tiny_saes, easy, some):
    task, acts = easy
    with pytest.raises(InputError, match="is empty: choose a smaller strength"):
        evaluate(circuit_of({}), tiny, tiny_saes, task, acts)
    worse = Task("hard", task.clean, (), task.wrong, task.answers)
    with pytest.raises(InputError, match="does 'hard' no better than with every feature ablated"):
        evaluate(some, tiny, tiny_saes, worse, acts)
    for settings in ({"draws": 0}, {"n_prompts": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            evaluate(some, tiny, tiny_saes, task, acts, **settings)
    site = acts.sites[0]
    without = replace(acts, features={site: acts.features[site]})
    with pytest.raises(InputError, match="was not captured"):
        evaluate(some, tiny, tiny_saes, task, without)
    with pytest.raises(InputError, match="No dictionary was given for"):
        evaluate(some, tiny, {site: tiny_saes[site]}, task)
    with pytest.raises(InputError, match="needs the dictionaries"):
        evaluate(some, tiny, None, task)
    with pytest.raises(InputError, match="labels alone"):
        evaluate(some, tiny, tiny_saes, replace(task, metric=None, answers=(), wrong=()))
    for swapped in ((tiny, some, tiny_saes, task), (some, tiny_saes, tiny, task)):
        with pytest.raises(InputError, match="must be a (Circuit|Model), got a"):
            evaluate(*swapped)
    with pytest.raises(InputError, match="task must be a Task"):
        evaluate(some, tiny, tiny_saes, list(task.clean))


# --- heads and components ---

TEXTS = ["when Mary and John went to the store, John gave a drink to", "the boys near the cabinet"]
# The last word stays, so that all that its stream learns of the corrupted prompt comes through
# heads.
CORRUPTED = [
    "when Tom and Anna went to the store, Anna gave a ring to",
    "the girl under the cabinet",
]


def of_heads(*heads: tuple[int, int]) -> Circuit:
    nodes = head_nodes(heads, [1.0] * len(heads), "target")
    return Circuit(nodes, new_edges(0), {})


@pytest.fixture(scope="module")
def pairs() -> Task:
    return task_it_does(TEXTS, CORRUPTED)


def outcome(model, task, *heads, draws=2, **options):
    return found_by(of_heads(*heads), model, None, task, draws=draws, **options)


def test_completeness_of_one_head_is_what_replacing_it_alone_leaves(tiny, pairs):
    def metric(*heads):
        layers = {layer: [h for at, h in heads if at == layer] for layer, _ in heads}
        changes = [
            resample(Site("head_out", layer), heads=these) for layer, these in layers.items()
        ]
        return float(intervene(tiny, pairs, changes).metric.double().mean())

    full, empty = metric(), metric(*np.ndindex(3, 4))
    for head in ((0, 1), (2, 3)):
        found = outcome(tiny, pairs, head)
        assert found["metric_others"] == pytest.approx(metric(head), abs=1e-4)
        expected = (metric(head) - empty) / (full - empty)
        assert found["completeness"] == pytest.approx(expected, abs=1e-3)


def test_all_heads_carry_all_that_the_last_token_knows(tiny, pairs):
    found = outcome(tiny, pairs, *np.ndindex(3, 4))
    corrupted = intervene(tiny, list(pairs.corrupted), []).logits
    score = float(pairs.score(corrupted, range(2, 4)).mean())
    assert found["metric_empty"] == pytest.approx(score, abs=1e-3)  # nothing else is left
    assert found["faithfulness"] == pytest.approx(1, abs=1e-3)  # no other head is replaced
    assert found["completeness"] == pytest.approx(0, abs=1e-3)
    assert found["random_faithfulness"] == pytest.approx([1, 1], abs=1e-3)
    assert found["random_completeness"] == pytest.approx([0, 0], abs=1e-3)


def test_a_circuit_is_as_complete_as_all_else_is_faithful(tiny, pairs):
    some = [(0, 0), (0, 1), (1, 3), (2, 0), (2, 2)]
    others = [head for head in np.ndindex(3, 4) if head not in some]
    first, second = outcome(tiny, pairs, *some), outcome(tiny, pairs, *others)
    assert first["completeness"] == pytest.approx(second["faithfulness"], abs=1e-4)
    assert second["completeness"] == pytest.approx(first["faithfulness"], abs=1e-4)


def test_heads_have_the_keys_of_features_and_a_circuit_shows_the_outcome(tiny, pairs):
    one, again = (outcome(tiny, pairs, (0, 1), (1, 1)) for _ in range(2))
    other = outcome(tiny, pairs, (0, 1), (1, 1), seed=1)
    assert one == again and one["random_faithfulness"] != other["random_faithfulness"]
    assert set(one) == ABOUT | METRICS | SHARES
    assert (one["ablation"], one["unit"], one["size"]) == ("resample", "head", 2)
    assert (one["errors"], one["ablated_positions"]) == (None, "all")
    circuit = evaluate(of_heads((0, 1)), tiny, None, pairs, draws=2, n_prompts=1)
    assert circuit.evidence["ablation"]["evaluated_on"]["n"] == 1
    assert "resample ablation at all tokens of 1 easy prompt of unknown split" in repr(circuit)
    assert circuit.nodes["label"].tolist() == ["a0.h1", "target"]


def test_the_head_that_reads_the_subject_is_what_agreement_needs(demo):
    task = ct.tasks.agreement(demo, n=24, seed=3, test=True)
    found = outcome(demo, task, (3, 3), (4, 3), (5, 2), draws=4)
    assert found["completeness"] < 0.2 < 0.7 < np.mean(found["random_completeness"])
    assert found["evaluated_on"]["split"] == "held-out" and found["evaluated_on"]["seed"] == 3


def test_what_is_no_circuit_of_heads_is_refused(tiny, pairs):
    circuit = of_heads((0, 1), (1, 2))
    nodes = circuit.nodes.copy()
    nodes["site"][0] = str(Site("resid_post", 0))
    with pytest.raises(InputError, match="is empty"):
        evaluate(of_heads(), tiny, None, pairs)
    with pytest.raises(InputError, match="needs the dictionaries"):
        evaluate(replace(circuit, nodes=nodes), tiny, None, pairs)
    with pytest.raises(InputError, match="no head"):
        evaluate(of_heads((0, 7)), tiny, None, pairs)
    with pytest.raises(InputError, match="no corrupted prompts"):
        evaluate(circuit, tiny, None, task_it_does(TEXTS))
    backwards = Task("easy", tuple(CORRUPTED), tuple(TEXTS), pairs.answers, pairs.wrong)
    with pytest.raises(InputError, match="no better than with every head ablated"):
        evaluate(circuit, tiny, None, backwards)


def test_edges_between_components_have_the_same_shares_and_keys(tiny, pairs):
    """The oracle patches sets of edges, through other code."""
    whole, graph = ct.eap(tiny, pairs), graph_of(tiny)
    circuit = whole.prune(max_edges=9)
    names = [*circuit.nodes["label"][:-1].tolist(), "logits"]
    own = [(names[source], names[target]) for source, target, *_ in circuit.edges.tolist()]
    others = [edge for edge in graph.edges if edge not in own]
    found = found_by(circuit, tiny, None, pairs, draws=2)
    assert set(found) == ABOUT | METRICS | SHARES
    assert (found["unit"], found["size"]) == ("edge", len(own))
    effects = patching_effects(tiny, pairs, [others, own, graph.edges]).mean(0).tolist()
    whole_effect = effects[2]
    assert found["metric_empty"] - found["metric_model"] == pytest.approx(whole_effect, abs=1e-4)
    assert found["faithfulness"] == pytest.approx(1 - effects[0] / whole_effect, abs=1e-3)
    assert found["completeness"] == pytest.approx(1 - effects[1] / whole_effect, abs=1e-3)
    every = component_circuit(graph, np.ones(graph.allowed.shape), {})
    found = found_by(every, tiny, None, pairs, draws=1)
    assert [found["faithfulness"], *found["random_faithfulness"]] == pytest.approx([1, 1])
    assert [found["completeness"], *found["random_completeness"]] == pytest.approx([0, 0])
    with pytest.raises(InputError, match="is empty: it has no edges"):
        evaluate(component_circuit(graph, np.zeros(graph.allowed.shape), {}), tiny, None, pairs)


def test_where_some_draws_lose_nothing_no_interval_is_told():
    kept = np.array([[3.0, 4.0, 2.0], [1.0, 1.0, 1.0]])  # on the second prompt nothing is ablated
    found = bootstrap(kept, share_kept)
    assert found.value == pytest.approx(0.5) and np.isnan([found.low, found.high]).all()
