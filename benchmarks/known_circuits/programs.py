"""Random programs whose circuit branches: variables of tokens, each at a head or an MLP.

A variable of a head is the value before, the first value, whether a value was seen, or how often,
of one earlier variable; that of an MLP is a random table of up to three. The output reads classes
of one or two variables, or adds up numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOKENS, LENGTH = 4, 7  # values of a token, and how many follow the first position
EMBED, OUTPUT = "embed", "logits"
MATTERS = 0.1  # share of outputs that an edge of the program has to change on its own


@dataclass(frozen=True)
class Variable:
    """A value at every position, computed by one component."""

    place: str
    kind: str
    parents: tuple[str, ...]
    size: int  # how many values; 0: a number
    table: Any = None

    def of(self, values: dict[str, Tensor]) -> Tensor:
        """Compute it from its parents, (n, T) each."""
        given = [values[name] for name in self.parents]
        if self.kind == "table":
            return self.table[tuple(given)]
        if self.kind == "pair":
            return given[0] * self.table + given[1] if len(given) > 1 else given[0]
        if self.kind == "sum":
            return sum(w * x.float() for w, x in zip(self.table, given, strict=True))  # pyright: ignore
        (x,) = given
        if self.kind == "previous":
            return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        if self.kind == "first":
            return x[:, :1].expand_as(x)
        hits = (x == self.table).cumsum(1)
        if self.kind == "seen":
            return (hits > 0).long()
        return hits / torch.arange(1, x.shape[1] + 1)  # share


@dataclass(frozen=True)
class Program:
    """Variables in order of computation; the output is the last one."""

    n_layers: int
    n_heads: int
    variables: tuple[Variable, ...]

    @property
    def edges(self) -> list[tuple[str, str]]:
        """What is computed from what."""
        return [(p, v.place) for v in self.variables for p in v.parents]

    @property
    def branches(self) -> bool:
        """Whether something is read by two, and something reads two."""
        out, into = zip(*self.edges, strict=True)
        return all(max(map(ends.count, ends)) > 1 for ends in (out, into))

    def run(self, tokens: Tensor, forced: dict[Any, Tensor] | None = None) -> dict[str, Tensor]:
        """Compute all variables; `forced` has values of variables, or of (parent, reader)."""
        forced, values = forced or {}, {EMBED: tokens}
        for variable in self.variables:
            seen = dict(values)
            for parent in variable.parents:
                if (parent, variable.place) in forced:
                    seen[parent] = forced[parent, variable.place]
            value = variable.of(seen)
            which = forced.get(variable.place)
            values[variable.place] = value if which is None else which
        return values


def sampled_tokens(n: int, seed: int) -> Tensor:
    """Return random tokens, (n, LENGTH)."""
    return torch.randint(TOKENS, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


def random_program(seed: int, chain: bool = False) -> Program:
    """Draw programs until one branches, or is small (`chain`), and needs each of its edges."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        program = _drawn(rng, 3 if seed % 3 == 2 else 2, 4)
        if not program:
            continue
        n = len(program.edges)
        fits = 2 <= n <= 4 and not program.branches if chain else 5 <= n <= 11 and program.branches
        if fits and _needed(program):
            return program


def _needed(program: Program) -> bool:
    """Whether every edge changes the output where it alone is corrupted."""
    clean = program.run(sampled_tokens(500, 1))
    corrupted = program.run(sampled_tokens(500, 2))
    for edge in program.edges:
        got = program.run(clean[EMBED], {edge: corrupted[edge[0]]})[OUTPUT]
        if float(((got - clean[OUTPUT]).abs() > 0.05).float().mean()) < MATTERS:
            return False
    return True


def _drawn(rng: torch.Generator, n_layers: int, n_heads: int) -> Program | None:
    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=rng))

    def some(items: list[str], n: int) -> tuple[str, ...]:
        order = torch.randperm(len(items), generator=rng)[:n].tolist()
        return tuple(items[i] for i in sorted(order))

    sizes = {EMBED: TOKENS}
    found: list[Variable] = []
    numbers = bool(below(3) == 0)  # whether the output is one
    for layer in range(n_layers):
        earlier = [name for name, size in sizes.items() if size]
        for head in some([f"a{layer}.h{h}" for h in range(n_heads)], below(3)):
            kinds = ["previous", "first", "seen"] + ["share"] * (numbers and layer == n_layers - 1)
            kind, (parent,) = kinds[below(len(kinds))], some(earlier, 1)
            size = {"seen": 2, "share": 0}.get(kind, sizes[parent])
            found.append(Variable(head, kind, (parent,), size, below(sizes[parent])))
        sizes |= {v.place: v.size for v in found}
        if below(4):
            parents = some([name for name, size in sizes.items() if size], 1 + below(3))
            shape, size = [sizes[p] for p in parents], 2 + below(3)
            table = torch.randint(size, shape, generator=rng)
            found.append(Variable(f"m{layer}", "table", parents, size, table))
            sizes[f"m{layer}"] = size
    last = [v for v in found if not numbers or v.size in (0, 2)]
    if not last:
        return None
    ends = some([v.place for v in last], 1 + below(2))
    if numbers:
        weights = [1.0, 0.5][: len(ends)]
        output = Variable(OUTPUT, "sum", ends, 0, weights)
    else:
        output = Variable(OUTPUT, "pair", ends, sizes[ends[0]] * sizes[ends[-1]], sizes[ends[-1]])
        if len(ends) == 1:
            output = Variable(OUTPUT, "pair", ends, sizes[ends[0]])
    used, kept = set(output.parents), [output]
    for variable in reversed(found):
        if variable.place in used:
            used |= set(variable.parents)
            kept.append(variable)
    return Program(n_layers, n_heads, tuple(reversed(kept)))


def universe(n_layers: int, n_heads: int) -> list[tuple[str, str]]:
    """Every earlier component to every later one, but not the embedding to the logits."""
    slots = [[EMBED]]
    for layer in range(n_layers):
        slots += [[f"a{layer}.h{h}" for h in range(n_heads)], [f"m{layer}"]]
    slots.append([OUTPUT])
    before = [sum(slots[:i], []) for i in range(len(slots))]
    found = [(a, b) for i, slot in enumerate(slots) for b in slot for a in before[i]]
    return [edge for edge in found if edge != (EMBED, OUTPUT)]
