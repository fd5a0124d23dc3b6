"""All methods over components, each with its best settings, and runs of them against the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from circuit_toolkit.arguments import described, whole
from circuit_toolkit.attribution.edges import attribution_patching, eap, eap_ig
from circuit_toolkit.attribution.gradient_interactions import gim
from circuit_toolkit.benchmark.trivial_baselines import empty_circuit, random_circuit
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.components import component_lasso
from circuit_toolkit.circuit_lasso.randomised_edges import edge_lasso, randomised_lasso
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Model
from circuit_toolkit.patching.effects import activation_patching, edge_patching
from circuit_toolkit.progress import Bar
from circuit_toolkit.tasks.prompt_pairs import PromptPairs

Method = Callable[..., Circuit]

# `method(model, task, n_prompts=, batch_size=, seed=, progress=)` returns a circuit. Plain names
# are the published methods. `_absolute` averages sizes of effects, so that those on different
# prompts do not cancel.
METHODS: dict[str, Method] = {
    "edge_patching": edge_patching,
    "activation_patching": activation_patching,
    "attribution_patching": partial(attribution_patching, average="mean of absolutes"),
    "eap": eap,
    "eap_absolute": partial(eap, average="mean of absolutes"),
    "eap_ig": eap_ig,
    "eap_ig_absolute": partial(eap_ig, average="mean of absolutes"),
    "gim": gim,
    "gim_absolute": partial(gim, average="mean of absolutes"),
    "component_lasso": component_lasso,
    "randomised_lasso": randomised_lasso,
    "edge_lasso": edge_lasso,
    "random": random_circuit,
    "empty": empty_circuit,
}
EXACT = ("edge_patching",)  # takes a run of a prompt for every edge, so only where asked for
# Not on models that write attention out, such as those of known circuits: only where asked for.
PLAIN_ATTENTION = ("gim", "gim_absolute")
BASELINES = ("random", "empty")  # stand in every table


class MethodRun(NamedTuple):
    """What a method found, and what that took."""

    circuit: Circuit
    seconds: float
    cpu_seconds: float


def chosen_methods(
    methods: Sequence[str] | Mapping[str, Method] | None = None, *, exact: bool = False
) -> dict[str, Method]:
    """Look methods up; those that are trivial baselines are always among them."""
    if methods is None:
        asked = PLAIN_ATTENTION if exact else (*EXACT, *PLAIN_ATTENTION)
        methods = [name for name in METHODS if name not in asked]
    if isinstance(methods, str):
        methods = [methods]
    if not isinstance(methods, Mapping):
        if not isinstance(methods, Iterable):
            raise InputError(
                f"methods must be names or functions by name, got {described(methods)}. Use some "
                f"of {', '.join(METHODS)}."
            )
        methods = list(methods)
        if unknown := [name for name in methods if name not in METHODS]:
            raise InputError(f"There is no method {unknown[0]!r}. Use {', '.join(METHODS)}.")
        methods = {name: METHODS[name] for name in methods}
    return dict(methods) | {name: METHODS[name] for name in BASELINES if name not in methods}


def run_methods(
    model: Model,
    task: PromptPairs,
    methods: Mapping[str, Method],
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    progress: bool = True,
) -> dict[str, MethodRun]:
    """Run methods one after the other in this process, with the same threads and prompts."""
    repeats = whole(repeats, "repeats", 1)
    options: dict[str, Any] = {
        "n_prompts": n_prompts, "batch_size": batch_size, "seed": seed, "progress": progress,
    }  # fmt: skip
    found: dict[str, MethodRun] = {}
    with Bar(total=repeats * len(methods), shown=progress) as bar:
        for name, method in [*methods.items()] * repeats:
            bar.tell(name)
            began, used = time.perf_counter(), time.process_time()
            circuit = method(model, task, **options)
            took = time.perf_counter() - began, time.process_time() - used
            if name in found:
                took = tuple(map(min, took, found[name][1:]))
            found[name] = MethodRun(circuit, *took)
            bar.update()
    return found


def warm_up(model: Model, task: PromptPairs) -> None:
    """Run gradients and a regression once on few prompts: the clock is to see no first time."""
    few = min(16, len(task.clean))
    quiet = {"n_prompts": few, "progress": False}
    eap(model, task, **quiet)
    randomised_lasso(model, task, swap="corrupted", draws=2, confirm=False, **quiet)
