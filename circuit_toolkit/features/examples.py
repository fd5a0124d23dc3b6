"""Where a feature fires: its strongest and its typical texts, and how its activations spread."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import expect, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import plain
from circuit_toolkit.sites import Site

BANDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # quantiles of the maxima of texts
BINS = 20


@dataclass(frozen=True)
class Example:
    """A text, or the part of it round the strongest token."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    position: int
    before: bool = False
    after: bool = False


@dataclass(frozen=True)
class FeatureExamples:
    """Where a feature fires on a set of prompts.

    Parameters
    ----------
    site : Site
        Where the feature is.
    feature : int
        Which.
    n_tokens, n_prompts : int
        What was looked at; neither beginning-of-sequence tokens nor those of outlying size, such as
        an attention sink, are counted, see `Activations.inlying`.
    n_fired_tokens, n_fired_prompts : int
        Where it is not zero.
    maximum : float
        Largest activation; 0 if it never fires.
    edges, counts : tuple of float, tuple of int
        Histogram of the activations above zero, in bins of equal width from 0 to the maximum.
    top : tuple of Example
        The strongest, no text twice.
    quantiles : tuple of (float, float, tuple of Example)
        For each quarter of the texts on which it fires, the weakest first: the range of their
        maxima, and some of them.
    """

    site: Site
    feature: int
    n_tokens: int
    n_prompts: int
    n_fired_tokens: int
    n_fired_prompts: int
    maximum: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    top: tuple[Example, ...]
    quantiles: tuple[tuple[float, float, tuple[Example, ...]], ...]

    @property
    def density(self) -> float:
        """Share of the tokens on which it fires."""
        return self.n_fired_tokens / max(1, self.n_tokens)

    @property
    def prompt_density(self) -> float:
        """Share of the prompts on which it fires."""
        return self.n_fired_prompts / max(1, self.n_prompts)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain JSON.

        Returns
        -------
        dict
        """
        bands = [
            {"low": low, "high": high, "examples": [asdict(each) for each in examples]}
            for low, high, examples in self.quantiles
        ]
        shares = {"density": self.density, "prompt_density": self.prompt_density}
        others = {"site": str(self.site), "quantiles": bands}
        return plain(asdict(self) | shares | others, "examples")


def token_rows(part: Activations, *sites: Site) -> np.ndarray:
    """Return which rows are tokens that count: not a beginning, nor of outlying size at a site."""
    captured = part.settings.get("positions", "all")
    if captured != "all" or (part.position == MEAN).any():
        raise InputError(
            f"These activations hold positions={captured!r}, not every token: "
            "capture(..., positions='all')."
        )
    counted = part.position > 0 if part.settings.get("bos") else np.ones(len(part.position), bool)
    return np.flatnonzero(np.logical_and.reduce([counted, *map(part.inlying, sites)]))


def feature_examples(
    acts: Activations | ActivationStore,
    site: Site | str,
    feature: int,
    *,
    n: int = 8,
    n_quantile: int = 2,
    window: int | None = 24,
) -> FeatureExamples:
    """Find the strongest and the typical texts of a feature, shard by shard.

    Parameters
    ----------
    acts : Activations or ActivationStore
        Captured with `positions="all"`.
    site : Site or str
        Where the feature is.
    feature : int
        Which.
    n : int
        So many of the strongest texts.
    n_quantile : int
        So many texts of each quarter, spread evenly over its ranks.
    window : int, optional
        Keep so many tokens on either side of the strongest; None keeps whole texts.

    Returns
    -------
    FeatureExamples

    Raises
    ------
    InputError
        If the site was not captured, the feature does not exist, rows are not tokens, or a number
        is negative.
    """
    expect(acts, "acts", "Activations", "ActivationStore")
    site, feature = Site.parse(site), whole(feature, "feature")
    n, n_quantile = whole(n, "n", 0), whole(n_quantile, "n_quantile", 0)
    window = None if window is None else whole(window, "window", 0)
    if site not in acts.sites:
        known = ", ".join(map(str, acts.sites))
        raise InputError(f"{site} was not captured, only {known}.")
    active: list[np.ndarray] = []
    texts: dict[bytes, tuple[float, int, int]] = {}  # text -> its maximum, shard, prompt
    n_tokens = n_prompts = n_fired = 0
    for number, part in enumerate(acts.shards()):
        values, prompts, _ = _column(part, site, feature)
        n_tokens += len(token_rows(part, site))
        n_prompts += part.n_prompts
        active.append(values)
        strongest = np.zeros(part.n_prompts)
        np.maximum.at(strongest, prompts, values)
        fired = np.unique(prompts)
        n_fired += len(fired)
        for prompt in fired.tolist():
            # a digest: the texts of a large store are not all held
            key = hashlib.blake2b("\0".join(part.tokens[prompt]).encode(), digest_size=16).digest()
            texts.setdefault(key, (float(strongest[prompt]), number, prompt))
    every = np.concatenate(active)
    maximum = float(every.max(initial=0.0))
    counts, edges = np.histogram(every, BINS, (0.0, maximum or 1.0))
    ranked = sorted(texts.values(), key=lambda each: (-each[0], *each[1:]))
    bands = _bands(ranked[::-1], n_quantile)
    chosen = {each[1:] for each in [*ranked[:n], *(each for band in bands for each in band[2])]}
    shown = _read(acts, site, feature, chosen, window)
    return FeatureExamples(
        site,
        feature,
        n_tokens,
        n_prompts,
        len(every),
        n_fired,
        maximum,
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        tuple(shown[each[1:]] for each in ranked[:n]),
        tuple((low, high, tuple(shown[each[1:]] for each in band)) for low, high, band in bands),
    )


def _column(part: Activations, site: Site, feature: int) -> tuple[np.ndarray, ...]:
    """Where a feature is above zero on tokens that count: values, prompts, positions."""
    rows, matrix = token_rows(part, site), part.features[site]
    assert matrix.shape is not None
    if not 0 <= feature < matrix.shape[1]:
        raise InputError(f"{site} has features 0 to {matrix.shape[1] - 1}, got {feature}.")
    values = matrix[:, [feature]].toarray().ravel()[rows]
    fires = values > 0
    return values[fires], part.prompt[rows][fires], part.position[rows][fires]


def _bands(weakest_first: list, n: int) -> list[tuple[float, float, list]]:
    """Cut into quarters; of each its range, and some members, the strongest first."""
    found = []
    for low, high in zip(BANDS[:-1], BANDS[1:], strict=True):
        a, b = (round(share * len(weakest_first)) for share in (low, high))
        band = weakest_first[a:b]
        if not band or not n:
            continue
        # evenly spaced, away from the ends: the strongest of all stand under `top`
        places = np.unique(((np.arange(n) + 0.5) / n * len(band)).astype(int))[::-1]
        found.append((band[0][0], band[-1][0], [band[place] for place in places]))
    return found


def _read(
    acts: Activations | ActivationStore,
    site: Site,
    feature: int,
    chosen: set[tuple[int, int]],
    window: int | None,
) -> dict[tuple[int, int], Example]:
    """Return chosen texts, by shard and prompt."""
    found = {}
    for number, part in enumerate(acts.shards()) if chosen else ():
        wanted = [prompt for shard, prompt in chosen if shard == number]
        values, prompts, positions = _column(part, site, feature) if wanted else ([], [], [])
        for prompt in wanted:
            line = np.zeros(len(part.tokens[prompt]), np.float32)
            mine = prompts == prompt
            line[positions[mine]] = values[mine]
            peak = int(line.argmax())
            start = 0 if window is None else max(0, peak - window)
            stop = len(line) if window is None else peak + window + 1
            found[number, prompt] = Example(
                tuple(part.tokens[prompt][start:stop]),
                tuple(line[start:stop].tolist()),
                peak - start,
                before=start > 0,
                after=stop < len(line),
            )
    return found
