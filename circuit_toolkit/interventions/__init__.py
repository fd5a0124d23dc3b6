"""Interventions: features, heads or sites set, scaled, added to or resampled in a running model."""

from circuit_toolkit.lazy import lazy

_CHANGES = ("zero", "put", "add", "scale", "resample", "mean_ablation", "Change")
_RUNS = ("intervene", "intervene_each", "intervened", "Outcome")
__getattr__, __dir__, __all__ = lazy(
    __name__,
    {name: "changes" for name in _CHANGES}
    | {name: "runs" for name in _RUNS}
    | {"hooked": "modules", "bridge_hooks": "bridge"}
    | {"generate": "generation", "Generation": "generation"}
    | {"steer": "steering", "Steering": "steering"},
)
