"""Learn, read and test circuits in language models, from a notebook.

A public name is loaded when it is first used, so that `import circuit_toolkit` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from circuit_toolkit import display

if TYPE_CHECKING:  # what `__getattr__` finds, told to type checkers and editors
    from circuit_toolkit import activations as activations
    from circuit_toolkit import attribution as attribution
    from circuit_toolkit import benchmark as benchmark
    from circuit_toolkit import circuit as circuit
    from circuit_toolkit import circuit_lasso as circuit_lasso
    from circuit_toolkit import circuit_lens as circuit_lens
    from circuit_toolkit import dictionaries as dictionaries
    from circuit_toolkit import errors as errors
    from circuit_toolkit import evidence as evidence
    from circuit_toolkit import features as features
    from circuit_toolkit import files as files
    from circuit_toolkit import generalisation as generalisation
    from circuit_toolkit import head_codes as head_codes
    from circuit_toolkit import interventions as interventions
    from circuit_toolkit import models as models
    from circuit_toolkit import panels as panels
    from circuit_toolkit import patching as patching
    from circuit_toolkit import regression as regression
    from circuit_toolkit import tasks as tasks
    from circuit_toolkit import views as views
    from circuit_toolkit import weight_lens as weight_lens
    from circuit_toolkit.activations.activations import Activations as Activations
    from circuit_toolkit.activations.budget import estimate_capture as estimate_capture
    from circuit_toolkit.activations.capturing import capture as capture
    from circuit_toolkit.activations.store import ActivationStore as ActivationStore
    from circuit_toolkit.attribution.edges import attribution_patching as attribution_patching
    from circuit_toolkit.attribution.edges import eap as eap
    from circuit_toolkit.attribution.edges import eap_ig as eap_ig
    from circuit_toolkit.attribution.features import feature_attribution as feature_attribution
    from circuit_toolkit.benchmark.comparison import compare as compare
    from circuit_toolkit.benchmark.heads.comparison import compare_heads as compare_heads
    from circuit_toolkit.circuit.circuit import Circuit as Circuit
    from circuit_toolkit.circuit_lasso.components import component_lasso as component_lasso
    from circuit_toolkit.circuit_lasso.estimator import CircuitLasso as CircuitLasso
    from circuit_toolkit.circuit_lasso.feature_swaps import (
        randomised_features as randomised_features,
    )
    from circuit_toolkit.circuit_lasso.fit import LassoFit as LassoFit
    from circuit_toolkit.circuit_lasso.randomised_edges import randomised_lasso as randomised_lasso
    from circuit_toolkit.circuit_lens import CircuitLens as CircuitLens
    from circuit_toolkit.dictionaries import check_dictionaries as check_dictionaries
    from circuit_toolkit.dictionaries import load_dictionaries as load_dictionaries
    from circuit_toolkit.dictionaries import save_dictionary as save_dictionary
    from circuit_toolkit.dictionaries import train_dictionaries as train_dictionaries
    from circuit_toolkit.errors import FileFormatError as FileFormatError
    from circuit_toolkit.errors import InputError as InputError
    from circuit_toolkit.errors import MismatchError as MismatchError
    from circuit_toolkit.errors import ToolkitError as ToolkitError
    from circuit_toolkit.evidence.ablation import ablation_evidence as ablation_evidence
    from circuit_toolkit.evidence.curves import faithfulness as faithfulness
    from circuit_toolkit.evidence.edge_curves import edge_faithfulness as edge_faithfulness
    from circuit_toolkit.features.card import FeatureCard as FeatureCard
    from circuit_toolkit.features.card import feature_card as feature_card
    from circuit_toolkit.features.descriptions.descriptions import (
        FeatureDescriptions as FeatureDescriptions,
    )
    from circuit_toolkit.features.labels import feature_labels as feature_labels
    from circuit_toolkit.features.virtual import virtual_weights as virtual_weights
    from circuit_toolkit.generalisation.study import generalise as generalise
    from circuit_toolkit.head_codes import HeadCodes as HeadCodes
    from circuit_toolkit.interventions.changes import Change as Change
    from circuit_toolkit.interventions.changes import add as add
    from circuit_toolkit.interventions.changes import mean_ablation as mean_ablation
    from circuit_toolkit.interventions.changes import put as put
    from circuit_toolkit.interventions.changes import resample as resample
    from circuit_toolkit.interventions.changes import scale as scale
    from circuit_toolkit.interventions.changes import zero as zero
    from circuit_toolkit.interventions.generation import generate as generate
    from circuit_toolkit.interventions.runs import intervene as intervene
    from circuit_toolkit.interventions.runs import intervene_each as intervene_each
    from circuit_toolkit.interventions.runs import intervened as intervened
    from circuit_toolkit.models import Model as Model
    from circuit_toolkit.models import load_model as load_model
    from circuit_toolkit.panels.explorer import explore as explore
    from circuit_toolkit.panels.features import explore_features as explore_features
    from circuit_toolkit.panels.heads import explore_heads as explore_heads
    from circuit_toolkit.patching.effects import activation_patching as activation_patching
    from circuit_toolkit.patching.effects import edge_patching as edge_patching
    from circuit_toolkit.patching.paths import path_patching as path_patching
    from circuit_toolkit.sites import Site as Site
    from circuit_toolkit.tasks import Task as Task
    from circuit_toolkit.weight_lens import WeightLens as WeightLens

__version__ = "0.1.0"

# The table of contents: by heading, each public name and the module that defines it.
CONTENTS: dict[str, dict[str, str]] = {
    "Models": {
        "load_model": "models",
        "Model": "models",
        "Site": "sites",
    },
    "Dictionaries": {
        "load_dictionaries": "dictionaries",
        "check_dictionaries": "dictionaries",
        "train_dictionaries": "dictionaries",
        "save_dictionary": "dictionaries",
    },
    "Tasks": {
        "Task": "tasks",
    },
    "Activations": {
        "capture": "activations.capturing",
        "estimate_capture": "activations.budget",
        "Activations": "activations.activations",
        "ActivationStore": "activations.store",
    },
    "The circuit, and what learns one": {
        "Circuit": "circuit.circuit",
        "CircuitLasso": "circuit_lasso.estimator",
        "LassoFit": "circuit_lasso.fit",
        "randomised_lasso": "circuit_lasso.randomised_edges",
        "randomised_features": "circuit_lasso.feature_swaps",
        "component_lasso": "circuit_lasso.components",
        "HeadCodes": "head_codes",
    },
    "Attribution by gradients, and exact patching": {
        "eap": "attribution.edges",
        "eap_ig": "attribution.edges",
        "attribution_patching": "attribution.edges",
        "feature_attribution": "attribution.features",
        "activation_patching": "patching.effects",
        "edge_patching": "patching.effects",
        "path_patching": "patching.paths",
    },
    "What a feature means": {
        "WeightLens": "weight_lens",
        "CircuitLens": "circuit_lens",
        "FeatureDescriptions": "features.descriptions.descriptions",
        "FeatureCard": "features.card",
        "feature_card": "features.card",
        "feature_labels": "features.labels",
        "virtual_weights": "features.virtual",
    },
    "Interventions": {
        "zero": "interventions.changes",
        "put": "interventions.changes",
        "add": "interventions.changes",
        "scale": "interventions.changes",
        "resample": "interventions.changes",
        "mean_ablation": "interventions.changes",
        "Change": "interventions.changes",
        "intervene": "interventions.runs",
        "intervene_each": "interventions.runs",
        "intervened": "interventions.runs",
        "generate": "interventions.generation",
    },
    "Evidence": {
        "ablation_evidence": "evidence.ablation",
        "faithfulness": "evidence.curves",
        "edge_faithfulness": "evidence.edge_curves",
    },
    "Methods side by side": {
        "compare": "benchmark.comparison",
        "compare_heads": "benchmark.heads.comparison",
        "generalise": "generalisation.study",
    },
    "Panels": {
        "explore": "panels.explorer",
        "explore_features": "panels.features",
        "explore_heads": "panels.heads",
    },
    "Errors": {
        "ToolkitError": "errors",
        "InputError": "errors",
        "MismatchError": "errors",
        "FileFormatError": "errors",
    },
}
SUBPACKAGES = (
    "activations",
    "attribution",
    "benchmark",
    "circuit",
    "circuit_lasso",
    "circuit_lens",
    "dictionaries",
    "errors",
    "evidence",
    "features",
    "files",
    "generalisation",
    "head_codes",
    "interventions",
    "models",
    "panels",
    "patching",
    "regression",
    "tasks",
    "views",
    "weight_lens",
)
_HOMES = {name: home for part in CONTENTS.values() for name, home in part.items()}
__all__ = [*_HOMES, *SUBPACKAGES]  # pyright: ignore[reportUnsupportedDunderAll]

display.register(
    "Circuit",
    html="circuit_toolkit.views.graph.graph_page:graph_page",
    live="circuit_toolkit.panels.graph_widget:GraphWidget",
)
display.register(
    "FeatureCard",
    html="circuit_toolkit.views.card.page:card_html",
    page="circuit_toolkit.views.card.page:card_page",
)
display.register("HeadCodesFit", figure="circuit_toolkit.views.figures.heads:codes_figure")
display.register(
    "HeadComparison", figure="circuit_toolkit.views.figures.heads:head_comparison_figure"
)


def __getattr__(name: str) -> Any:
    if name in SUBPACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})
