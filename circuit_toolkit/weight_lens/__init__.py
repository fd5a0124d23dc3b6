"""WeightLens: what features mean, read from weights, each word checked by a forward pass.

From "Circuit Insights: Towards Interpretability Beyond Activations" (Golimblevskaia et al., 2025,
arXiv 2510.14936), section "WeightLens", and the code released with it.
"""

from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.descriptions.explainer import Cost, Explainer, prompt_for
from circuit_toolkit.weight_lens.lens import WeightLens
from circuit_toolkit.weight_lens.single_token import single_token_activations
from circuit_toolkit.weight_lens.thresholds import PRESETS, Thresholds, largest_group

__all__ = [
    "PRESETS",
    "Cost",
    "Explainer",
    "FeatureDescriptions",
    "Thresholds",
    "WeightLens",
    "largest_group",
    "prompt_for",
    "single_token_activations",
]
