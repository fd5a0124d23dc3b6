"""Evidence: whether a circuit holds when the rest of the model is ablated."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "FaithfulnessCurve": "curves",
        "confirm_edges": "confirmed_edges",
        "confirm_nodes": "confirmed_nodes",
        "draw_paths": "head_paths",
        "evaluate": "evaluation",
        "faithfulness": "curves",
        "find_circuit": "tested_circuit",
        "find_heads": "tested_heads",
        "heads_effect": "head_effect",
        "on_prompt": "own_prompt",
        "random_features": "evaluation",
    },
)
