"""The heads that the bundled tasks need, by causation: every head of the bundled model replaced.

`python -m circuit_toolkit.demo.reference_heads` computes them and writes them into
`reference_heads`, from where the function of that name reads them; `--card` writes their table into
the model card.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from circuit_toolkit.demo.reference_circuits import reference_circuit
from circuit_toolkit.demo.reference_command import Reference, run_reference
from circuit_toolkit.errors import InputError
from circuit_toolkit.evaluation.canonical import CANONICAL
from circuit_toolkit.evaluation.head_effects import KINDS, HeadEffects, head_effects
from circuit_toolkit.evaluation.head_scores import head_edges
from circuit_toolkit.models import Model

FOLDER = Path(__file__).parent / "reference_heads"
TASKS = ("ioi", "greater_than", "docstring", "agreement", "bios")
PROMPTS, SEED = 128, 1000
BATCH = 64  # runs at once, small enough for the caches of a processor


def reference_heads(task: str) -> HeadEffects:
    """Read what replacing each head of the bundled model does to a bundled task.

    Parameters
    ----------
    task : str
        `ioi`, `greater_than`, `docstring`, `agreement` or `bios`.

    Returns
    -------
    HeadEffects
        Over held-out prompts, which `settings` name; `reference()` gives the heads of the circuit.

    Raises
    ------
    InputError
        If there are none of that name.
    """
    path = FOLDER / f"{task}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise InputError(f"No reference heads of task {task!r} are bundled. There are: {known}.")
    return HeadEffects.load(path)


class KnownHeads(NamedTuple):
    """The heads that a task is known to need in a model.

    Parameters
    ----------
    mask : ndarray of bool, shape (L, H)
        True for those in the circuit.
    edges : ndarray of bool, shape (L * H, L * H), or None
        Pairs of them, from row to column, of which the later reads the earlier; None where
        nobody has listed any.
    source : str
        Who says so.
    """

    mask: np.ndarray
    edges: np.ndarray | None
    source: str


def known_heads(model: Model, task: str) -> KnownHeads | None:
    """Look up the heads that a task is known to need.

    Parameters
    ----------
    model : Model
        The bundled one, by causation; or one that has a canonical circuit, by name.
    task : str
        Name of the task.

    Returns
    -------
    KnownHeads or None
        None where nothing is known.
    """
    shape = (model.n_layers, model.n_heads)
    if model.name == "demo":
        if not (FOLDER / f"{task}.json").is_file():
            return None
        circuit = reference_circuit(task)
        edges = head_edges(circuit, *shape)
        return KnownHeads(reference_heads(task).reference(), edges, "reference by causation")
    canonical = CANONICAL.get(task, {}).get("acdc")
    if canonical is None or model.name not in canonical.models:
        return None
    edges = np.zeros((shape[0] * shape[1],) * 2, dtype=bool)
    for (i, j), (k, m) in canonical.head_edges():
        edges[i * shape[1] + j, k * shape[1] + m] = True
    return KnownHeads(canonical.mask(), edges, f"canonical circuit. {canonical.source}")


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
    from circuit_toolkit.models import load_model
    from circuit_toolkit.tasks import BUNDLED

    model = load_model("demo")
    task = BUNDLED[task_name](model, n=n_prompts, seed=seed, test=True)
    found = head_effects(model, task, batch_size=BATCH, progress=progress)
    return replace(found, settings={**found.settings, "task_seed": seed, "held_out": True})


def table(effects: list[HeadEffects]) -> str:
    """Say in Markdown which heads the tasks need.

    Parameters
    ----------
    effects : list of HeadEffects
        From `reference_heads`.

    Returns
    -------
    str
        A row for each: prompts, gap, and the heads of the reference circuit, the strongest first,
        with the share of the gap that goes when the head carries what it has on the twin
        everywhere, on its direct path to the logits alone, or its mean.
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
