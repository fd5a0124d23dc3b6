"""Benchmark: methods side by side, on known circuits and on tasks."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Comparison": "comparison",
        "HeadComparison": "heads.comparison",
        "HeadEffects": "heads.effects",
        "KnownCase": "interpbench.cases",
        "canonical_circuit": "published_circuits",
        "compare": "comparison",
        "compare_heads": "heads.comparison",
        "known_heads": "heads.reference",
        "read_cases": "interpbench.cases",
        "reference_circuit": "reference_circuits",
        "reference_heads": "heads.reference",
    },
)
