"""The components of a model, and who can read whom: embedding, heads, MLPs, logits."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Model

EMBED, OUTPUT = "embed", "logits"


@dataclass(frozen=True, eq=False)
class Graph:
    """Components of a model in order of computation, and who can read whom."""

    n_layers: int
    n_heads: int
    parallel: bool = False

    @cached_property
    def slots(self) -> list[slice]:
        """Readers that run at once, as slices of `readers`."""
        found, start = [], 0
        for size in [*(n for _ in range(self.n_layers) for n in (self.n_heads, 1)), 1]:
            found.append(slice(start, start + size))
            start += size
        return found

    @cached_property
    def readers(self) -> list[str]:
        """Names of the components that read, in order of computation."""
        names: list[str] = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"]
        return [*names, OUTPUT]

    @cached_property
    def writers(self) -> list[str]:
        """Names of the components that write, in order of computation."""
        return [EMBED, *self.readers[:-1]]

    def n_upstream(self, slot: int) -> int:
        """Return the number of writers that the readers of a slot can read: the first so many."""
        if slot == 2 * self.n_layers:
            return len(self.writers)
        layer, is_mlp = divmod(slot, 2)
        beside = self.n_heads if is_mlp and not self.parallel else 0
        return 1 + layer * (self.n_heads + 1) + beside

    @cached_property
    def allowed(self) -> Tensor:
        """Where there can be an edge, shape (writers, readers)."""
        mask = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for slot, which in enumerate(self.slots):
            mask[: self.n_upstream(slot), which] = True
        return mask

    @cached_property
    def edges(self) -> list[tuple[str, str]]:
        """All possible edges, by reader within writer."""
        pairs = self.allowed.nonzero().tolist()
        return [(self.writers[i], self.readers[j]) for i, j in pairs]

    def writer(self, name: str) -> int:
        """Return the number of a writer."""
        return self._index(name, self.writers)

    def reader(self, name: str) -> int:
        """Return the number of a reader."""
        return self._index(name, self.readers)

    def _index(self, name: str, names: list[str]) -> int:
        if name not in names:
            fits = re.fullmatch(r"embed|logits|[am]\d+(\.h\d+)?", name)
            hint = "" if fits else " Write embed, a0.h1 (a head), m0 (an MLP) or logits."
            raise InputError(
                f"There is no component {name!r} here: {names[0]} to {names[-1]}.{hint}"
            )
        return names.index(name)


def graph_of(model: Model) -> Graph:
    """Return the components of a model."""
    path = model.architecture.in_block(model.architecture.attention, 0)
    norm = getattr(model.hf.get_submodule(path), "k_norm", None)
    weight = getattr(norm, "weight", None)
    if weight is not None and weight.shape[-1] != model.d_head:
        raise InputError(
            f"In {model.name} one norm takes the keys of all heads together, so heads have no "
            "inputs of their own. Component graphs need a family without such norms."
        )
    return Graph(model.n_layers, model.n_heads, model.parallel)
