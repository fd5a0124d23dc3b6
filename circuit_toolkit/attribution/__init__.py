"""Attribution: effects of edges and features by gradients (EAP, EAP-IG, GIM, patching, IG)."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "attribution_patching": "edges",
        "eap": "edges",
        "eap_ig": "edges",
        "feature_attribution": "features",
        "gim": "gradient_interactions",
        "head_scores": "heads",
    },
)
