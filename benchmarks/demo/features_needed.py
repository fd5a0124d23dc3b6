"""How many features the bundled dictionaries need for a task, and what they keep at all.

`python -m benchmarks.demo.features_needed` prints the table of `benchmarks/RESULTS.md`. A node is a
feature at a token. Everything at the sites and tokens in question but the nodes of a circuit is
ablated, site after site in one run, and what the dictionaries leave unexplained is kept. Nodes
are ranked by the size of their effect: integrated gradients on the way from everything ablated to
nothing ablated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary, load_dictionaries
from circuit_toolkit.dictionaries.dictionary import DEMO_DICTIONARIES
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.models import LOGITS, Batch, Model, load_model, run, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED, Task
from circuit_toolkit.tasks.prompt_pairs import rows_of, tokenized_pairs

Ablation = Literal["mean", "corrupted"]
Ranking = Literal["gradients", "change"]
Keep = Mapping[Site, Tensor]  # (t, F) each: 1 where a node is kept, 0 where it is ablated
POINTS = 8  # of integrated gradients
AT_ONCE = 64  # prompts in a run
FAITHFULNESS, COMPLETENESS = 0.8, 0.2
MOST = 2048  # nodes


@dataclass(frozen=True, eq=False)
class Nodes:
    """n prompts, t tokens of theirs, and what the features there are ablated to."""

    model: Model
    dictionaries: Mapping[Site, Dictionary]
    task: Task
    batch: Batch
    where: Tensor  # (n, T), the tokens in question
    place: Tensor  # (t,), which of the named places each is; 0 where these have no names
    target: Mapping[Site, Tensor]  # (t, F)
    acts: Mapping[Site, Tensor]  # (t, F)

    @classmethod
    def of(
        cls,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        task: Task,
        positions: str = "last",
        ablation: Ablation = "mean",
    ) -> Self:
        """Run prompts once; `positions` is `last`, `named` (the task's and the last) or `all`."""
        pairs = tokenized_pairs(model, task)
        where = token_mask(model, pairs.clean).clone()
        places = torch.zeros(where.shape, dtype=torch.long)
        if positions != "all":
            named = list(task.positions.values()) if positions == "named" else []
            where[:, :-1] = False
            for number, ends in enumerate(named, start=1):
                rows = torch.arange(len(where))
                where[rows, torch.tensor(ends)] = True
                places[rows, torch.tensor(ends)] = number
        place, sites = places[where], list(dictionaries)
        streams = [_read(model, batch, sites) for batch in (pairs.clean, pairs.corrupted)]
        acts, target = {}, {}
        for site, dictionary in dictionaries.items():
            old, new = (dictionary.encode(stream[site][where]) for stream in streams)
            acts[site], target[site] = old, new
            if ablation == "mean":  # over both kinds of prompts, as everywhere in the package
                means = [(old + new)[place == i].mean(0) / 2 for i in range(int(place.max()) + 1)]
                target[site] = torch.stack(means)[place]
        return cls(model, dictionaries, task, pairs.clean, where, place, target, acts)

    @property
    def owner(self) -> Tensor:
        """Prompt of each token, shape (t,)."""
        return self.where.nonzero()[:, 0]

    def metric(self, keep: Keep | None, grad: bool = False, errors: bool = True) -> Tensor:
        """Metric of every prompt with nodes ablated, shape (n,); None keeps the model as it is."""
        parts = []
        for start in range(0, len(self.batch.ids), AT_ONCE):
            rows = torch.arange(start, min(start + AT_ONCE, len(self.batch.ids)))
            write = {} if keep is None else self._edits(keep, rows, errors)
            batch = rows_of(self.batch, rows)
            out = run(self.model, batch, [LOGITS], write, last_logits=True, grad=grad)
            part = self.task.metric_of(out[LOGITS], rows.tolist())
            if grad:
                part.sum().backward()
            parts.append(part.detach())
        return torch.cat(parts)

    def _edits(self, keep: Keep, rows: Tensor, errors: bool) -> dict[Site, Any]:
        tokens, where = torch.isin(self.owner, rows), self.where[rows]

        def edit_of(site: Site) -> Any:
            dictionary = self.dictionaries[site]
            directions = decoder_rows(self.model, dictionary)

            def edit(x: Tensor) -> Tensor:
                acts = dictionary.encode_for_gradients(x[where])
                target = self.target[site][tokens]
                change = (1 - keep[site][tokens]) * (target - acts)
                new = x.clone()
                if errors:
                    new[where] = x[where] + change @ directions
                else:
                    new[where] = dictionary.decode(acts + change).to(x)
                return new

            return edit

        return {site: edit_of(site) for site in keep}

    def all(self, value: float, sites: Sequence[Site] | None = None) -> dict[Site, Tensor]:
        """Keep all nodes of some sites alike."""
        every = self.dictionaries if sites is None else sites
        return {site: torch.full_like(self.acts[site], value) for site in every}

    def scores(self, sites: Sequence[Site], ranking: Ranking = "gradients") -> dict[Site, Tensor]:
        """Score every node (t, F): what its ablation takes away, or how much it changes it."""
        if ranking == "change":
            return {
                site: (self.acts[site] - self.target[site]).abs()
                * decoder_rows(self.model, self.dictionaries[site]).norm(dim=1)
                for site in sites
            }
        total = self.all(0.0, sites)
        for point in range(POINTS):
            keep = self.all((point + 0.5) / POINTS, sites)
            for value in keep.values():
                value.requires_grad_()
            self.metric(keep, grad=True)
            for site, value in keep.items():
                assert value.grad is not None
                total[site] += value.grad / POINTS
        return total

    def ranks(self, scores: Mapping[Site, Tensor], shared: bool) -> dict[Site, Tensor]:
        """Rank nodes, 0 is the best: in each prompt, or by place for all together.

        Nodes whose score is 0 have no rank, so they are always ablated.
        """
        sites, owner = list(scores), self.owner
        never = torch.iinfo(torch.int32).max
        if shared:
            n = int(self.place.max()) + 1
            table = torch.stack(
                [
                    torch.stack([scores[site][self.place == i].sum(0) for i in range(n)])
                    for site in sites
                ]
            ).abs()  # (sites, places, F)
            flat = table.flatten()
            order = flat.argsort(descending=True)
            rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
            rank = torch.where(flat > 0, rank, never).view_as(table).int()
            return {site: rank[i][self.place] for i, site in enumerate(sites)}
        ranks = {site: torch.full(scores[site].shape, never, dtype=torch.int32) for site in sites}
        found = [scores[site].nonzero().T for site in sites]
        for prompt in range(len(self.where)):
            mine = [each[:, owner[each[0]] == prompt] for each in found]
            sizes = [scores[s][tuple(at)].abs() for s, at in zip(sites, mine, strict=True)]
            order = torch.cat(sizes).argsort(descending=True)
            rank = torch.empty(len(order), dtype=torch.int32)
            rank[order] = torch.arange(len(order), dtype=torch.int32)
            parts = rank.split([each.shape[1] for each in mine])
            for site, at, part in zip(sites, mine, parts, strict=True):
                ranks[site][tuple(at)] = part
        return ranks

    def needed(
        self, sites: Sequence[Site], shared: bool = False, ranking: Ranking = "gradients"
    ) -> dict[str, Any]:
        """Count the nodes that it takes, in each prompt or (shared) for all prompts together."""
        full, empty = float(self.metric(None).mean()), float(self.metric(self.all(0, sites)).mean())
        ranks = self.ranks(self.scores(sites, ranking), shared)

        def share(size: int, inside: bool) -> float:
            keep = {site: ((rank < size) == inside).float() for site, rank in ranks.items()}
            return (float(self.metric(keep).mean()) - empty) / (full - empty)

        faithful = _smallest(lambda size: share(size, True) >= FAITHFULNESS)
        complete = _smallest(lambda size: share(size, False) <= COMPLETENESS)
        return {"full": full, "empty": empty, "faithful": faithful, "complete": complete}


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest size that is enough, if more are enough as well, by bisection."""
    low, high = 0, MOST  # not enough; enough
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _read(model: Model, batch: Batch, sites: Sequence[Site]) -> dict[Site, Tensor]:
    parts = [
        run(model, rows_of(batch, slice(start, start + AT_ONCE)), sites)
        for start in range(0, len(batch.ids), AT_ONCE)
    ]
    return {site: torch.cat([part[site] for part in parts]) for site in sites}


def features_needed(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    n: int = 32,
    seed: int = 2000,
    tasks: Iterable[str] = BUNDLED,
    shared: bool = False,
    single: bool = False,
) -> dict[str, dict[str, Any]]:
    """Count the nodes that tasks need on held-out prompts.

    Parameters
    ----------
    model : Model
        The bundled model.
    dictionaries : dict of Site to Dictionary
        Autoencoders of its residual stream.
    n : int
        Prompts a task.
    seed : int
        Of the grammar.
    tasks : iterable of str
        Which tasks.
    shared : bool
        Whether to count nodes for all prompts together, too.
    single : bool
        The same for one site at a time.

    Returns
    -------
    dict
        By task, by what the nodes are: `faithful`, how many it takes for faithfulness .8;
        `complete`, how many for completeness .2; the metric `full` and `empty`. `errors ablated`:
        share of the metric that is kept with reconstructions alone at all sites.
    """
    found: dict[str, dict[str, Any]] = {}
    every = list(dictionaries)
    for name in tasks:
        task = BUNDLED[name](model, n=n, seed=seed, test=True)
        table: dict[str, Any] = {}
        whole = Nodes.of(model, dictionaries, task, "all", "corrupted")
        table["prompt, all tokens, corrupted"] = whole.needed(every)
        rebuilt = float(whole.metric(whole.all(1), errors=False).mean())
        table["errors ablated"] = rebuilt / table["prompt, all tokens, corrupted"]["full"]
        for ablation in ("mean", "corrupted"):
            last = Nodes.of(model, dictionaries, task, "last", ablation)
            table[f"prompt, last token, {ablation}"] = last.needed(every)
            if shared:
                table[f"task, last token, {ablation}"] = last.needed(every, shared=True)
            if single:
                for site in every:
                    one = last.needed([site], shared=True)
                    table[f"task, last token, {ablation}, {site.short}"] = one
        if shared:
            named = Nodes.of(model, dictionaries, task, "named", "corrupted")
            table["task, named tokens, corrupted"] = named.needed(every, shared=True)
        found[name] = table
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure dictionaries and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dictionaries", type=Path, default=DEMO_DICTIONARIES)
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--seed", type=int, default=2000)
    parser.add_argument("--tasks", nargs="+", default=list(BUNDLED))
    parser.add_argument("--single", action="store_true", help="one site at a time, too")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    model = load_model("demo")
    loaded = load_dictionaries(model, args.dictionaries)
    saes = {site: each for site, each in loaded.items() if each.kind == "sae"}
    began = time.process_time()
    found = features_needed(model, saes, args.n, args.seed, args.tasks, True, args.single)
    if args.json:
        args.json.write_text(json.dumps(found))
    print(table(found))
    print(f"\n{time.process_time() - began:.0f} CPU s")


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the measured numbers as Markdown: for faithfulness .8, for completeness .2."""
    lines = [f"| nodes | {' | '.join(found)} |", f"|---{'|---' * len(found)}|"]
    for what in next(iter(found.values())):
        cells = []
        for each in found.values():
            value = each[what]
            if isinstance(value, float):
                cells.append(f"{value:.2f}")
            else:
                sizes = value["faithful"], value["complete"]
                cells.append(", ".join(f"> {MOST}" if s is None else str(s) for s in sizes))
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
