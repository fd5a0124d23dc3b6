"""What a feature means."""

from circuit_toolkit.interpret.labels import feature_labels, named_features, promoted_words

__all__ = ["feature_labels", "named_features", "promoted_words"]
