"""Activations: captured in one pass, in memory or in a store on disk."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Activations": "activations",
        "ActivationStore": "store.store",
        "capture": "capturing",
        "estimate_capture": "budget",
    },
)
