"""WeightLens: what features mean, read from weights, each word checked by a forward pass.

From "Circuit Insights: Towards Interpretability Beyond Activations" (Golimblevskaia et al., 2025,
arXiv 2510.14936), section "WeightLens", and the code released with it.
"""

from circuit_toolkit.interpret.explainer import Cost, Explainer
from circuit_toolkit.interpret.weight_lens.descriptions import FeatureDescriptions
from circuit_toolkit.interpret.weight_lens.explain import cost, prompt_for
from circuit_toolkit.interpret.weight_lens.lens import WeightLens
from circuit_toolkit.interpret.weight_lens.rule import PRESETS, Rule, largest_group
from circuit_toolkit.interpret.weight_lens.solo import solo_activations

__all__ = [
    "PRESETS",
    "Cost",
    "Explainer",
    "FeatureDescriptions",
    "Rule",
    "WeightLens",
    "cost",
    "largest_group",
    "prompt_for",
    "solo_activations",
]
