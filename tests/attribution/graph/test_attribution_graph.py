"""The circuit of one prompt, of two, and of a task: what it draws, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.attribution.graph.engine import attribute
from circuit_toolkit.circuit.tables import ids_of
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from tests.dictionaries.published import about, family_model, write


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.ioi(demo, n=3)


@pytest.fixture(scope="module")
def short(demo):
    """Three prompts of six tokens: their whole graphs are small."""
    names = [("Emma", "Kate", "Roger"), ("Roger", "Yvonne", "Mary"), ("Mary", "John", "Emma")]
    return Task(
        "short",
        tuple(f"{a} and {b} left the" for a, b, _ in names),
        tuple(f"{a} and {c} left the" for a, _, c in names),
        tuple((demo.token_id(a),) for a, _, _ in names),
        tuple((demo.token_id(b),) for _, b, _ in names),
        positions={"first": (-5,) * 3, "second": (-3,) * 3},
    )


@pytest.fixture(scope="module")
def graph(demo, demo_transcoders, task):
    return ct.attribution_graph(demo, demo_transcoders, task.clean[0], progress=False)


def drawn(demo, demo_transcoders, prompt, **options):
    return ct.attribution_graph(demo, demo_transcoders, prompt, progress=False, **options)


def weights_of(circuit):
    ids, edges = circuit.ids(), circuit.edges
    return {(ids[s], ids[t]): w for s, t, w, *_ in edges.tolist()}


def test_the_circuit_is_the_pruned_graph(demo, demo_transcoders, task, graph, tmp_path):
    batch = demo.tokenize(task.clean[:1])
    full = attribute(demo, demo_transcoders, batch.ids[0])
    names, dense = ids_of(full.nodes), full.adjacency.toarray()
    row = {name: i for i, name in enumerate(names)}
    assert set(graph.ids()) <= {*names, *graph.ids()}
    for (source, target), weight in weights_of(graph).items():
        target = names[-1] if target.startswith("target") else target
        assert weight == pytest.approx(dense[row[target], row[source]], rel=1e-5)
    words = demo.words(batch)[0]
    tokens = graph.nodes[graph.nodes["kind"] == "token"]
    assert tokens["label"].tolist() == [word.strip() for word in words]
    assert tokens["index"].tolist() == batch.ids[0].tolist() == graph.settings["token_ids"]
    assert tokens["position"].tolist() == [str(i) for i in range(len(words))]
    scores = graph.nodes["score"]
    assert 0.8 <= scores[graph.nodes["kind"] != "target"].sum() <= 1
    site = Site("mlp_in", 3)
    acts = demo_transcoders[site].encode(run(demo, batch, [site])[site])[0]
    for node in graph.nodes[graph.nodes["site"] == str(site)]:
        of_feature = graph.settings["activations"][f"{site}/{node['index']}"]
        column = acts[1:, node["index"]]
        assert {int(at) for at in of_feature} == {int(at) + 1 for at in column.nonzero()[:, 0]}
        assert of_feature[node["position"]] == pytest.approx(float(node["activation"]), abs=1e-4)
        here = float(column[int(node["position"]) - 1])
        assert node["activation"] == pytest.approx(here, rel=1e-5)  # float32, two runs
    found = graph.evidence["attribution"]
    assert 0 < found["replacement"] < found["completeness"] < 1
    assert 0 < found["largest_error"] < 2e-5 and found["n"] == 1
    assert graph.settings["n_active"] == graph.settings["n_attributed"] == len(full.active)
    loaded = ct.Circuit.load(graph.save(tmp_path / "graph.json"))
    assert loaded.ids() == graph.ids() and loaded.settings == graph.settings
    np.testing.assert_array_equal(loaded.edges, graph.edges)


def test_a_share_of_1_keeps_all_and_enters_add_up(demo, demo_transcoders, short):
    circuit = drawn(demo, demo_transcoders, short.clean[0], node_share=1, edge_share=1)
    logits = run(demo, demo.tokenize(short.clean[:1]), [LOGITS])[LOGITS][0, -1]
    plain = circuit.nodes[-1]
    assert plain["activation"] == pytest.approx(
        float(logits[plain["index"]] - logits.mean()), rel=1e-5
    )
    full = attribute(demo, demo_transcoders, demo.tokenize(short.clean[:1]).ids[0])
    into = circuit.edges["weight"][circuit.edges["target"] == len(circuit.nodes) - 1]
    assert into.sum() + full.bias[-1] == pytest.approx(plain["activation"], rel=1e-4)
    usual = drawn(demo, demo_transcoders, short.clean[0])
    tested = usual.evidence | {"interventions": {"mean_change": 1}}
    few = usual.with_evidence(tested).prune(max_features=5)
    assert (few.nodes["kind"] != "target").sum() <= 5
    assert few.evidence == usual.evidence, "scores are of the graph before all pruning; tests not"


def test_targets(demo, demo_transcoders, short):
    prompt = short.clean[0]
    ids = demo.tokenize([prompt])
    logits = run(demo, ids, [LOGITS])[LOGITS][0, -1]
    p = logits.softmax(0)
    usual = drawn(demo, demo_transcoders, prompt)
    n = int((p.sort(descending=True).values.cumsum(0) < 0.95).sum()) + 1
    best = p.topk(min(n, 10)).indices.tolist()
    ends = usual.nodes[usual.nodes["kind"] == "target"]
    assert ends["index"].tolist() == best
    assert usual.settings["probabilities"] == pytest.approx(p[best].tolist(), rel=1e-4)
    two = [str(demo.tokenizer.decode([t])) for t in p.topk(2).indices.tolist()]
    named = drawn(demo, demo_transcoders, prompt, targets=two)
    assert named.settings["target"] == [word.strip() for word in two]
    numbers = drawn(demo, demo_transcoders, prompt, targets=p.topk(2).indices.tolist())
    assert numbers.ids() == named.ids()
    one = drawn(demo, demo_transcoders, prompt, targets=two[1], node_share=1, edge_share=1)
    both = {two[0]: 1, two[1]: -2.5}
    apart = drawn(demo, demo_transcoders, prompt, targets=both, node_share=1, edge_share=1)
    first = drawn(demo, demo_transcoders, prompt, targets=two[0], node_share=1, edge_share=1)
    name = f"logit({two[0].strip()}) - 2.5 logit({two[1].strip()})"
    assert apart.settings["target"] == [name] and apart.settings["probabilities"] == [1]
    assert apart.settings["directions"] == [[p.topk(2).indices.tolist(), [1, -2.5]]]
    a, b, c = (
        {s: w for (s, t), w in weights_of(each).items() if t.startswith("target")}
        for each in (first, one, apart)
    )
    for source in [*a][::50]:  # linear; float32 sums in another order
        assert c[source] == pytest.approx(a[source] - 2.5 * b[source], rel=1e-3, abs=1e-5)
    at = drawn(demo, demo_transcoders, prompt, position=3)
    assert at.nodes["position"][at.nodes["kind"] == "feature"].astype(int).max() <= 3
    there = run(demo, ids, [LOGITS])[LOGITS][0, 3]
    assert at.nodes["index"][-1] in there.topk(10).indices.tolist()
    negative = drawn(demo, demo_transcoders, prompt, position=3 - ids.ids.shape[1])
    assert negative.ids() == at.ids()


def test_the_difference_of_two_prompts_is_that_of_their_graphs(demo, demo_transcoders, short):
    whole = {"node_share": 1, "edge_share": 1}
    answer, wrong = (demo.tokenizer.decode(each[0]) for each in (short.answers, short.wrong))
    direction = {answer: 1, wrong: -1}
    clean, corrupted = short.clean[0], short.corrupted[0]
    a = drawn(demo, demo_transcoders, clean, targets=direction, **whole)
    b = drawn(demo, demo_transcoders, corrupted, targets=direction, **whole)
    found = drawn(demo, demo_transcoders, clean, pairs=corrupted, targets=direction, **whole)
    of_task = drawn(demo, demo_transcoders, short.select([0]), pairs=True, **whole)
    assert of_task.ids() == found.ids() and of_task.settings["corrupted"] == corrupted
    assert of_task.settings["task"] == "short" and of_task.settings["scope"] == "prompt"
    first, second, edges = weights_of(a), weights_of(b), weights_of(found)
    assert set(edges) <= {*first, *second}
    for pair in [*first, *second][::97]:
        expected = first.get(pair, 0) - second.get(pair, 0)
        assert edges.get(pair, 0) == pytest.approx(expected, abs=1e-5)
    value = {
        each: dict(zip(c.ids(), c.nodes["activation"].tolist(), strict=True))
        for each, c in (("a", a), ("b", b), ("found", found))
    }
    for name, got in value["found"].items():
        if not name.startswith("token"):
            expected = value["a"].get(name, 0) - value["b"].get(name, 0)
            assert got == pytest.approx(expected, abs=1e-5)
    same = drawn(demo, demo_transcoders, clean, pairs=clean, **whole)
    assert not len(same.edges) and not (same.nodes["kind"] == "feature").any()


def test_the_mean_graph_of_a_task_stands_at_named_positions(demo, demo_transcoders, short):
    whole = {"node_share": 1, "edge_share": 1}
    found = drawn(demo, demo_transcoders, short, **whole)
    assert found.settings["scope"] == "dataset" and found.settings["n"] == 3
    assert set(found.nodes["position"]) == {"", "other", "last", *short.positions}
    assert found.settings["target"] == ["logit difference"]
    singles = [drawn(demo, demo_transcoders, short.select([i]), **whole) for i in range(3)]
    assert singles[0].settings["target"][0].startswith("logit(")
    end = found.nodes["activation"][-1]
    scores = short.score(run(demo, demo.tokenize(short.clean), [LOGITS])[LOGITS][:, -1], range(3))
    assert end == pytest.approx(float(scores.mean()), rel=1e-4)
    total = {}
    for row, single in enumerate(singles):
        length = len(single.settings["tokens"])
        named = {length + ends[row]: name for name, ends in short.positions.items()}
        named[length - 1] = named.get(length - 1, "last")
        for (source, target), weight in weights_of(single).items():
            ends = []
            for name in (source, target):
                head, _, at = name.rpartition("@")
                place = named.get(int(at), "other") if head else ""
                head = f"token:{place}" if name.startswith("token") else head
                ends.append(f"{head}@{place}" if head else "target:logit difference")
            total[tuple(ends)] = total.get(tuple(ends), 0) + weight / 3
    edges = weights_of(found)
    assert set(edges) <= set(total)
    for pair in [*total][::211]:
        assert edges.get(pair, 0) == pytest.approx(total[pair], abs=1e-5)
    change = drawn(demo, demo_transcoders, short, pairs=True)
    gap = short.score(run(demo, demo.tokenize(short.corrupted), [LOGITS])[LOGITS][:, -1], range(3))
    assert change.nodes["activation"][-1] == pytest.approx(float((scores - gap).mean()), rel=1e-4)


def test_a_token_of_two_names_stands_under_the_first(demo, demo_transcoders, short):
    twice = replace(short, positions={"end": (-1,) * 3, **short.positions})
    found = drawn(demo, demo_transcoders, twice, max_features=50)
    assert "end" in found.nodes["position"] and "last" not in found.nodes["position"]


def test_a_metric_of_probabilities_is_explained_by_its_gradient(demo, demo_transcoders):
    task = ct.tasks.greater_than(demo, n=1)
    found = drawn(demo, demo_transcoders, task)
    assert found.settings["target"] == ["probability difference"]
    ((tokens, factors),) = found.settings["directions"]
    logits = run(demo, demo.tokenize(task.clean), [LOGITS])[LOGITS][:, -1]
    step = 1e-2 * torch.randn_like(logits)
    moved = task.metric_of((logits + step)[:, None].double(), [0])
    moved = moved - task.metric_of((logits - step)[:, None].double(), [0])
    linear = 2 * (step[0, tokens].double() * torch.tensor(factors)).sum()
    assert float(moved) == pytest.approx(float(linear), rel=1e-2)


def test_labels(demo, demo_transcoders, task):
    names = {
        site: [f"{site.short} {i}" for i in range(each.n_features)]
        for site, each in demo_transcoders.items()
        if site.layer < 3
    }
    found = drawn(demo, demo_transcoders, task.clean[0], labels=names)
    for node in found.nodes[found.nodes["kind"] == "feature"]:
        site = Site.parse(node["site"])
        name, _, place = node["label"].partition(" @")  # said where it is active at several tokens
        assert name == (f"{site.short} {node['index']}" if site.layer < 3 else "")
        assert place in ("", node["position"])


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ("the", {}, "is one token, 'the'"),
        ([1], {}, "is one token"),
        ("the brother zzz was", {}, "does not know 'zzz'"),
        ("", {}, "must be a text with words in it"),
        (3, {}, "prompt must be a text, a list of token ids or a task, got 3"),
        (None, {"position": 60}, "position is 60: the prompt has 22 tokens"),
        (None, {"position": -23}, "position is -23"),
        (None, {"targets": "the brother"}, "must be one known token"),
        (None, {"targets": []}, "at least one"),
        (None, {"targets": ["to", "to"]}, "different tokens"),
        (None, {"targets": 5000}, "numbers? from 0 to 1219"),
        (None, {"targets": {"to": float("nan")}}, "targets\\['to'\\] must be in"),
        (None, {"targets": 1.5}, "A target is a token"),
        (None, {"pairs": True}, "pairs=True is for a task"),
        (None, {"pairs": "the brother was"}, "differ|do not correspond"),
        (None, {"node_share": 1.2}, "node_share must be in"),
        (None, {"max_features": 0}, "max_features must be at least 1"),
    ],
)
def test_what_makes_no_graph_is_refused(demo, demo_transcoders, task, prompt, options, message):
    prompt = task.clean[0] if prompt is None else prompt
    with pytest.raises(InputError, match=message) as error:
        drawn(demo, demo_transcoders, prompt, **options)
    assert "\n" not in str(error.value)


def test_tasks_that_make_no_graph_are_refused(demo, demo_transcoders, task):
    with pytest.raises(InputError, match="pass pairs=True"):
        drawn(demo, demo_transcoders, task, pairs=task.corrupted[0])
    with pytest.raises(InputError, match="has no corrupted prompts"):
        drawn(demo, demo_transcoders, replace(task, corrupted=()), pairs=True)
    bare = replace(task, metric=None, answers=(), wrong=(), labels={"a": ("x",) * 3})
    with pytest.raises(InputError, match="labels alone: say which targets"):
        drawn(demo, demo_transcoders, bare)
    assert drawn(demo, demo_transcoders, bare, targets="the").settings["target"] == ["the"]


def test_transcoders_of_another_model_are_refused(demo, demo_transcoders, tmp_path):
    other = family_model("gpt2")
    metadata = about(other, str(Site("mlp_in", 1)), str(Site("mlp_out", 1)))
    write(tmp_path, "transcoder", other.width, metadata)
    foreign = ct.load_dictionaries(other, tmp_path, kind="transcoder")
    with pytest.raises(MismatchError, match="is bound to another model"):
        drawn(demo, foreign, "the brother was")
    foreign = {site: replace(each, of=None) for site, each in foreign.items()}
    with pytest.raises(MismatchError, match="is of another model: it reads mlp_in 1 with width"):
        drawn(demo, foreign, "the brother was")
    with pytest.raises(MismatchError, match="is bound to another model"):
        ct.attribution_graph(other, demo_transcoders, "the old cat sat", progress=False)
