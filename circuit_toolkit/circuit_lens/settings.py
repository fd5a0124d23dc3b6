"""Settings of CircuitLens; some can be changed after the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circuit_toolkit.arguments import number, one_of, settings_alone, whole

FLOOR = 1.0  # z-score from which contributions are kept, and so the lowest threshold
WITHOUT_A_RUN = ("eps", "min_samples", "rho", "theta_head", "theta_feature", "theta_output")
_INFINITE = float("inf")
# Lowest value of each whole number; range of each other number.
_WHOLE = {"n_examples": 1, "min_samples": 1, "n_outputs": 0, "batch_size": 1, "seed": 0}
_RANGES = {
    "theta_head": (FLOOR, _INFINITE),
    "theta_feature": (FLOOR, _INFINITE),
    "theta_output": (-_INFINITE, _INFINITE),
    "rho": (0.0, 1.0),
    "eps": (0.0, 1.0),
}
_CHOICES = {"mode": ("published", "frozen"), "upstream": ("here", "anywhere")}


@dataclass(frozen=True)
class LensSettings:
    """Settings, see `CircuitLens`."""

    n_examples: int = 100
    mode: Literal["published", "frozen"] = "published"
    upstream: Literal["here", "anywhere"] = "here"
    theta_head: float = 5.0
    theta_feature: float = 1.5
    rho: float = 0.05
    eps: float = 0.5
    min_samples: int = 3
    n_outputs: int = 5
    theta_output: float = 3.0
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        settings_alone(self.n_examples, "CircuitLens().analyse(model, dictionaries, ...)")
        for name, least in _WHOLE.items():
            object.__setattr__(self, name, whole(getattr(self, name), name, least))
        for name, (low, high) in _RANGES.items():
            value = number(getattr(self, name), name, low, high, open_low=name == "eps")
            object.__setattr__(self, name, value)
        for name, known in _CHOICES.items():
            one_of(getattr(self, name), name, *known)
