"""Where a feature is active: the strongest token of each prompt, and a draw of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

CONTEXT = 128  # tokens of a prompt on which the feature is watched, as published
BINS, ALPHA = 20, 0.9  # of the draw, as published


@dataclass(frozen=True, eq=False)
class ActivatingExamples:
    """Tokens on which a feature is active, at most one a prompt; all of shape (n,)."""

    prompt: np.ndarray
    position: np.ndarray
    activation: np.ndarray

    def some(self, which: np.ndarray) -> ActivatingExamples:
        """Return some of them, by (k,) indices."""
        return ActivatingExamples(*(column[which] for column in vars(self).values()))


def strongest_examples(
    model: Model,
    prompts: Sequence,
    dictionary: Dictionary,
    index: int,
    acts: Activations | ActivationStore | None = None,
    progress: bool = False,
) -> ActivatingExamples:
    """Find the strongest token, of usual size, of a feature in every prompt where it is active."""
    site = dictionary.site
    if acts is None:
        own: Mapping[Site, Dictionary] = {site: dictionary}
        acts = capture(model, own, prompts, batch_size=128, progress=progress)
    elif acts.n_prompts != len(prompts):
        raise MismatchError(
            f"acts are of {acts.n_prompts} prompts, and {len(prompts)} were given. Capture the "
            "same prompts, or leave acts out."
        )
    found, offset = [], 0
    for part in acts.shards():
        if (part.position == MEAN).any() or part.settings.get("positions", "all") != "all":
            raise InputError("Activating examples are tokens: capture(..., positions='all').")
        if site not in part.features:
            raise MismatchError(f"acts hold nothing of {site}: capture with its dictionary.")
        column = part.features[site][:, [index]].tocoo()
        kept = (column.data > 0) & (part.position[column.row] < min(CONTEXT, model.context))
        kept &= part.inlying(site)[column.row]
        row, value = column.row[kept], column.data[kept]
        prompt, position = part.prompt[row], part.position[row]
        order = np.lexsort((position, -value, prompt))
        which = order[np.unique(prompt[order], return_index=True)[1]]
        found.append((prompt[which] + offset, position[which], value[which]))
        offset += part.n_prompts
    examples = ActivatingExamples(*map(np.concatenate, zip(*found, strict=True)))
    if not len(examples.prompt):
        raise InputError(
            f"{site}/{index} never fires on these {len(prompts)} prompts. Pass more or other texts."
        )
    return examples


def sampling_weights(values: np.ndarray, bins: int = BINS, alpha: float = ALPHA) -> np.ndarray:
    """Weigh examples by how rare their strength is."""
    which = np.ceil(values / values.max() * bins).astype(int).clip(1, bins) - 1
    weights = np.bincount(which, minlength=bins)[which].astype(float) ** -alpha
    return weights / weights.sum()


def sample_examples(values: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Draw examples without replacement, by `sampling_weights`."""
    if len(values) <= n:
        return np.arange(len(values))
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(len(values), n, replace=False, p=sampling_weights(values)))
