"""Features: what is known of one, from examples, labels, descriptions and virtual weights."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "FeatureCard": "card",
        "FeatureDescriptions": "descriptions.descriptions",
        "FeatureExamples": "examples",
        "VirtualWeights": "weight_table",
        "described_labels": "labels",
        "expected_attributions": "expected",
        "feature_card": "card",
        "feature_examples": "examples",
        "feature_labels": "labels",
        "how_to_read": "legend",
        "named_features": "labels",
        "neuronpedia_labels": "neuronpedia",
        "promoted_words": "labels",
        "virtual_weights": "virtual",
    },
)
