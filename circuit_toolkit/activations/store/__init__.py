"""Store: activations on disk, in shards of which one at a time is in memory."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {"ActivationStore": "store"})
