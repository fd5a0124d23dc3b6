"""Text that a model writes, with and without an intervention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.runs import intervened
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.sites import Site


@dataclass(frozen=True)
class Generation:
    """What follows a prompt.

    Parameters
    ----------
    prompt : str
        The prompt.
    before, after : str
        What the model writes by itself, and under the intervention.
    """

    prompt: str
    before: str
    after: str


def generate(
    model: Model,
    prompt: str,
    changes: Sequence[Change],
    dictionaries: Mapping[Site, Dictionary] | None = None,
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generation:
    """Let the model go on from a prompt, by itself and with changes.

    Every step runs the whole text, so changes act on its tokens and on those just written.

    Parameters
    ----------
    model : Model
        The model.
    prompt : str
        Where to begin.
    changes : sequence of Change
        What is done in every step; `positions="last"` is the token just written.
    dictionaries : dict of Site to Dictionary, optional
        Those whose features are meant.
    max_new_tokens : int
        Stop after so many, at the end-of-sequence token, or where the context is full.
    temperature : float
        0 takes the likeliest token; else the temperature of sampling.
    seed : int
        Of sampling; both texts draw the same numbers.

    Returns
    -------
    Generation

    Raises
    ------
    InputError
        If a change does not fit, or a number makes no sense.
    """
    if max_new_tokens < 1 or not 0 <= temperature < math.inf:
        raise InputError(
            f"max_new_tokens must be at least 1 and temperature 0 or more, got {max_new_tokens} "
            f"and {temperature}."
        )
    start = model.tokenize([prompt], bos=shared_bos(dictionaries or {}))
    options = (max_new_tokens, temperature, seed)
    with intervened(model, changes, dictionaries) as changed:
        before, after = (_continued(each, start, *options) for each in (model, changed))
    return Generation(prompt, before, after)


def _continued(
    model: Model, batch: Batch, max_new_tokens: int, temperature: float, seed: int
) -> str:
    rng = torch.Generator().manual_seed(seed)
    ids = batch.ids
    first = ids.shape[1]
    for _ in range(min(max_new_tokens, model.context - first)):
        whole = Batch(ids, torch.ones_like(ids))
        logits = run(model, whole, [LOGITS], last_logits=True)[LOGITS][0, -1].float().cpu()
        if temperature:
            token = int(torch.multinomial((logits / temperature).softmax(0), 1, generator=rng))
        else:
            token = int(logits.argmax())
        if token == model.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, ids.new_tensor([[token]])], 1)
    return str(model.tokenizer.decode(ids[0, first:]))
