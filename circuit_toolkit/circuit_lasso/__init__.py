"""CircuitLasso: circuits by sparse regression, observational and randomised."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "CircuitLasso": "estimator",
        "LassoFit": "fit",
        "component_lasso": "components",
        "edge_lasso": "randomised_edges",
        "randomised_lasso": "randomised_edges",
    },
)
