"""Store: activations on disk, in shards of which one at a time is in memory."""

from circuit_toolkit.activations.store.store import ActivationStore

__all__ = ["ActivationStore"]
