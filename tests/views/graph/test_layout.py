import numpy as np
import pytest

from circuit_toolkit.circuit import Circuit, new_edges
from circuit_toolkit.sites import Site
from circuit_toolkit.views.graph.drawing import drawing_of
from circuit_toolkit.views.graph.layout import crossings, laid_out
from tests.circuit.made_up import SITES, made_up_circuit

MANY = [Site("embed"), *(Site(k, i) for i in range(6) for k in ("mlp_out", "resid_post"))]


def edges_of(rows):
    names = ("source", "target", "weight", "score")
    return new_edges(len(rows), **dict(zip(names, np.transpose(rows), strict=True)))


def size(circuit):
    return f"{len(circuit.nodes)} nodes at {len(circuit.features())} sites"


CIRCUITS = [
    made_up_circuit(),
    made_up_circuit(60, 200, seed=3),
    made_up_circuit(60, 150, sites=SITES[::3], seed=1),
    made_up_circuit(58, 200, sites=MANY, seed=2),
    made_up_circuit(1, 1, sites=SITES[:1]),
    made_up_circuit().prune(max_features=0),
]


@pytest.mark.parametrize("circuit", CIRCUITS, ids=size)
def test_time_runs_to_the_right_and_nothing_overlaps(circuit):
    place, depth = laid_out(drawing_of(circuit)), circuit.depths()
    x, y, edges = place.x, place.y, circuit.edges
    assert (place.left[depth] < x).all() and (x < place.right[depth]).all()
    assert (x[edges["source"]] < x[edges["target"]]).all()
    assert depth[x.argmax()] == depth[-1]  # the target stands at the end
    assert (place.left[1:] == place.right[:-1]).all() and place.right[-1] == place.width
    assert (y > 30).all() and (y < place.height - 30).all()  # room for the label below
    apart = np.hypot(x[:, None] - x, y[:, None] - y)
    assert (apart + 1e9 * np.eye(len(x))).min() > 45  # px: two nodes with a label between them


@pytest.mark.parametrize("circuit", CIRCUITS[:4], ids=size)
def test_the_order_has_fewer_crossings_than_the_one_given(circuit):
    place, depth = laid_out(drawing_of(circuit)), circuit.depths()
    given = np.empty(len(depth))
    for d in np.unique(depth):  # the same places in each column, in the order of the rows
        given[depth == d] = np.sort(place.y[depth == d])
    column = depth.astype(float)
    before, after = (crossings(column, y, circuit.edges) for y in (given, place.y))
    assert after < 0.85 * before


def test_a_tangle_that_has_no_need_to_cross_is_undone():
    circuit = made_up_circuit(8, 0, sites=SITES[:2])
    left, right = (np.flatnonzero(circuit.depths() == d) for d in (0, 1))
    pairs = list(zip(left, reversed(right), strict=False))
    rows = [(s, t, 1, 1) for s, t in pairs] + [(s, 8, 1, 1) for s in right]
    tangled = Circuit(circuit.nodes, edges_of(rows))
    place = laid_out(drawing_of(tangled))
    chains = tangled.edges[: len(pairs)]
    assert crossings(place.x, place.y, chains) == 0


def test_lines_that_skip_a_site_do_not_run_through_its_node():
    circuit = made_up_circuit(5, 0, sites=SITES[:5])
    assert (np.bincount(circuit.depths()) == 1).all()
    rows = [(s, t, 1, 1) for t in range(1, 6) for s in range(t)]
    place = laid_out(drawing_of(Circuit(circuit.nodes, edges_of(rows))))
    x, y = place.x, place.y
    for s, t, *_ in rows:
        between = np.arange(s + 1, t)
        share = (x[between] - x[s]) / (x[t] - x[s])
        line = y[s] + (y[t] - y[s]) * share**2 * (3 - 2 * share)  # it leaves and arrives level
        assert (np.abs(line - y[between]) > 10).all()  # px: the size of a node
    rows = [(s, s + 1, 1, 1) for s in range(5)]
    chain = laid_out(drawing_of(Circuit(circuit.nodes, edges_of(rows))))
    assert np.ptp(chain.y) == 0  # nothing to make room for


def test_crossings_agree_with_a_slow_count():
    circuit = made_up_circuit(20, 40)
    place = laid_out(drawing_of(circuit))

    def height(edge, at):
        s, t = edge["source"], edge["target"]
        share = (at - place.x[s]) / (place.x[t] - place.x[s])
        return place.y[s] + share * (place.y[t] - place.y[s])

    count = 0
    for i, a in enumerate(circuit.edges):
        for b in circuit.edges[:i]:
            start = max(place.x[a["source"]], place.x[b["source"]])
            stop = min(place.x[a["target"]], place.x[b["target"]])
            if start < stop:
                gaps = [height(a, at) - height(b, at) for at in (start, stop)]
                count += gaps[0] * gaps[1] < -1e-9
    assert crossings(place.x, place.y, circuit.edges) == count > 0


def test_positions_follow_each_other_from_top_to_bottom():
    made = made_up_circuit(40, 100)
    nodes, names = made.nodes.copy(), ["S1", "S2", "last"]
    nodes["position"][:-1] = [names[i % 3] for i in range(len(nodes) - 1)]
    circuit = Circuit(nodes, made.edges, {**made.settings, "positions": names[::-1]})
    place, depth = laid_out(drawing_of(circuit)), circuit.depths()
    for d in range(depth.max()):
        here = np.flatnonzero(depth == d)
        order = nodes["position"][here[np.argsort(place.y[here])]].tolist()
        assert order == sorted(order, key=names[::-1].index), "as the settings list them"
