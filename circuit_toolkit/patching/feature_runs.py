"""Runs in which features of the residual stream are changed, each site starting afresh.

At every site the stream is put back to what it is on the plain prompt, plus what this run changes
of the features there: so one run shows, for all pairs of adjacent sites at once, what the changes
of a site do to the features of the next, and nothing else. What the dictionaries leave
unexplained stays as it is throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.models.ports import LOGITS_PORT, Edit, Port, block_port, run_ports
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, rows_of
from circuit_toolkit.tasks.task import trained_on

Value = Literal["zero", "mean", "corrupted", "other"]
Bits = Mapping[Site, Tensor]  # (B, p) each: how far a feature goes to its new value, 0 to 1
PORTS = {"resid_pre": "input", "resid_post": "output"}
SIZE = 128  # prompts in a run: more outgrow the caches of a processor


@dataclass(frozen=True, eq=False)
class FeatureRuns:
    """Prompts, their features, and what these may be changed to; `feature_runs` makes it."""

    model: Model
    dictionaries: Mapping[Site, Dictionary]
    task: PromptPairs
    batch: Batch
    where: Tensor
    streams: Mapping[Site, Tensor]
    features: Mapping[Site, np.ndarray]
    acts: Mapping[Site, Tensor]
    deltas: Mapping[Site, Tensor]
    logits: Tensor
    value: Value
    positions: Literal["all", "last"]

    def __len__(self) -> int:
        """Return the number of prompts."""
        return len(self.batch.ids)

    @property
    def sites(self) -> list[Site]:
        """Sites in order of computation."""
        return list(self.dictionaries)

    @property
    def settings(self) -> dict[str, Any]:
        """What a circuit says of how its prompts were run."""
        return {
            "model": self.model.name,
            "task": self.task.name,
            "n_prompts": len(self),
            "trained_on": trained_on(self.task, len(self)),
            "sites": [str(site) for site in self.sites],
            "dictionaries": {str(site): each.name for site, each in self.dictionaries.items()},
            "value": self.value,
            "positions": self.positions,
        }

    def directions(self, site: Site) -> Tensor:
        """Return what one unit of each feature adds to the stream, shape (p, D)."""
        rows = decoder_rows(self.model, self.dictionaries[site])
        return rows[torch.as_tensor(self.features[site]).to(rows.device)].to(self.streams[site])

    def pooled(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """Average over the tokens of each prompt."""
        return self.summed(values, rows) / self._owner(rows)[1][:, None]

    def summed(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """Add up over the tokens of each prompt; see `pooled`."""
        owner, counts = self._owner(rows)
        return values.new_zeros(len(counts), values.shape[1]).index_add(0, owner, values)

    def tokens(self, rows: Tensor) -> Tensor:
        """Return the rows that the tokens of some prompts have in `acts` and `deltas`."""
        counts = self.where.sum(1)
        first = counts.cumsum(0) - counts
        within = torch.cat([torch.arange(k, device=rows.device) for k in counts[rows].tolist()])
        return torch.repeat_interleave(first[rows], counts[rows]) + within

    def changes(self, site: Site) -> Tensor:
        """Return how much each feature changes, averaged over tokens, shape (n, p)."""
        return self.pooled(self.deltas[site])

    def fires(self, site: Site) -> Tensor:
        """Return which features are changed at all on which prompts, shape (n, p)."""
        return self.pooled((self.deltas[site] != 0).float()) > 0

    def run(
        self,
        rows: Tensor,
        bits: Bits,
        *,
        afresh: bool = True,
        measure: bool = False,
        by_token: bool = False,
    ) -> tuple[dict[Site, Tensor], Tensor | None]:
        """Run some prompts with features changed."""
        tokens, where = self.tokens(rows), self.where[rows]
        owner, _ = self._owner(rows)
        found: dict[Site, Tensor] = {}

        def edit_of(site: Site) -> Edit:
            def edit(x: Tensor) -> Tensor:
                if afresh and site != self.sites[0]:
                    acts = self.dictionaries[site].encode(x[where])
                    acts = acts[:, torch.as_tensor(self.features[site]).to(acts.device)]
                    change = acts - self.acts[site][tokens]
                    found[site] = change if by_token else self.pooled(change, rows)
                new = (self.streams[site][rows] if afresh else x).clone()
                if site in bits:
                    moved = self.deltas[site][tokens] * bits[site][owner]
                    new[where] += moved @ self.directions(site)
                return new

            return edit

        sites = self.sites if afresh else [site for site in self.sites if site in bits]
        read = [LOGITS] if measure else [self.sites[-1]]
        write = {site: edit_of(site) for site in sites}
        out = run(self.model, rows_of(self.batch, rows), read, write, last_logits=True)
        return found, out[LOGITS] if measure else None

    def change(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return how much the metric changed, shape (B,), from the logits (B, 1, V) of a run."""
        plain = self.task.metric_of(self.logits[rows], rows.tolist())
        return (self.task.metric_of(logits, rows.tolist()) - plain).detach().float()

    def readout(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return the gradient of the metric to logits."""
        logits = logits.detach().clone().requires_grad_()
        with torch.enable_grad():
            total = self.task.metric_of(logits, rows.tolist()).sum()
        return torch.autograd.grad(total, logits)[0][:, 0]

    def leaves(
        self,
        rows: Tensor,
        point: float,
        sites: Sequence[Site],
        *,
        afresh: bool,
        measure: bool,
    ) -> tuple[dict[Site, Tensor], dict[Site, Tensor], Tensor | None]:
        """Run with streams that gradients can be taken for."""
        tokens, where = self.tokens(rows), self.where[rows]
        added: dict[Site, Tensor] = {}
        found: dict[Site, Tensor] = {}

        def edit_of(site: Site) -> Edit:
            def edit(x: Tensor) -> Tensor:
                if afresh and site != self.sites[0]:
                    acts = self.dictionaries[site].encode_for_gradients(x[where])
                    found[site] = acts[:, torch.as_tensor(self.features[site]).to(acts.device)]
                leaf = torch.zeros_like(x.detach())
                leaf[where] = point * (self.deltas[site][tokens] @ self.directions(site))
                added[site] = leaf.requires_grad_()
                return (self.streams[site][rows] if afresh else x) + leaf

            return edit

        edits: dict[Port, list[Edit]] = {}
        for site in sites:
            port = block_port(self.model, "", PORTS[site.kind], site.layer)
            edits.setdefault(port, []).append(edit_of(site))
        keep = [LOGITS_PORT] if measure else [list(edits)[-1]]
        batch = rows_of(self.batch, rows)
        out = run_ports(self.model, batch, edits, keep, last_logits=True, grad=True)
        score = self.task.metric_of(out[LOGITS_PORT], rows.tolist()) if measure else None
        return added, found, score

    def in_batches(self, rows: Tensor, size: int | None = None) -> Iterator[slice]:
        """Go through rows of runs, so many at once."""
        step = size or SIZE
        for start in range(0, len(rows), step):
            yield slice(start, min(start + step, len(rows)))

    def _owner(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        counts = self.where.sum(1) if rows is None else self.where[rows].sum(1)
        numbers = torch.arange(len(counts), device=counts.device)
        return torch.repeat_interleave(numbers, counts), counts


def gathered(parts: Sequence[dict[Site, Tensor]]) -> dict[Site, Tensor]:
    """Put what several runs found below each other."""
    return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}
