"""The main job on the five bundled tasks: size, whether the circuit holds, and how its edges fare.

`OMP_NUM_THREADS=1 python -m benchmarks.tested_circuits` prints three tables; names of tasks as
arguments choose among them. Circuits are found on training prompts and tested on held-out ones.

Trivial baselines: features are ranked by the size of their change from clean to corrupted prompts
times the norm of their decoder; edges by the weight between two features times the mean change of
the source. Edges are scored against exact ablation on 1,024 fresh prompts.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np

import circuit_toolkit as ct
from circuit_toolkit.benchmark.metrics import average_precision
from circuit_toolkit.circuit_lasso.drawing import shares_of_target
from circuit_toolkit.cli.find import SITES
from circuit_toolkit.dictionaries.directions import decoder_rows, encoder_rows
from circuit_toolkit.evidence.tested_circuit import by_place, ranked
from circuit_toolkit.patching.placed_features import PlacedFeatures
from circuit_toolkit.tasks import BUNDLED

TASKS = ("ioi", "greater_than", "docstring", "agreement", "bios")
BUDGETS = (10, 20, 40)


def fits(model, saes, task, positions) -> dict:
    """Fit both designs; the paper's with one number as target, and with the logits of answers."""
    acts = ct.capture(model, saes, task, progress=False)
    given = {"model": model, "dictionaries": saes}
    designs = {
        "randomised CircuitLasso": ("randomised", given),
        "CircuitLasso, logits of answers": ("observational", given),
        "CircuitLasso, as published": ("observational", {}),
    }
    return {
        name: ct.CircuitLasso(positions=positions, design=design, folds=0).fit(
            acts, task, labels={}, progress=False, **more
        )
        for name, (design, more) in designs.items()
    }


def lasso_scores(fit, nodes: list, pairs: list, *, raw: bool) -> np.ndarray:
    """Score edges by coefficients at strength .1: standardised, or times mean over mean activation.

    Of a fit of logits an edge to the metric has the share of it that the weights say.
    """
    k, places = fit.readout[fit.sites[-1]].at(0.1), fit.settings["positions"]
    places = [places] if isinstance(places, str) else places
    index = {}  # of a feature among those of its site that were fitted
    for site, screening in fit.screening.items():
        width = len(screening.representative) // len(places)
        for i, (place, unit) in enumerate(zip(*np.divmod(screening.kept, width), strict=True)):
            index[(site, places[place]), int(unit)] = i
    chain = {
        site: (path.coefficients[k] if raw else path.standardised(k)).toarray()
        for site, path in fit.chain.items()
    }
    direct = shares_of_target(fit, k, None)
    direct = direct or {site: fit.weights_of_target(site, k) for site in fit.sites}
    found = []
    for s, t in pairs:
        site, i = nodes[s][0][0], index.get(nodes[s])
        mean = fit.means[site][fit.screening[site].kept[i]] if raw and i is not None else 1.0
        if i is None or (t < len(nodes) and nodes[t] not in index):
            found.append(0.0)
        elif t < len(nodes):
            later, j = nodes[t][0][0], index[nodes[t]]
            there = fit.means[later][fit.screening[later].kept[j]] if raw else 1.0
            found.append(mean * chain[later][i, j] / max(there, 1e-9))
        else:
            found.append(direct[site][i] * (mean if fit.gradient is None else 1))
    return np.abs(found)


def trivial_scores(runs: PlacedFeatures, nodes: list, pairs: list) -> np.ndarray:
    """Score edges by decoder times encoder times the mean change of the source, as a share."""
    change, found = runs.sizes(), []
    for s, t in pairs:
        place, unit = nodes[s]
        write = decoder_rows(runs.model, runs.dictionaries[place[0]])[unit]
        weight = 1.0
        if t < len(nodes):
            read = encoder_rows(runs.model, runs.dictionaries[nodes[t][0][0]])[nodes[t][1]]
            there = float(runs.acts[nodes[t][0]][:, nodes[t][1]].mean())
            weight = abs(float(write @ read)) / float(write.norm()) / max(there, 1e-9)
        found.append(change[place][unit] * weight)  # a change has the norm of the decoder in it
    return np.array(found)


def precisions(true: np.ndarray, drawn: np.ndarray) -> str:
    """Average precision of the strongest edges."""
    order = np.argsort(-true, kind="stable")
    each = [average_precision(np.isin(np.arange(len(true)), order[:k]), drawn) for k in BUDGETS]
    return " / ".join(f"{value:.2f}" for value in each)


def main() -> None:
    """Print the tables."""
    warnings.simplefilter("ignore")
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model, sites=SITES)
    circuits, designs, edges = [], [], []
    for name in sys.argv[1:] or TASKS:
        task = BUNDLED[name](model, n=256, seed=0)
        held_out = BUNDLED[name](model, n=256, seed=1, test=True)
        began = time.process_time()
        found = ct.find_circuit(model, saes, task, held_out, progress=False)
        used = time.process_time() - began
        shares, positions = found.evidence["ablation"], found.settings["positions"]
        train = PlacedFeatures.of(model, saes, task, positions)
        runs = PlacedFeatures.of(model, saes, held_out.subset(128), positions)
        full, empty = runs.metric().mean(), runs.metric_with({}).mean()

        def held(units, runs=runs, full=full, empty=empty) -> str:
            """Return F of features, and of everything but them."""
            kept = (runs.metric_with(units, kept=kept).mean() for kept in (True, False))
            return " / ".join(f"{(each - empty) / (full - empty):.2f}" for each in kept)

        n = len(found.nodes) - 1
        trivial = by_place(ranked(train.sizes(), train.places)[:n])
        low, high = shares["faithfulness_interval"]
        circuits.append(
            f"| {name} ({', '.join(positions)}) | {n} | "
            f"{shares['faithfulness']:.2f} [{low:.2f}, {high:.2f}] / "
            f"{shares['completeness']:.2f} | "
            f"{np.mean(shares['random_faithfulness']):.2f} / "
            f"{np.mean(shares['random_completeness']):.2f} | {held(trivial)} | "
            f"{shares['faithfulness_errors_ablated']:.2f} of {shares['dictionaries_keep']:.2f} | "
            f"{found.verdict} | {used:.1f} |"
        )
        fitted = fits(model, saes, task, positions)
        of_designs = [
            held(fit.circuit("best", max_features=n, max_edges=None).placed_features())
            for fit in fitted.values()
        ]
        designs.append(f"| {name} | {n} | {' | '.join(of_designs)} | {held(trivial)} |")

        fresh = BUNDLED[name](model, n=1024, seed=5, test=True)
        truth = ct.confirm_edges(found, model, saes, fresh, n_prompts=1024, progress=False)
        few = ct.confirm_edges(found, model, saes, held_out, n_prompts=64, progress=False)
        known = np.all([each.edges["status"] != "untested" for each in (found, truth, few)], axis=0)
        nodes = [
            ((ct.Site.parse(site), position), index)
            for site, position, index in found.nodes[["site", "position", "index"]].tolist()[:-1]
        ]
        pairs = found.edges[["source", "target"]][known].tolist()
        true = np.abs(truth.edges["weight"][known])
        published = fitted["CircuitLasso, as published"]
        scores = [
            np.abs(found.edges["weight"][known]),
            np.abs(few.edges["weight"][known]),
            lasso_scores(fitted["randomised CircuitLasso"], nodes, pairs, raw=True),
            trivial_scores(train, nodes, pairs),
            lasso_scores(published, nodes, pairs, raw=True),
            lasso_scores(published, nodes, pairs, raw=False),
        ]
        counts = found.evidence["edges"]
        edges.append(
            f"| {name} | {len(found.edges)} | {counts['confirmed']} / {counts['refuted']} / "
            f"{counts['untested']} | {' | '.join(precisions(true, each) for each in scores)} |"
        )
    print(
        "| task (positions) | nodes | circuit: F / C | 10 random sets | trivial ranking | errors "
        "ablated | verdict | CPU s |\n|---|---|---|---|---|---|---|---|"
    )
    print(*circuits, sep="\n")
    print(f"\n| task | features | {' | '.join(fitted)} | trivial ranking |")
    print("|---|---|---|---|---|---|")
    print(*designs, sep="\n")
    print(
        "\n| task | edges | confirmed / refuted / untested | drawn (256 prompts) | 64 prompts | "
        "randomised CircuitLasso | trivial | raw coefficient x mean | standardised coefficient |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    print(*edges, sep="\n")


if __name__ == "__main__":
    main()
