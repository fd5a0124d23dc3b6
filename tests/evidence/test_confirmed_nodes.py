"""Features of a graph ablated one by one, against plain edits and against all paths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit.tables import new_edges, new_nodes
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.evidence.confirmed_nodes import _predicted
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.sites import Site


@pytest.fixture(scope="module")
def task(demo):
    return ct.tasks.ioi(demo, n=1)


@pytest.fixture(scope="module")
def graph(demo, demo_transcoders, task):
    options = {"max_features": 300, "progress": False}
    return ct.attribution_graph(demo, demo_transcoders, task, **options)


@pytest.fixture(scope="module")
def found(demo, demo_transcoders, graph):
    given = graph, demo, demo_transcoders
    return ct.confirm_nodes(*given, n=8, random=5, progress=False)


def test_what_is_measured_is_what_plain_edits_do(demo, demo_transcoders, task, graph, found):
    table = found.evidence["interventions"]["table"]
    batch = demo.tokenize(task.clean)
    patterns = [Site("attn_pattern", layer) for layer in range(demo.n_layers)]
    clean = run(demo, batch, [*patterns, LOGITS])
    held = {site: (lambda x, value=clean[site]: value) for site in patterns}
    plain = float(task.score(clean[LOGITS][:, -1], [0]))
    assert plain == pytest.approx(float(graph.nodes["activation"][-1]), rel=1e-5)
    assert len(table) == 13 and [row["drawn"] for row in table] == [True] * 8 + [False] * 5
    features = graph.nodes[graph.nodes["kind"] == "feature"]
    best = np.sort(features["score"])[::-1][7]
    scores = dict(zip(graph.ids(), graph.nodes["score"].tolist(), strict=True))
    for row in table:
        name, _, at = row["id"].rpartition("@")
        site, index = Site.parse(name.rpartition("/")[0]), int(name.rpartition("/")[2])
        each, at = demo_transcoders[site], int(at)
        act = float(each.encode(run(demo, batch, [site])[site])[0, at, index])
        assert act > 0

        def without(y, each=each, at=at, index=index, act=act):
            y = y.clone()
            y[0, at] -= act * each.directions[index]
            return y

        for column, write in (("free", {}), ("held", held)):
            now = run(demo, batch, [LOGITS], {**write, each.out: without})[LOGITS][:, -1]
            lost = plain - float(task.score(now, [0]))
            assert row[column] == pytest.approx(lost, abs=1e-4)  # logits of 20 in float32
        if row["drawn"]:
            assert scores[row["id"]] >= best
        else:
            assert row["id"] not in scores and row["direct"] is row["graph"] is None
    places = [row["id"].split("/")[0] + row["id"].rpartition("@")[2] for row in table]
    assert set(places[8:]) <= set(places[:8])  # the same sites and tokens


def test_what_is_said_of_it(graph, found):
    said = found.evidence["interventions"]
    table = said["table"]
    ids = graph.ids()
    direct = {ids[s]: w for s, t, w, *_ in graph.edges.tolist() if t == len(ids) - 1}
    free = np.array([row["free"] for row in table])
    for row in table[:8]:
        assert row["direct"] == pytest.approx(direct.get(row["id"], 0), rel=1e-6)
    assert said["mean_change"] == pytest.approx(np.abs(free[:8]).mean())
    assert said["random_change"] == pytest.approx(np.abs(free[8:]).mean())
    assert said["mean_change"] > 3 * said["random_change"]
    signs = [row["graph"] * row["free"] > 0 for row in table[:8]]
    assert said["same_sign"] == np.mean(signs) and said["n"] == 8 and said["random"] == 5
    assert found.evidence["attribution"] == graph.evidence["attribution"]
    line = next(line for line in found.summary() if line.startswith("interventions"))
    assert "8 features set to 0 one by one" in line and "5 others at these tokens" in line


def test_losses_run_along_all_paths():
    """a -> b -> t, a -> t and an error that passes nothing on, by hand."""
    site = [str(Site("mlp_in", layer)) for layer in (0, 1)]
    nodes = np.concatenate(
        [
            new_nodes(1, site=site[0], position="1", index=3, activation=2.0),
            new_nodes(1, "error", site=str(Site("mlp_out", 0)), position="1"),
            new_nodes(1, site=site[1], position="1", index=4, activation=4.0),
            new_nodes(1, "target", label="t", activation=9.0),
        ]
    )
    edges = new_edges(4, source=[0, 0, 1, 2], target=[2, 3, 2, 3], weight=[3.0, 0.5, -1.0, 6.0])
    direct, total = _predicted(ct.Circuit(nodes, edges))
    assert direct.tolist() == [0.5, 0, 6, 0]
    # b loses 3 of 4, so the target loses that share of 6; without the error b gains 1 of 4
    assert total.tolist() == [0.5 + 6 * 3 / 4, 6 * -1 / 4, 6, 0]


def test_what_cannot_be_confirmed(demo, demo_transcoders, task, graph):
    def confirm(circuit, model=demo, **options):
        return ct.confirm_nodes(circuit, model, demo_transcoders, progress=False, **options)

    pair = ct.attribution_graph(
        demo, demo_transcoders, task, pairs=True, max_features=50, progress=False
    )
    with pytest.raises(InputError, match="a difference of two prompts"):
        confirm(pair)
    mean = replace(graph, settings={**graph.settings, "scope": "dataset"})
    with pytest.raises(InputError, match="not one of a single prompt"):
        confirm(mean)
    bare = graph.subgraph(graph.nodes["kind"] != "feature")
    with pytest.raises(InputError, match="has no features"):
        confirm(bare)
    with pytest.raises(InputError, match="n must be at least 1"):
        confirm(graph, n=0)
    with pytest.raises(MismatchError, match="circuit is of 'other'"):
        confirm(replace(graph, settings={**graph.settings, "model": "other"}))
    alone = confirm(graph, n=2, random=0).evidence["interventions"]
    assert alone["random_change"] is None and alone["rank_correlation"] is None
