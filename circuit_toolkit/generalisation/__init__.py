"""Domain generalisation: a classifier without the spurious features that a circuit reveals."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Generalisation": "scores",
        "generalise": "study",
    },
)
