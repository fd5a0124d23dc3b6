"""What a task loses where some heads are ablated together, beside as many random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.evaluation import heads_ablated, with_metric
from circuit_toolkit.models import Model
from circuit_toolkit.tasks import Task


@dataclass(frozen=True, eq=False)
class HeadsEffect:
    """What ablating heads does to the metric.

    Parameters
    ----------
    heads : tuple of (int, int)
        Layer and number of each.
    before, after : float
        Mean metric as the model is, and with the heads' outputs on the corrupted prompts.
    random : ndarray, shape (sets,)
        The same as `after`, of random sets of as many other heads.
    metric : str
        Its name.
    n : int
        Prompts.
    """

    heads: tuple[tuple[int, int], ...]
    before: float
    after: float
    random: np.ndarray
    metric: str
    n: int

    def __repr__(self) -> str:
        """Say it in a line."""
        names = ", ".join(f"a{layer}.h{head}" for layer, head in self.heads)
        return (
            f"HeadsEffect({names}: {self.metric} {self.before:.3g} -> {self.after:.3g}, "
            f"{len(self.random)} random sets {self.random.min():.3g} to {self.random.max():.3g}, "
            f"{self.n} prompts)"
        )


def heads_effect(
    model: Model,
    task: Task,
    heads: Sequence[tuple[int, int]],
    *,
    n_prompts: int = 32,
    random_sets: int = 10,
    seed: int = 0,
) -> HeadsEffect:
    """Ablate some heads together, and random sets of as many others.

    An ablated head writes what it writes on the corrupted prompt, at all tokens.

    Parameters
    ----------
    model : Model
        The model.
    task : Task
        With a metric and corrupted prompts.
    heads : sequence of (int, int)
        Layer and number of each.
    n_prompts : int
        How many of the task's prompts, the first ones.
    random_sets : int
        To compare with; of the heads that were not chosen, where there are enough, else of all.
    seed : int
        Of these.

    Returns
    -------
    HeadsEffect

    Raises
    ------
    InputError
        If there are no heads or there is no such head, or the task has no metric or no corrupted
        prompts.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> found = heads_effect(model, ct.tasks.agreement(model, n=16), [(3, 3)], random_sets=5)
    >>> bool(found.after < found.random.min() - 3)
    True
    """
    expect(model, "model", "Model")
    chosen = checked_heads(model, heads)
    if not chosen:
        raise InputError("No head is given: pass layer and number of each, as in [(3, 0)].")
    part = with_metric(task).subset(whole(n_prompts, "n_prompts", 1))
    rng = np.random.default_rng(whole(seed, "seed", 0))
    every = [(int(layer), int(head)) for layer, head in np.ndindex(model.n_layers, model.n_heads)]
    others = [each for each in every if each not in chosen]
    pool = others if len(others) >= len(chosen) else every
    sets = [
        {pool[i] for i in rng.choice(len(pool), len(chosen), replace=False)}
        for _ in range(whole(random_sets, "random_sets", 1))
    ]
    before, after, *random = (
        float(heads_ablated(model, part, each).mean()) for each in (set(), {*chosen}, *sets)
    )
    return HeadsEffect(chosen, before, after, np.array(random), str(part.metric), len(part))


def checked_heads(model: Model, heads: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return heads of a model as pairs of whole numbers, each once; refuse others."""
    found = []
    for each in heads:
        try:
            layer, head = each
        except (TypeError, ValueError):
            raise InputError(
                f"A head is its layer and its number, as in (3, 0); got {each!r}."
            ) from None
        pair = whole(layer, "layer", 0), whole(head, "head", 0)
        if pair[0] >= model.n_layers or pair[1] >= model.n_heads:
            raise InputError(
                f"There is no head {pair}: {model.name} has {model.n_layers} layers of "
                f"{model.n_heads} heads."
            )
        found.append(pair)
    return tuple(dict.fromkeys(found))
