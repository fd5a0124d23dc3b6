"""Evidence: whether a circuit holds when the rest of the model is ablated."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "EdgeCurve": "edge_curves",
        "FaithfulnessCurve": "curves",
        "ablation_evidence": "ablation",
        "edge_faithfulness": "edge_curves",
        "faithfulness": "curves",
        "head_evidence": "heads",
        "random_features": "ablation",
    },
)
