"""100 ablations of one feature each: together by `intervene_each`, against 100 runs of their own.

Features of one site: the first 100 that fire on the prompts, and 100 at random of the dictionary,
as a scan would take them. Both ways in turn, several times; medians of CPU and wall seconds, and
the largest difference of a logit. Prints rows for RESULTS.md.
"""

import itertools
import time

import numpy as np

import circuit_toolkit as ct
from circuit_toolkit.interventions import intervene, intervene_each, zero

SITE, N, REPEATS = ct.Site("resid_post", 2), 100, 3


def main() -> None:
    """Print one row a choice of features and a number of prompts."""
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    sae = {SITE: saes[SITE]}
    print(
        "| features, prompts | separate: CPU, wall s | together: CPU, wall s | ratio | difference |"
    )
    print("|---|---|---|---|---|")
    for kind, n in itertools.product(("that fire", "at random"), (1, 16, 64)):
        task = ct.tasks.ioi(model, n=n, seed=0)
        if kind == "that fire":
            acts = ct.capture(model, sae, task, progress=False)
            features = np.unique(acts.features[SITE].indices)[:N]
        else:
            rng = np.random.default_rng(0)
            features = rng.choice(sae[SITE].n_features, N, replace=False)
        changes = [[zero(SITE, features=[int(feature)])] for feature in features]
        assert len(changes) == N, "fewer features fire than are to be ablated"
        seconds = []
        for _ in range(REPEATS):
            marks = [_now()]
            alone = [
                intervene(model, task, each, dictionaries=sae, progress=False).logits
                for each in changes
            ]
            marks.append(_now())
            outcomes = intervene_each(model, task, changes, dictionaries=sae, progress=False)
            together = [each.logits for each in outcomes]
            marks.append(_now())
            seconds.append(np.diff(marks, axis=0))
        (cpu, wall), (cpu_each, wall_each) = np.median(seconds, axis=0)
        worst = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))
        print(
            f"| {kind}, {n} | {cpu:.2f}, {wall:.2f} | {cpu_each:.2f}, {wall_each:.2f} "
            f"| {cpu_each / cpu:.2f}, {wall_each / wall:.2f} | {worst:.0e} |",
            flush=True,
        )


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


if __name__ == "__main__":
    main()
