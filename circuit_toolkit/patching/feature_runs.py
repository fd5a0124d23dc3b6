"""Runs in which features of the residual stream are changed, each site starting afresh.

At every site the stream is put back to what it is on the plain prompt, plus what this run changes
of the features there: so one run shows, for all pairs of adjacent sites at once, what the changes
of a site do to the features of the next, and nothing else. What the dictionaries leave
unexplained stays as it is throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import one_of
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.directions import decoder_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model, run, token_mask
from circuit_toolkit.models.ports import Edit
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, row_slices, rows_of, tokenized_pairs
from circuit_toolkit.tasks.task import trained_on

NewValue = Literal["zero", "mean", "corrupted", "other"]
Bits = Mapping[Site, Tensor]  # (B, p) each: how far a feature goes to its new value, 0 to 1
SIZE = 128  # prompts in a run: more outgrow the caches of a processor


@dataclass(frozen=True, eq=False)
class FeatureRuns:
    """n prompts, their features, and what these may be changed to."""

    model: Model
    dictionaries: Mapping[Site, Dictionary]
    task: PromptPairs
    batch: Batch
    where: Tensor  # (n, T), the t tokens whose features are changed
    streams: Mapping[Site, Tensor]  # (n, T, D)
    features: Mapping[Site, np.ndarray]  # (p,)
    acts: Mapping[Site, Tensor]  # (t, p)
    deltas: Mapping[Site, Tensor]  # (t, p), new value minus old
    logits: Tensor  # (n, 1, V)
    value: NewValue
    positions: Literal["all", "last"]

    @classmethod
    def of(
        cls,
        model: Model,
        dictionaries: Any,
        task: PromptPairs,
        value: NewValue = "zero",
        positions: Literal["all", "last"] = "all",
        n_prompts: int | None = None,
        min_active: int = 10,
        seed: int = 0,
    ) -> Self:
        """Run prompts once, and find what their features may be changed to."""
        ordered = _of_the_stream(as_dictionaries(model, dictionaries))
        one_of(value, "value", "zero", "mean", "corrupted", "other")
        one_of(positions, "positions", "all", "last")
        bos, corrupted = shared_bos(ordered), value == "corrupted"
        pairs = tokenized_pairs(model, task, n_prompts, bos=bos, corrupted=corrupted)
        batch, other = pairs.clean, None
        if value == "other":
            other = rows_of(batch, pairs.partners(seed))
        elif corrupted:
            other = pairs.corrupted
        where = token_mask(model, batch).clone()
        if positions == "last":
            where[:, :-1] = False
        streams, logits = _streams(model, ordered, batch)
        others = None if other is None else _streams(model, ordered, other)[0]
        features, acts, deltas = {}, {}, {}
        prompt = where.nonzero()[:, 0]
        for site, dictionary in ordered.items():
            old = dictionary.encode(streams[site][where])  # (t, F)
            new = torch.zeros_like(old)
            if value == "mean":
                new = old.mean(0, keepdim=True).expand_as(old)
            elif others is not None:
                new = dictionary.encode(others[site][where])
            active = (old != 0) if value == "mean" else (old != 0) | (new != 0)
            on = torch.zeros(len(batch.ids), old.shape[1], device=old.device)
            on.index_add_(0, prompt, active.float())
            kept = ((on > 0).sum(0) >= min_active).nonzero()[:, 0]
            if not len(kept):
                raise InputError(
                    f"No feature of {site} is active on {min_active} of {len(batch.ids)} prompts. "
                    "Use more prompts, or lower min_active."
                )
            features[site] = kept.cpu().numpy()
            acts[site] = old[:, kept]
            deltas[site] = new[:, kept] - old[:, kept]
        found = (streams, features, acts, deltas, logits)
        return cls(model, ordered, task, batch, where, *found, value, positions)

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
        within = torch.cat([torch.arange(k, device=first.device) for k in counts[rows].tolist()])
        return torch.repeat_interleave(first[rows], counts[rows]) + within

    def run(
        self,
        rows: Tensor,
        bits: Bits,
        *,
        afresh: bool = True,
        logits: bool = False,
        leaves: dict[Site, Tensor] | None = None,
    ) -> tuple[dict[Site, Tensor], Tensor | None]:
        """Run some prompts with features changed; return changes of features, and logits.

        For gradients, pass a dict as `leaves`: it is filled with what is added to each stream.
        """
        tokens, where = self.tokens(rows), self.where[rows]
        owner, _ = self._owner(rows)
        found: dict[Site, Tensor] = {}

        def edit_of(site: Site) -> Edit:
            def edit(x: Tensor) -> Tensor:
                if afresh and site != self.sites[0]:
                    acts = self.dictionaries[site].encode_for_gradients(x[where])
                    kept = torch.as_tensor(self.features[site]).to(acts.device)
                    change = acts[:, kept] - self.acts[site][tokens]
                    found[site] = self.pooled(change, rows)
                added = torch.zeros_like(x.detach())
                if site in bits:
                    moved = self.deltas[site][tokens] * bits[site][owner]
                    added[where] = moved @ self.directions(site)
                if leaves is not None:
                    leaves[site] = added.requires_grad_()
                return (self.streams[site][rows] if afresh else x) + added

            return edit

        sites = self.sites if afresh else [site for site in self.sites if site in bits]
        read = [LOGITS] if logits else [self.sites[-1]]
        write = {site: edit_of(site) for site in sites}
        batch, grad = rows_of(self.batch, rows), leaves is not None
        start, first = self.sites[0], None
        blocks = start.layer + (start.kind == "resid_post")
        if blocks and not self.model.edits:  # what comes before is as it was
            first = blocks, self.streams[start][rows]
        out = run(self.model, batch, read, write, last_logits=True, grad=grad, skip=first)
        return found, out[LOGITS] if logits else None

    def _owner(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        counts = self.where.sum(1) if rows is None else self.where[rows].sum(1)
        numbers = torch.arange(len(counts), device=counts.device)
        return torch.repeat_interleave(numbers, counts), counts


def _of_the_stream(dictionaries: dict[Site, Dictionary]) -> dict[Site, Dictionary]:
    if len(dictionaries) < 2:
        raise InputError("Edges run between sites: pass dictionaries of two or more.")
    for site, each in dictionaries.items():
        if site.kind not in ("resid_pre", "resid_post") or each.kind != "sae" or each.needs_input:
            raise InputError(
                f"{each.name!r} at {site} is no plain autoencoder of the residual stream between "
                "blocks. Pass dictionaries at resid_pre and resid_post alone."
            )
    return dictionaries


def _streams(
    model: Model, dictionaries: Mapping[Site, Dictionary], batch: Batch
) -> tuple[dict[Site, Tensor], Tensor]:
    """Streams (n, T, D) at all sites, and logits at the last token (n, 1, V)."""
    read = [*dictionaries, LOGITS]
    parts = [
        run(model, rows_of(batch, rows), read, last_logits=True)
        for rows in row_slices(len(batch.ids), SIZE)
    ]
    whole = {site: torch.cat([part[site] for part in parts]) for site in read}
    return whole, whole.pop(LOGITS)
