"""Where a feature fires: the strongest token of each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuit_toolkit.activations.activations import MEAN, Activations
from circuit_toolkit.activations.capture_plan import Scored
from circuit_toolkit.activations.capturing import Prompts, capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class Firings:
    """Firings of a feature, at most one a prompt; all of shape (n,)."""

    prompt: np.ndarray
    position: np.ndarray
    activation: np.ndarray

    def some(self, which: np.ndarray) -> Firings:
        """Take some of them, (k,) indices."""
        return Firings(self.prompt[which], self.position[which], self.activation[which])


def texts_of(dataset: Prompts) -> list:
    """Return the prompts of a dataset as a list."""
    if isinstance(dataset, str):
        raise InputError("The dataset is a list of texts or a task, not one text: write [text].")
    found = dataset.texts if isinstance(dataset, Scored) else list(dataset)
    if not found:
        raise InputError("The dataset is empty: pass texts on which the feature may fire.")
    return found


def strongest_firings(
    model: Model,
    prompts: Sequence,
    dictionary: Dictionary,
    index: int,
    *,
    context: int,
    acts: Activations | ActivationStore | None = None,
    batch_size: int = 128,
    progress: bool = False,
) -> Firings:
    """Find the strongest firing of a feature in every prompt in which it fires."""
    site = dictionary.site
    if acts is None:
        own: Mapping[Site, Dictionary] = {site: dictionary}
        acts = capture(model, own, prompts, batch_size=batch_size, progress=progress)
    elif acts.n_prompts != len(prompts):
        raise MismatchError(
            f"acts are of {acts.n_prompts} prompts, the dataset has {len(prompts)}. Capture the "
            "same prompts, or leave acts out."
        )
    found, offset = [], 0
    for part in acts.shards():
        if (part.position == MEAN).any() or part.settings.get("positions", "all") != "all":
            raise InputError("Firings are at tokens: capture(..., positions='all').")
        if site not in part.features:
            raise MismatchError(f"acts hold nothing of {site}: capture with its dictionary.")
        column = part.features[site][:, [index]].tocoo()
        kept = (column.data > 0) & (part.position[column.row] < context)
        row, value = column.row[kept], column.data[kept]
        prompt, position = part.prompt[row], part.position[row]
        order = np.lexsort((position, -value, prompt))
        first = np.unique(prompt[order], return_index=True)[1]
        which = order[first]
        found.append(Firings(prompt[which] + offset, position[which], value[which]))
        offset += part.n_prompts
    firings = Firings(
        *(
            np.concatenate([getattr(each, name) for each in found])
            for name in ("prompt", "position", "activation")
        )
    )
    if not len(firings.prompt):
        raise InputError(
            f"{site}/{index} never fires on these {len(prompts)} prompts. Pass more or other texts."
        )
    return firings
