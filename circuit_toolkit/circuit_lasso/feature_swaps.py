"""Randomised CircuitLasso over features: many are changed at once, at random, and sorted out.

Forward passes alone. In each run a random share of the features of every site is changed; the
changes of the features of the next site, and of the logits, are regressed on what was changed:
token by token for the former (`token_effects`). For the latter the bits are independent, so a
lasso finds who did it, and one step of its own gradient takes the bias off what it found
(Javanmard and Montanari, 2014, with the identity as the inverse of the correlations).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from circuit_toolkit.arguments import whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit_lasso.token_effects import TokenChanges, token_effects
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.models import Model
from circuit_toolkit.patching.feature_effects import FeatureEffects
from circuit_toolkit.patching.feature_runs import SIZE, Bits, FeatureRuns, NewValue
from circuit_toolkit.regression import GramStatistics, lasso_path
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import PromptPairs, row_slices

SHARE = 0.05  # of the features of a site that change in a run, for effects on later features
STRENGTH = 0.1  # of the largest effect on a feature, from which on an edge is drawn
NODE_SHARE, NODE_STRENGTH, NODE_DRAWS = 0.3, 0.3, 4  # for effects on the metric
_LESS = 18  # times fewer runs than exact ablations, so that the regressions too fit into a tenth
_MOST = 16  # draws, where every feature changes on every prompt
_ASKED = 0.01  # tokens that count less in the metric, as a share of the most, are not regressed


def randomised_features(
    model: Model,
    dictionaries: Mapping[Site, Dictionary],
    task: PromptPairs,
    *,
    value: NewValue = "mean",
    positions: Literal["all", "last"] = "all",
    n_prompts: int | None = None,
    min_active: int = 10,
    draws: int | None = None,
    max_features: int | None = 100,
    max_edges: int | None = 500,
    seed: int = 0,
    batch_size: int = SIZE,
    progress: bool = True,
) -> Circuit:
    """Learn a circuit of features by changing random subsets of them.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary
        Autoencoders of the residual stream between blocks.
    task : PromptPairs
        Prompts and a metric; a `Task` is one.
    value, positions, n_prompts, min_active
        See `feature_attribution`.
    draws : int, optional
        Runs of a prompt that find effects on later features; by default an eighteenth of what
        exact ablations take, at most 16. Four more find effects on the metric.
    max_features, max_edges : int, optional
        Keep at most so many; see `FeatureEffects.circuit`.
    seed : int
        Decides what is changed.
    batch_size : int
        Prompts that run at once.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Circuit
        Weights are mean effects.

    Raises
    ------
    InputError
        If a setting is out of range, or dictionaries or prompts will not do.
    """
    began = time.perf_counter()
    runs = FeatureRuns.of(model, dictionaries, task, value, positions, n_prompts, min_active, seed)
    effects = randomised_effects(
        runs, draws=draws, seed=seed, batch_size=batch_size, progress=progress
    )
    settings = {**effects.settings, "seconds": time.perf_counter() - began}
    circuit = effects.circuit(max_features, max_edges)
    return Circuit(circuit.nodes, circuit.edges, settings)


def randomised_effects(
    runs: FeatureRuns,
    *,
    draws: int | None = None,
    edges: bool = True,
    nodes: bool = True,
    seed: int = 0,
    batch_size: int = SIZE,
    progress: bool = False,
) -> FeatureEffects:
    """Estimate all effects of single features from runs in which many are changed."""
    if draws is None:
        draws = min(max(round(runs.exact_runs() / (_LESS * len(runs))), 1), _MOST)
    draws = whole(draws, "draws", 1)
    began = time.perf_counter()
    rng = torch.Generator().manual_seed(whole(seed, "seed", 0))
    everything = torch.arange(len(runs))
    sites = runs.sites
    tables: dict[Site, np.ndarray] = {}
    chosen: dict[Site, np.ndarray] = {}
    measured: dict[Site, np.ndarray] = {}
    if edges:
        parts = _token_changes(runs, everything.repeat(draws), rng, batch_size, progress)
        for site in sites[:-1]:
            size = np.abs(tables.setdefault(site, token_effects(runs, site, parts.pop(site))))
            chosen[site] = (size > 0) & (size >= STRENGTH * size.max(0))
    if nodes:
        rows = everything.repeat(NODE_DRAWS)
        bits = {site: _bits(runs, site, len(rows), NODE_SHARE, rng) for site in sites}
        logits = _logits(runs, rows, bits, batch_size, progress)
        measured = _node_effects(runs, rows, bits, logits, NODE_STRENGTH)
    return FeatureEffects(
        runs.features,
        tables,
        measured,
        runs.mean_activations(),
        chosen,
        {
            "method": "randomised CircuitLasso over features",
            **runs.settings,
            "draws": draws,
            "seed": seed,
            "runs": len(runs) * (draws * edges + NODE_DRAWS * nodes),
            "seconds": time.perf_counter() - began,
        },
    )


def _bits(runs: FeatureRuns, site: Site, n: int, share: float, rng: torch.Generator) -> Tensor:
    drawn = torch.rand(n, len(runs.features[site]), generator=rng) < share
    return drawn.to(runs.streams[site])


def _token_changes(
    runs: FeatureRuns,
    rows: Tensor,
    rng: torch.Generator,
    batch_size: int,
    progress: bool,
) -> dict[Site, list[TokenChanges]]:
    """Change features of every site but the last, and see what comes of it at the next."""
    sites, lengths = runs.sites, runs.where.sum(1)
    changes: dict[Site, list[TokenChanges]] = {site: [] for site in sites[:-1]}
    for part in row_slices(len(rows), batch_size, progress, "edges"):
        some = rows[part]
        bits = {site: _bits(runs, site, len(some), SHARE, rng) for site in sites[:-1]}
        found, _ = runs.run(some, bits, by_token=True)
        tokens = runs.tokens(some)
        of = torch.repeat_interleave(torch.arange(len(some)), lengths[some].cpu())
        for site, later in zip(sites, sites[1:], strict=False):
            moved = runs.deltas[site][tokens] * bits[site][of]
            changes[site].append(
                TokenChanges(
                    sp.csr_array(moved.cpu().numpy()),
                    sp.csr_array(found[later].cpu().numpy()),
                    tokens.cpu().numpy(),
                    lengths[some].cpu().numpy(),
                )
            )
    return changes


def _logits(runs: FeatureRuns, rows: Tensor, bits: Bits, batch_size: int, progress: bool) -> Tensor:
    """Logits (B, V) at the last token where changes travel on."""
    outcomes = []
    for part in row_slices(len(rows), batch_size, progress, "nodes"):
        some = {site: values[part] for site, values in bits.items()}
        _, logits = runs.run(rows[part], some, afresh=False, logits=True)
        assert logits is not None
        outcomes.append(logits[:, 0])
    return torch.cat(outcomes)


def _node_effects(
    runs: FeatureRuns, rows: Tensor, bits: Bits, logits: Tensor, strength: float
) -> dict[Site, np.ndarray]:
    """Effects on the metric (p,) by site, by way of the logits (B, V) that it reads."""
    sites = runs.sites
    changes = torch.cat([runs.changes(site) for site in sites], 1)  # (n, p of all sites)
    X = torch.cat([bits[site] for site in sites], 1) * changes[rows]
    each = runs.readout(logits[:, None], rows)
    readout = torch.zeros_like(runs.logits[:, 0]).index_add(0, rows, each)  # (n, V)
    readout = readout / torch.bincount(rows, minlength=len(runs))[:, None]
    weight = readout.abs().mean(0)
    tokens = (weight > _ASKED * weight.max()).nonzero()[:, 0]
    Y = (logits - runs.logits[rows, 0])[:, tokens]
    slopes, _ = _slopes(X, Y, strength)
    asked = readout[:, tokens] @ torch.as_tensor(slopes.T).to(readout)  # (n, p)
    effect = (changes * asked).mean(0).cpu().numpy()
    ends = np.cumsum([len(runs.features[site]) for site in sites])[:-1]
    return dict(zip(sites, np.split(effect, ends), strict=True))


def _slopes(X: Tensor, Y: Tensor, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Raw slopes (p, q) of Y (n, q) on X (n, p) without the bias of the lasso, and its support."""
    live = np.flatnonzero((Y != 0).any(0).cpu().numpy())
    slopes = np.zeros((X.shape[1], Y.shape[1]))
    support = np.zeros(slopes.shape, bool)
    if not len(live):
        return slopes, support
    stats = GramStatistics.from_arrays(X.cpu().numpy(), Y.cpu().numpy()[:, live]).standardised()
    B = lasso_path(stats, [strength]).standardised(0).toarray()
    free = B + stats.correlation_xy - stats.correlation_xx @ B
    units = np.divide(1.0, stats.scale_x, out=np.zeros_like(stats.scale_x), where=stats.scale_x > 0)
    slopes[:, live] = free * units[:, None] * stats.scale_y
    support[:, live] = B != 0
    return slopes, support
