"""Where a feature fires: the strongest token of each prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuit_toolkit.activations import MEAN, Activations
from circuit_toolkit.capture import Prompts, capture
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.reader import Scored
from circuit_toolkit.sites import Site
from circuit_toolkit.store import ActivationStore


@dataclass(frozen=True, eq=False)
class Firings:
    """Firings of a feature, at most one a prompt; all of shape (n,).

    Parameters
    ----------
    prompt, position : ndarray of int
        Which prompt, and which of its tokens, counted from 0.
    activation : ndarray of float
        Above 0.
    """

    prompt: np.ndarray
    position: np.ndarray
    activation: np.ndarray

    def some(self, which: np.ndarray) -> Firings:
        """Take some of them, (k,) indices."""
        return Firings(self.prompt[which], self.position[which], self.activation[which])


def texts_of(dataset: Prompts) -> list:
    """Give the prompts of a dataset as a list.

    Parameters
    ----------
    dataset : Task or sequence of str or of token ids
        What the feature is watched on.

    Returns
    -------
    list

    Raises
    ------
    InputError
        If there are none.
    """
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
    """Find the strongest firing of a feature in every prompt in which it fires.

    Parameters
    ----------
    model : Model
        The model.
    prompts : sequence of str or of token ids
        Where to look.
    dictionary : Dictionary
        Whose feature it is.
    index : int
        Which.
    context : int
        Look at so many tokens of a prompt, the first.
    acts : Activations or ActivationStore, optional
        Of the same prompts, captured with `positions="all"`; without it the model runs.
    batch_size : int
        Prompts in one run.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Firings
        The first of equal ones.

    Raises
    ------
    InputError
        If the feature fires nowhere, or the activations are not of all tokens.
    MismatchError
        If they are of other prompts or lack the site.
    """
    site = dictionary.site
    if acts is None:
        own: Mapping[Site, Dictionary] = {site: dictionary}
        acts = capture(model, prompts, own, batch_size=batch_size, progress=progress)
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
