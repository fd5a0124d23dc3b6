"""Methods side by side: truth ranks first, kept edges are what patching says, rows are right."""

import numpy as np
import pytest
import torch

from circuit_toolkit.benchmark.comparison import compare
from circuit_toolkit.benchmark.interpbench.cases import read_case
from circuit_toolkit.benchmark.methods import METHODS, PLAIN_ATTENTION, chosen_methods
from circuit_toolkit.benchmark.run import bench, trials_of
from circuit_toolkit.benchmark.truth import against, truth_of
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.component_faithfulness import kept_edges
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import edge_patching, patching_effects
from circuit_toolkit.views import compare_figure
from tests.attribution.prompt_pairs import TwoTokens
from tests.small_case import write_case

CHEAP = ["eap_absolute", "attribution_patching"]
BETTER = TwoTokens(right=40, wrong=7)  # the tiny model, as drawn, is better on its clean prompts


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return read_case(write_case(tmp_path_factory.mktemp("small") / "set" / "1"))


def with_scores(model, settings, **scores):
    """A circuit whose edges score as said, `a__b` being the edge from a to b."""
    graph = graph_of(model)
    matrix = np.zeros(tuple(graph.allowed.shape))
    for name, score in scores.items():
        source, target = name.replace("_h", ".h").split("__")
        matrix[graph.writer(source), graph.reader(target)] = score
    return component_circuit(graph, matrix, settings)


def test_every_method_runs_and_those_that_know_nothing_score_so(case):
    methods = [name for name in METHODS if name not in PLAIN_ATTENTION]
    found = compare(
        case.model,
        case.task,
        methods,
        truth=case.true_edges,
        universe=case.universe,
        n_prompts=12,
    )
    table = found.table
    assert list(table.index) == methods
    assert (table["seconds"] >= 0).all()
    scored = table["edge_auroc"].notna()
    assert set(table.index[~scored]) == {"activation_patching", "attribution_patching"}
    assert table["node_auroc"].between(0, 1).all()
    assert table.loc["empty", "edge_auroc"] == 0.5
    assert table.loc["empty", "shd"] == len(case.true_edges) == table.loc["empty", "shd_best"]


def test_a_method_against_itself_is_perfect(tiny):
    exact = edge_patching(tiny, TwoTokens())
    found = compare(tiny, TwoTokens(), {"again": edge_patching}, truth=exact)
    row = found.table.loc["again"]
    perfect = ["edge_auroc", "edge_ap", "node_auroc", "ap_10", "ap_20", "ap_40"]
    assert np.allclose(
        row[perfect].astype(float), 1, rtol=0, atol=1e-12
    )  # rounding of sums and row["shd_best"] == 0
    assert list(found.runs) == ["again", "random", "empty"]
    assert found.table.loc["random", "edge_ap"] < 1


def test_kept_edges_are_what_patching_the_others_gives(tiny):
    """The oracle patches the complement as a set, through other code."""
    task, graph = BETTER, graph_of(tiny)
    circuit = edge_patching(tiny, task)
    n = len(graph.edges)
    kept = kept_edges(tiny, task, {"it": circuit}, [0, 5, n], batch_size=3)
    matrix = np.zeros(tuple(graph.allowed.shape))
    matrix[circuit.edges["source"], circuit.edges["target"] - 1] = circuit.edges["score"]
    order = np.argsort(-matrix, axis=None, kind="stable")[:5]
    strongest = {
        (graph.writers[i], graph.readers[j])
        for i, j in zip(*np.unravel_index(order, matrix.shape), strict=True)
    }
    others = [edge for edge in graph.edges if edge not in strongest]
    effect = patching_effects(tiny, task, [others, graph.edges])
    torch.testing.assert_close(  # float32 logits, sums in another order
        torch.as_tensor(kept.measured["it"][:, 1] - kept.clean).float(), effect[:, 0], atol=2e-5,
        rtol=1e-4,
    )  # fmt: skip
    torch.testing.assert_close(
        torch.as_tensor(kept.measured["it"][:, 0] - kept.clean).float(), effect[:, 1], atol=2e-5,
        rtol=1e-4,
    )  # fmt: skip
    np.testing.assert_allclose(kept.measured["it"][:, 0], kept.corrupted, atol=2e-5)
    np.testing.assert_allclose(kept.measured["it"][:, 2], kept.clean, atol=2e-5)
    np.testing.assert_allclose(kept.shares("it").mean(0)[[0, 2]], [0, 1], atol=1e-4)


def test_areas_of_a_curve_are_those_of_its_trapezoids(tiny):
    n = len(graph_of(tiny).edges)
    everything = component_circuit(graph_of(tiny), np.ones(graph_of(tiny).allowed.shape), {})
    kept = kept_edges(tiny, BETTER, {"all": everything}, [n])
    np.testing.assert_allclose(kept.areas("all"), (0.5, 0.5), atol=1e-4)  # from 0 straight to 1
    at = kept.curve("all")[0]
    assert at.low <= at.value <= at.high and at.value == pytest.approx(1, abs=1e-4)


def test_a_model_that_is_no_better_on_clean_prompts_has_nothing_to_keep(tiny):
    with pytest.raises(InputError, match="no better on clean"):
        kept_edges(tiny, TwoTokens(), {}, [1])


def test_without_truth_the_table_says_what_is_kept_and_methods_are_paired(tiny):
    found = compare(tiny, BETTER, CHEAP)
    table = found.table
    assert {"cpr", "cmd", "seconds"} <= set(table.columns) and "edge_auroc" not in table
    assert np.isnan(table.loc["attribution_patching", "cpr"])
    assert found.kept is not None
    size = found.kept.sizes[1]
    pair = found.paired("eap_absolute", "random", size)
    means = [found.kept.shares(name)[:, 1].mean() for name in ("eap_absolute", "random")]
    assert pair.difference.value == pytest.approx(means[0] - means[1])
    with pytest.raises(InputError, match="Measured are sizes"):
        found.paired("eap_absolute", "random", 7777)
    assert "eap_absolute" in found._repr_html_() and "eap_absolute" in repr(found)


@pytest.mark.parametrize("sizes", [None, [5, 20]])
@pytest.mark.parametrize("known", [True, False])
def test_the_figure_has_a_panel_for_all_that_was_measured(tiny, sizes, known):
    truth = [("embed", "m0"), ("m0", "logits")] if known else None
    found = compare(tiny, BETTER, CHEAP, truth=truth, sizes=sizes)
    figure = compare_figure(found)
    titles = [note.text for note in figure.layout.annotations]
    assert any("found" in title for title in titles) == known
    assert any("kept" in title for title in titles) == (not known or sizes is not None)
    assert {"eap absolute", "random", "empty"} <= {trace.name for trace in figure.data}
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert len(legend) == len(set(legend)), "a method stands twice in the legend"


def test_the_operating_point_of_a_method_gives_its_graph(case):
    truth = truth_of(case.graph, case.true_edges, universe=case.universe)
    scores = {"embed__m0": 0.9, "m0__a1_h1": 0.8, "m0__a1_h0": 0.6, "a1_h1__logits": 0.1}
    tested = with_scores(case.model, {"confirmed": 3}, **scores)
    tested.edges["status"] = np.where(tested.edges["score"] > 0.5, "confirmed", "refuted")
    row = against(tested, truth)
    assert (row["n_edges"], row["shd"], row["shd_best"]) == (3, 2, 1)
    row = against(with_scores(case.model, {}, **scores), truth)
    assert row["shd"] is None and row["shd_best"] == 1


def test_graded_truth_is_its_strongest_edges(case):
    scores = {"embed__m0": 0.9, "m0__a1_h1": 0.8, "a1_h1__logits": 0.1}
    graded = with_scores(case.model, {}, **scores)
    truth = truth_of(case.graph, graded, universe=case.universe, size=2)
    assert truth.edges == (("embed", "m0"), ("m0", "a1.h1"))
    assert against(graded, truth)["ap_10"] == 1  # three edges have an effect, and lead
    with pytest.raises(InputError, match="no edge"):
        truth_of(case.graph, [], universe=case.universe)
    with pytest.raises(InputError, match="counts"):
        truth_of(case.graph, [("embed", "logits")], universe=case.universe)


def test_unknown_methods_are_refused_and_own_ones_taken(tiny):
    with pytest.raises(InputError, match="no method 'chess'"):
        chosen_methods(["chess"])
    assert "edge_patching" not in chosen_methods() and "edge_patching" in chosen_methods(exact=True)
    assert list(chosen_methods({"mine": METHODS["eap_absolute"]})) == ["mine", "random", "empty"]


def test_bench_means_are_means_and_oracles_are_named(tmp_path):
    cases = [read_case(write_case(tmp_path / "set" / str(i))) for i in (1, 2)]
    done = []
    found = bench(
        list(trials_of(cases)),
        chosen_methods(["eap_absolute", "eap_ig_absolute", "randomised_lasso"]),
        n_prompts=10,
        say=lambda name, rows: done.append((name, len(rows))),
    )
    assert done == [("set/1", 5), ("set/2", 5)] and len(found.cases) == 10
    for mean in found.means:
        mine = [row for row in found.cases if row["method"] == mean["method"]]
        for key in ("edge_auroc", "edge_ap", "node_auroc", "shd", "shd_best", "seconds"):
            assert mean[key] == pytest.approx(np.mean([row[key] for row in mine]))
            low, high = mean[f"{key}_interval"]
            assert low <= mean[key] + 1e-12 and mean[key] <= high + 1e-12
    rules = {row["method"]: row["shd_rule"] for row in found.means}
    assert rules == {
        "eap_absolute": "oracle", "eap_ig_absolute": "oracle", "randomised_lasso": "own",
        "random": "oracle", "empty": "own",
    }  # fmt: skip
    # Cases are alike, so one threshold for all is the best of each.
    alike = next(row for row in found.means if row["method"] == "eap_absolute")
    assert alike["shd"] == alike["shd_best"]
    assert {row["method"] for row in found.pairs} == {"eap_absolute", "randomised_lasso"}
