"""The heads that the bundled tasks need, by causation: every head of the bundled model replaced.

`python -m benchmarks.demo.reference_heads` computes them and writes them where `reference_heads`
reads them; `--card` writes their table into the model card.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.demo.head_effects import head_effects
from benchmarks.demo.reference_command import Reference, run_reference
from circuit_toolkit.benchmark.heads.effects import KINDS, HeadEffects
from circuit_toolkit.benchmark.heads.reference import FOLDER, reference_heads
from circuit_toolkit.models import load_model
from circuit_toolkit.tasks import BUNDLED

TASKS = ("ioi", "greater_than", "docstring", "agreement", "bios")
PROMPTS, SEED = 128, 1000
BATCH = 64  # runs at once, small enough for the caches of a processor


def compute(
    task_name: str, n_prompts: int = PROMPTS, *, seed: int = SEED, progress: bool = False
) -> HeadEffects:
    """Replace every head of the bundled model on a task, on material that training never saw.

    Parameters
    ----------
    task_name : str
        Of `tasks.BUNDLED`.
    n_prompts : int
        Pairs of the task.
    seed : int
        Of the prompts.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    HeadEffects
        As `reference_heads` gives it, before it is written with four digits.
    """
    model = load_model("demo")
    task = BUNDLED[task_name](model, n=n_prompts, seed=seed, test=True)
    found = head_effects(model, task, batch_size=BATCH, progress=progress)
    return replace(found, settings={**found.settings, "task_seed": seed, "held_out": True})


def table(effects: list[HeadEffects]) -> str:
    """Return the heads that the tasks need, as Markdown.

    Parameters
    ----------
    effects : list of HeadEffects
        From `reference_heads`.

    Returns
    -------
    str
        A row for each: prompts, gap, and the heads of the reference circuit, the strongest first,
        with the share of the gap that goes when the head carries what it has on the corrupted
        prompt everywhere, on its direct path to the logits alone, or its mean.
    """
    lines = [
        "| task | prompts | gap | heads of the circuit: resampled, direct path, mean-ablated "
        "| CPU min |",
        "|---|---|---|---|---|",
    ]
    for each in effects:
        have, shares = each.settings, {kind: each.share(kind) for kind in KINDS}
        chosen = np.argwhere(each.reference()).tolist()
        chosen.sort(key=lambda head: -abs(shares["resample"][tuple(head)]))
        heads = "; ".join(
            f"a{layer}.h{head} " + ", ".join(_percent(shares[kind][layer, head]) for kind in KINDS)
            for layer, head in chosen
        )
        minutes = sum(have["cpu_seconds"].values()) / 60
        lines.append(
            f"| {have['task']} | {have['n_prompts']} | {each.gap:.2f} | {heads} | {minutes:.1f} |"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return "0%" if abs(share) < 0.005 else f"{share:.0%}"


def main(argv: list[str] | None = None) -> None:
    """Compute them, or write the table of the stored ones into a card.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.
    """
    kind = Reference("reference heads", FOLDER, TASKS, PROMPTS, compute, reference_heads, table)
    run_reference(kind, __doc__, argv)


if __name__ == "__main__":
    main()
