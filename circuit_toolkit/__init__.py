"""Learn, read and test circuits in language models, from a notebook.

A public name is loaded when it is first used, so that `import circuit_toolkit` stays cheap.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds, told to type checkers and editors
    from circuit_toolkit import tasks as tasks
    from circuit_toolkit.activations import Activations as Activations
    from circuit_toolkit.capture import capture as capture
    from circuit_toolkit.circuits.circuit import Circuit as Circuit
    from circuit_toolkit.circuits.circuit_lasso import CircuitLasso as CircuitLasso
    from circuit_toolkit.circuits.head_codes import HeadCodes as HeadCodes
    from circuit_toolkit.circuits.path_patching import path_patching as path_patching
    from circuit_toolkit.dictionaries import check_dictionaries as check_dictionaries
    from circuit_toolkit.dictionaries import load_dictionaries as load_dictionaries
    from circuit_toolkit.dictionaries import train_dictionaries as train_dictionaries
    from circuit_toolkit.estimate import estimate_capture as estimate_capture
    from circuit_toolkit.evaluation import ablation_evidence as ablation_evidence
    from circuit_toolkit.evaluation.compare import compare as compare
    from circuit_toolkit.evaluation.curves import faithfulness as faithfulness
    from circuit_toolkit.evaluation.edge_ablation import edge_faithfulness as edge_faithfulness
    from circuit_toolkit.interpret.circuit_lens import CircuitLens as CircuitLens
    from circuit_toolkit.interpret.feature_card import FeatureCard as FeatureCard
    from circuit_toolkit.interpret.feature_card import feature_card as feature_card
    from circuit_toolkit.interpret.labels import feature_labels as feature_labels
    from circuit_toolkit.interpret.virtual_weights import virtual_weights as virtual_weights
    from circuit_toolkit.interpret.weight_lens import WeightLens as WeightLens
    from circuit_toolkit.interventions import generate as generate
    from circuit_toolkit.interventions import intervene as intervene
    from circuit_toolkit.models import Model as Model
    from circuit_toolkit.models import load_model as load_model
    from circuit_toolkit.panels.explorer import explore as explore
    from circuit_toolkit.panels.features import explore_features as explore_features
    from circuit_toolkit.panels.heads import explore_heads as explore_heads
    from circuit_toolkit.sites import Site as Site
    from circuit_toolkit.store import ActivationStore as ActivationStore
    from circuit_toolkit.tasks import Task as Task

__version__ = "0.1.0"

# Public name -> the module that defines it; None where the name is itself a subpackage.
_HOMES: dict[str, str | None] = {
    "ActivationStore": "store",
    "Activations": "activations",
    "Circuit": "circuits.circuit",
    "CircuitLasso": "circuits.circuit_lasso",
    "CircuitLens": "interpret.circuit_lens",
    "FeatureCard": "interpret.feature_card",
    "HeadCodes": "circuits.head_codes",
    "Model": "models",
    "Site": "sites",
    "Task": "tasks",
    "WeightLens": "interpret.weight_lens",
    "ablation_evidence": "evaluation",
    "capture": "capture",
    "check_dictionaries": "dictionaries",
    "compare": "evaluation.compare",
    "edge_faithfulness": "evaluation.edge_ablation",
    "estimate_capture": "estimate",
    "explore": "panels.explorer",
    "explore_features": "panels.features",
    "explore_heads": "panels.heads",
    "faithfulness": "evaluation.curves",
    "feature_card": "interpret.feature_card",
    "feature_labels": "interpret.labels",
    "generate": "interventions",
    "intervene": "interventions",
    "load_dictionaries": "dictionaries",
    "load_model": "models",
    "path_patching": "circuits.path_patching",
    "tasks": None,
    "train_dictionaries": "dictionaries",
    "virtual_weights": "interpret.virtual_weights",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]  # it reads the imports above


class _Package(ModuleType):
    """Type of this package: `capture` stays the function though its module has the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Python binds an imported submodule to its name here, over what `__getattr__` would find.
        if _HOMES.get(name) == name and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    module = import_module(f"{__name__}.{home or name}")
    value = getattr(module, name) if home else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


sys.modules[__name__].__class__ = _Package
