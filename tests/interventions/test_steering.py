"""Steering a graph is intervening on its features at their tokens, and nothing more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuit_toolkit.attribution.graph import attribution_graph
from circuit_toolkit.circuit import TARGET, Circuit, new_edges, new_nodes
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.interventions import intervene, intervene_each, put, scale, steer, zero
from circuit_toolkit.models import Batch, run
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi
from tests.circuit.made_up import made_up_circuit

LAYERS = (1, 5)


@pytest.fixture(scope="module")
def prompt(demo):
    return ioi(demo, n=1, seed=3).clean[0]


def logits_of(model, ids) -> torch.Tensor:
    """Logits (V,) of the plain model."""
    with torch.no_grad():
        return model.hf(torch.tensor([ids])).logits[0, -1]


@pytest.fixture(scope="module")
def graph(demo, demo_transcoders, prompt) -> Circuit:
    """Three strong features of two layers, an error, the words, and two targets, by hand."""
    batch = demo.tokenize([prompt], bos=True)
    ids, words = batch.ids[0].tolist(), demo.words(batch)[0]
    numbers = [str(i) for i in range(len(ids))]
    tables = [new_nodes(len(ids), "token", position=numbers, index=ids, label=words, activation=1)]
    for layer in LAYERS:
        site = Site("mlp_in", layer)
        acts = demo_transcoders[site].encode(run(demo, batch, [site])[site])[0]
        at = [4, len(ids) - 1, len(ids) - 1]
        index = [int(acts[4].argmax()), *sorted(acts[-1].topk(2).indices.tolist())]
        tables.append(
            new_nodes(
                3,
                site=str(site),
                position=[str(i) for i in at],
                index=index,
                activation=acts[at, index].numpy(),
            )
        )
    tables.append(new_nodes(1, "error", site=str(Site("mlp_out", 5)), position="4", label="error"))
    logits = logits_of(demo, ids)
    top = logits.topk(2).indices.tolist()
    plain = logits - logits.mean()
    ends = new_nodes(2, TARGET, label=["first", "difference"], index=[top[0], 0])
    ends["activation"] = [plain[top[0]], plain[top[0]] - plain[top[1]]]
    nodes = np.concatenate([*tables, ends])
    settings = {
        **{"method": "by hand", "level": "features", "scope": "prompt", "model": "demo"},
        **{"prompt": prompt, "tokens": words, "token_ids": ids},
        "transcoders": {str(site): each.source for site, each in demo_transcoders.items()},
        "directions": [[[top[0]], [1.0]], [top, [1.0, -1.0]]],
    }
    circuit = Circuit(nodes, new_edges(0), settings)
    features = [each for each in circuit.ids() if "ln2" in each]
    return circuit.group("early", features[:3]).group("mixed", [features[3], circuit.ids()[0]])


def features_of(graph) -> list[tuple[str, Site, int, int, float]]:
    rows = graph.nodes[["site", "position", "index", "activation"]].tolist()
    return [
        (name, Site.parse(site), int(position), index, activation)
        for name, (site, position, index, activation) in zip(graph.ids(), rows, strict=True)
        if "ln2" in site
    ]


def hooks_on(block, sae, changes):
    """Hooks that multiply features of a transcoder, with its formula written out."""
    held = []

    def look(_, args):
        held.append(args[0])

    def write(_, __, out):
        x, out = held.pop(), out.clone()
        x = x - x.mean(-1, keepdim=True)
        seen = x / (x.var(-1, unbiased=False, keepdim=True) + block.ln_2.eps).sqrt()
        acts = sae.encode(seen)[0]
        for position, index, factor in changes:
            out[0, position] += (factor - 1) * acts[position, index] * sae.W_dec[index]
        return out

    return block.ln_2.register_forward_pre_hook(look), block.mlp.register_forward_hook(write)


def by_hooks(model, transcoders, graph, factors, ids=None) -> torch.Tensor:
    """Logits (V,) with features multiplied, by PyTorch alone."""
    handles = []
    for layer in LAYERS:
        changes = [
            (position, index, factors[name])
            for name, site, position, index, _ in features_of(graph)
            if site.layer == layer and name in factors
        ]
        sae = transcoders[Site("mlp_in", layer)].sae
        handles += hooks_on(model.hf.transformer.h[layer], sae, changes)
    try:
        return logits_of(model, ids or graph.settings["token_ids"])
    finally:
        for handle in handles:
            handle.remove()


def quick(model, graph, changes, **options):
    options = {"random_sets": 0, "max_new_tokens": 0, "progress": False} | options
    return steer(model, graph, changes, **options)


def test_steering_is_what_plain_hooks_do(demo, demo_transcoders, graph):
    names = [name for name, *_ in features_of(graph)]
    found = quick(demo, graph, {"early": 0, names[3]: 2.5})
    factors = dict.fromkeys(names[:3], 0.0) | {names[3]: 2.5}
    want = by_hooks(demo, demo_transcoders, graph, factors)
    torch.testing.assert_close(found.logits_after, want, rtol=1e-4, atol=1e-4)  # float32
    plain = logits_of(demo, graph.settings["token_ids"])
    torch.testing.assert_close(found.logits_before, plain, rtol=1e-4, atol=1e-4)
    assert (want - plain).abs().max() > 0.02
    assert found.changes["id"].tolist() == names[:4]
    assert found.changes["value"].tolist() == [0, 0, 0, 2.5]
    np.testing.assert_allclose(
        found.changes["activation"], [each[-1] for each in features_of(graph)[:4]], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("given", "make"),
    [
        (("put", 3.0), lambda *at, **units: put(*at, 3.0, **units)),
        (["scale", np.float32(2)], lambda *at, **units: scale(*at, 2, **units)),
        (torch.tensor(-1), lambda *at, **units: scale(*at, -1, **units)),
    ],
)
def test_steering_is_what_intervene_does(demo, demo_transcoders, graph, given, make):
    for name, site, position, index, _ in features_of(graph):
        change = make(site, features=[index], positions=position)
        ids = [graph.settings["token_ids"]]
        want = intervene(demo, ids, change, dictionaries=demo_transcoders, progress=False)
        for dictionaries in (None, demo_transcoders):
            found = quick(demo, graph, {name: given}, dictionaries=dictionaries)
            torch.testing.assert_close(found.logits_after, want.logits[0], rtol=1e-4, atol=1e-4)


def test_a_factor_of_one_changes_nothing(demo, graph):
    found = quick(demo, graph, {"early": 1, features_of(graph)[4][0]: 1.0}, max_new_tokens=4)
    assert torch.equal(found.logits_before, found.logits_after)
    assert found.before == found.after != ""
    assert (found.targets["before"] == found.targets["after"]).all()


def test_targets_are_logits_without_their_mean(demo, demo_transcoders, graph):
    found = quick(demo, graph, {"early": 0})
    logits = torch.stack([found.logits_before, found.logits_after]).double()
    logits = logits - logits.mean(1, keepdim=True)
    one, two = graph.settings["directions"][1][0]
    for name, values in zip(("before", "after"), logits, strict=True):
        want = [values[one], values[one] - values[two]]
        np.testing.assert_allclose(found.targets[name], want, rtol=1e-6)
    np.testing.assert_allclose(found.targets["before"], graph.nodes["activation"][-2:], rtol=1e-4)
    assert found.targets["target"].tolist() == ["first", "difference"]
    assert list(found.targets) == ["target", "before", "after"]  # no random sets


def test_the_top_tokens_are_those_of_both_runs(demo, graph):
    found = quick(demo, graph, {"early": -3})
    p = torch.stack([found.logits_before, found.logits_after]).softmax(1)
    best = {demo.tokenizer.decode([token]) for token in p.topk(5).indices.flatten().tolist()}
    assert (
        set(found.top_tokens["token"]) == best and found.top_tokens["after"].is_monotonic_decreasing
    )
    for row in found.top_tokens.itertuples():
        assert [row.before, row.after] == pytest.approx(p[:, row.id].tolist())


def test_the_continuation_is_steered_at_the_prompts_tokens(demo, demo_transcoders, graph):
    """Token by token by hooks, whose tokens are counted from the beginning."""
    factors = {name: 20.0 for name, *_ in features_of(graph)}
    found = quick(demo, graph, factors, max_new_tokens=5)
    ids = list(graph.settings["token_ids"])
    n = len(ids)
    while len(ids) < n + 5 and ids[-1] != demo.tokenizer.eos_token_id:
        ids.append(int(by_hooks(demo, demo_transcoders, graph, factors, ids).argmax()))
    ids = [token for token in ids[n:] if token != demo.tokenizer.eos_token_id]
    assert found.after == demo.tokenizer.decode(ids) and len(ids) > 1
    assert found.before != found.after
    assert quick(demo, graph, factors).after == ""


def test_random_sets_are_of_the_same_sites_and_active(demo, demo_transcoders, graph, monkeypatch):
    drawn = []

    def seen(model, prompts, interventions, **options):
        drawn.extend(interventions)
        return intervene_each(model, prompts, interventions, **options)

    monkeypatch.setattr("circuit_toolkit.interventions.steering.intervene_each", seen)
    name = features_of(graph)[3][0]
    found = quick(demo, graph, {"early": 0, name: ("put", 2.0)}, random_sets=8, seed=4)
    ids = graph.settings["token_ids"]
    batch = Batch(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
    acts = {
        site: demo_transcoders[site].encode(run(demo, batch, [site])[site])[0]
        for site in (Site("mlp_in", 1), Site("mlp_in", 5))
    }
    steered = {(site, position, index) for _, site, position, index, _ in features_of(graph)[:4]}
    none, wanted, *sets = drawn
    assert none == [] and len(wanted) == 4 and len(sets) == 8
    for each in sets:
        here = {(c.site, c.positions, int(c.features[0])) for c in each}
        assert len(here) == 4 and not here & steered
        assert [c.site.layer for c in each] == [1, 1, 1, 5]
        assert [(c.how, c.value) for c in each] == [("scale", 0)] * 3 + [("put", 2)]
        assert all(acts[site][at, index] > 0 and at > 0 for site, at, index in here)
    assert len({str(sorted((c.positions, c.features[0]) for c in each)) for each in sets}) > 1
    assert found.random_targets.shape == (8, 2)
    again = quick(demo, graph, {"early": 0, name: ("put", 2.0)}, random_sets=8, seed=4)
    np.testing.assert_array_equal(again.random_targets, found.random_targets)
    first = intervene(demo, [ids], sets[0], dictionaries=demo_transcoders, progress=False)
    plain = first.logits[0].double() - first.logits[0].double().mean()
    token = graph.settings["directions"][0][0][0]
    assert found.random_targets[0, 0] == pytest.approx(float(plain[token]), rel=1e-4)
    table = found.targets
    np.testing.assert_allclose(table["random"], found.random_targets.mean(0))
    assert (table["random_low"] <= table["random"]).all()
    assert (table["random"] <= table["random_high"]).all()
    assert repr(found).startswith("<Steering of 4 features: first ")
    assert "(8 random sets: " in repr(found) and "\n" not in repr(found)


def test_a_graph_of_another_token_than_the_last_is_steered_there(demo, demo_transcoders, graph):
    """What comes after the token that is explained does not matter."""
    ids = graph.settings["token_ids"]
    settings = graph.settings | {"token_ids": [*ids, ids[4]], "position": len(ids) - 1}
    settings["tokens"] = [*settings["tokens"], settings["tokens"][4]]
    longer = replace(graph, settings=settings)
    one, two = (quick(demo, each, {"early": 0}) for each in (graph, longer))
    torch.testing.assert_close(one.logits_after, two.logits_after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pairs", [False, True])
def test_an_attribution_graph_is_steered_as_it_is_drawn(demo, demo_transcoders, pairs, tmp_path):
    """Also after its file, with dictionaries from where it says, and of a difference of prompts."""
    task = ioi(demo, n=1, seed=3)
    graph = attribution_graph(demo, demo_transcoders, task, pairs=pairs, progress=False)
    table = graph.node_table()
    best = table[table["kind"] == "feature"].nlargest(20, "score")["id"]
    graph = Circuit.load(graph.group("best", best).save(tmp_path / "graph.json"))
    found = quick(demo, graph, {"best": 0}, random_sets=5)
    changes = [
        zero(site, features=[index], positions=position)
        for name, site, position, index, _ in features_of(graph)
        if name in set(best)
    ]
    want = intervene(demo, task, changes, dictionaries=demo_transcoders, progress=False)
    torch.testing.assert_close(found.logits_after, want.logits[0], rtol=1e-4, atol=1e-4)
    row = found.targets.iloc[0]  # the difference of the answers' logits
    assert row["after"] == pytest.approx(float(want.metric[0]), rel=1e-4)
    before = float(task.score(found.logits_before[None], [0])[0])
    assert row["before"] == pytest.approx(before, rel=1e-4)
    if not pairs:
        assert row["before"] == pytest.approx(graph.nodes["activation"][-1], rel=1e-4)
    assert abs(row["before"] - row["after"]) > abs(row["before"] - row["random"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "changes must be a dict .* got a dict of 0"),
        ([("early", 0)], "changes must be a dict"),
        ({"earl": 0}, "no node or supernode 'earl'. Nearest: early"),
        ({3: 0}, "no node or supernode 3"),
        ({"target:first": 0}, "is of kind target: only features at tokens can be steered, 6 here"),
        ({"mixed": 0}, "is of kind token: only features"),
        ({"blocks.5.hook_mlp_out/error@4": 0}, "is of kind error: only features"),
        (
            {"early": "0"},
            r"changes\['early'\] must be a factor, such as 0, or a value, \('put', 3.0\)",
        ),
        ({"early": None}, "must be a factor"),
        ({"early": True}, "must be a factor"),
        ({"early": float("nan")}, "must be a factor"),
        ({"early": [1, 2]}, "must be a factor"),
        ({"early": ("set", 2)}, r"\[0\] must be one of 'put', 'add', 'scale', got 'set'"),
        ({"early": ("put", "a")}, r"changes\['early'\]\[1\] must be a number"),
    ],
)
def test_wrong_changes_are_refused(demo, graph, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        quick(demo, graph, changes)
    assert "\n" not in str(caught.value)


def test_a_feature_is_changed_once(demo, graph):
    with pytest.raises(InputError, match="changed twice: by itself and in a supernode"):
        quick(demo, graph, {"early": 0, graph.groups["early"][0]: 2})


def changed_settings(graph, **settings) -> Circuit:
    return replace(graph, settings=graph.settings | settings)


def test_circuits_that_are_not_of_this_prompt_and_model_are_refused(demo, graph, tiny):
    of_dataset = made_up_circuit()
    with pytest.raises(InputError, match="not one of a single prompt"):
        quick(demo, of_dataset, {of_dataset.ids()[0]: 0})
    with pytest.raises(InputError, match="not one of a single prompt"):
        quick(demo, changed_settings(graph, token_ids=None), {"early": 0})
    with pytest.raises(MismatchError, match="is of 'gpt2', the model is 'demo'"):
        quick(demo, changed_settings(graph, model="gpt2"), {"early": 0})
    with pytest.raises(MismatchError, match="other words"):
        quick(demo, changed_settings(graph, tokens=["a"]), {"early": 0})
    other = [*graph.settings["token_ids"]]
    other[features_of(graph)[0][2]] = other[1]
    with pytest.raises(MismatchError, match="has activation .* in the circuit"):
        quick(demo, changed_settings(graph, token_ids=other, tokens=None), {"early": 0})
    with pytest.raises(MismatchError, match="Target 'difference' is .*settings\\['directions'"):
        quick(demo, changed_settings(graph, directions=None), {"early": 0})


def test_a_weak_feature_may_be_off_by_a_rounding_of_the_strong_ones(demo, graph):
    nodes = graph.nodes.copy()
    weak, strong = sorted(features_of(graph)[1:3], key=lambda each: each[-1])  # of the last token
    row = graph.ids().index(weak[0])
    for share, refused in ((0.04, False), (0.06, True)):
        nodes["activation"][row] = weak[-1] + share * strong[-1]
        if refused:
            with pytest.raises(MismatchError, match="has activation"):
                quick(demo, replace(graph, nodes=nodes), {"early": 0})
        else:
            quick(demo, replace(graph, nodes=nodes), {"early": 0})


@pytest.mark.parametrize("direction", [[[10**6], [1.0]], [["a"], [1.0]], [[1, 2], [1.0]], 3])
def test_directions_that_are_none_are_refused(demo, graph, direction):
    odd = changed_settings(graph, directions=[direction, graph.settings["directions"][1]])
    with pytest.raises(MismatchError, match="Target 'first' is made of logits that 'demo' lacks"):
        quick(demo, odd, {"early": 0})


def test_dictionaries_that_are_lost_are_asked_for(demo, demo_transcoders, demo_saes, graph):
    for said in ({}, {str(Site("mlp_in", 1)): "/no/folder: a"}, "demo"):
        lost = changed_settings(graph, transcoders=said)
        with pytest.raises(InputError, match=r"cannot be loaded again: .*dictionaries=\.\.\."):
            quick(demo, lost, {"early": 0})
        quick(demo, lost, {"early": 0}, dictionaries=demo_transcoders)
    with pytest.raises(InputError, match="No dictionary was given for blocks.1.ln2"):
        quick(demo, graph, {"early": 0}, dictionaries=demo_saes)


def test_too_few_features_for_random_sets_are_said(demo, demo_transcoders, graph):
    site = Site("mlp_in", 1)
    acts = demo_transcoders[site]
    batch = demo.tokenize([graph.settings["token_ids"]])
    active = acts.encode(run(demo, batch, [site])[site])[0]
    active[0] = 0
    where = active.nonzero().tolist()
    inner = new_nodes(
        len(where),
        site=str(site),
        position=[str(at) for at, _ in where],
        index=[index for _, index in where],
    )
    ends = graph.nodes[-2:]
    whole = Circuit(np.concatenate([inner, ends]), new_edges(0), graph.settings)
    whole = whole.group("all", whole.ids()[:-2])
    with pytest.raises(InputError, match="has 0 other active features.*random_sets=0"):
        quick(demo, whole, {"all": 0}, random_sets=2)
    assert len(quick(demo, whole, {"all": 0}).changes) == len(where)
