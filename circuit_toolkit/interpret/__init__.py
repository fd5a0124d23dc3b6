"""What features mean: by their firings, by their weights, and by the circuits of their firings."""

from circuit_toolkit.interpret.labels import (
    described_labels,
    feature_labels,
    named_features,
    promoted_words,
)

__all__ = ["described_labels", "feature_labels", "named_features", "promoted_words"]
