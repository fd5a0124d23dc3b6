"""CircuitLens: how a feature comes to fire, what it does next, and which examples are alike."""

from circuit_toolkit.circuit_lens.circuits import FeatureCircuits
from circuit_toolkit.circuit_lens.lens import CircuitLens

__all__ = ["CircuitLens", "FeatureCircuits"]
