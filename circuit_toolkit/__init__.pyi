# ruff: noqa: E402, I001
# The table of contents: by heading, every public name and the module that defines it. Type checkers
# read it as it is; `__init__.py` reads it to load each name when it is first used.

__version__: str
CONTENTS: dict[str, dict[str, str]]
__all__: list[str]

## Models
from circuit_toolkit.models import load_model as load_model
from circuit_toolkit.models import Model as Model
from circuit_toolkit.sites import Site as Site

## Dictionaries
from circuit_toolkit.dictionaries import load_dictionaries as load_dictionaries
from circuit_toolkit.dictionaries import check_dictionaries as check_dictionaries
from circuit_toolkit.dictionaries import train_dictionaries as train_dictionaries
from circuit_toolkit.dictionaries import save_dictionary as save_dictionary

## Tasks
from circuit_toolkit.tasks import Task as Task

## Activations
from circuit_toolkit.activations.capturing import capture as capture
from circuit_toolkit.activations.budget import estimate_capture as estimate_capture
from circuit_toolkit.activations.activations import Activations as Activations
from circuit_toolkit.activations.store.store import ActivationStore as ActivationStore

## The circuit, and what learns one
from circuit_toolkit.circuit.circuit import Circuit as Circuit
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso as CircuitLasso
from circuit_toolkit.circuit_lasso.fit import LassoFit as LassoFit
from circuit_toolkit.circuit_lasso.randomised_edges import randomised_lasso as randomised_lasso
from circuit_toolkit.circuit_lasso.randomised_edges import edge_lasso as edge_lasso
from circuit_toolkit.circuit_lasso.components import component_lasso as component_lasso
from circuit_toolkit.head_codes import HeadCodes as HeadCodes

## Attribution by gradients, and exact patching
from circuit_toolkit.attribution.edges import eap as eap
from circuit_toolkit.attribution.edges import eap_ig as eap_ig
from circuit_toolkit.attribution.edges import attribution_patching as attribution_patching
from circuit_toolkit.attribution.features import feature_attribution as feature_attribution
from circuit_toolkit.attribution.heads import head_scores as head_scores
from circuit_toolkit.attribution.graph import attribution_graph as attribution_graph
from circuit_toolkit.patching.effects import activation_patching as activation_patching
from circuit_toolkit.patching.effects import edge_patching as edge_patching
from circuit_toolkit.patching.paths import path_patching as path_patching

## What a feature means
from circuit_toolkit.weight_lens import WeightLens as WeightLens
from circuit_toolkit.circuit_lens import CircuitLens as CircuitLens
from circuit_toolkit.weight_lens import FeatureDescriptions as FeatureDescriptions
from circuit_toolkit.features.card import FeatureCard as FeatureCard
from circuit_toolkit.features.card import feature_card as feature_card
from circuit_toolkit.features.labels import feature_labels as feature_labels
from circuit_toolkit.features.virtual import virtual_weights as virtual_weights

## Interventions
from circuit_toolkit.interventions.changes import zero as zero
from circuit_toolkit.interventions.changes import put as put
from circuit_toolkit.interventions.changes import add as add
from circuit_toolkit.interventions.changes import scale as scale
from circuit_toolkit.interventions.changes import resample as resample
from circuit_toolkit.interventions.changes import mean_ablation as mean_ablation
from circuit_toolkit.interventions.changes import Change as Change
from circuit_toolkit.interventions.runs import intervene as intervene
from circuit_toolkit.interventions.runs import intervene_each as intervene_each
from circuit_toolkit.interventions.runs import intervened as intervened
from circuit_toolkit.interventions.generation import generate as generate
from circuit_toolkit.interventions.steering import steer as steer

## Evidence
from circuit_toolkit.evidence.tested_circuit import find_circuit as find_circuit
from circuit_toolkit.evidence.tested_heads import find_heads as find_heads
from circuit_toolkit.evidence.confirmed_edges import confirm_edges as confirm_edges
from circuit_toolkit.evidence.confirmed_nodes import confirm_nodes as confirm_nodes
from circuit_toolkit.evidence.evaluation import evaluate as evaluate
from circuit_toolkit.evidence.own_prompt import on_prompt as on_prompt
from circuit_toolkit.evidence.curves import faithfulness as faithfulness

## Methods side by side
from circuit_toolkit.benchmark.comparison import compare as compare
from circuit_toolkit.benchmark.heads.comparison import compare_heads as compare_heads
from circuit_toolkit.generalisation.study import generalise as generalise

## Panels
from circuit_toolkit.panels.explorer.opening import explore as explore
from circuit_toolkit.panels.features import explore_features as explore_features
from circuit_toolkit.panels.heads import explore_heads as explore_heads

## Errors
from circuit_toolkit.errors import ToolkitError as ToolkitError
from circuit_toolkit.errors import InputError as InputError
from circuit_toolkit.errors import MismatchError as MismatchError
from circuit_toolkit.errors import FileFormatError as FileFormatError
from circuit_toolkit.errors import WriteError as WriteError

## Sub-packages
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
