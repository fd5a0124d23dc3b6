"""Evaluation: whether a circuit is the circuit."""

from circuit_toolkit.evaluation.faithfulness import ablation_evidence, random_features

__all__ = ["ablation_evidence", "random_features"]
