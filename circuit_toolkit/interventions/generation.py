"""Text that a model writes, with and without an intervention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit_toolkit.arguments import described, is_chat, number, whole
from circuit_toolkit.dictionaries import shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions.changes import Change
from circuit_toolkit.interventions.runs import intervened
from circuit_toolkit.models import Model
from circuit_toolkit.models.continuation import continued


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
    prompt: str | Sequence[Mapping[str, str]],
    changes: Change | Iterable[Change],
    *,
    dictionaries: Any = None,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
    progress: bool = True,
) -> Generation:
    """Let the model go on from a prompt, by itself and with changes.

    Every step runs the whole text, so changes act on its tokens and on those just written.

    Parameters
    ----------
    model, dictionaries
        As for `intervene`.
    prompt : str or list of dict
        Where to begin; a chat is a list of messages, each with `role` and `content`.
    changes : Change or sequence of Change
        What is done in every step; `positions="last"` is the token just written.
    max_new_tokens : int
        Stop after so many, at the end-of-sequence token, or where the context is full.
    temperature : float
        0 takes the likeliest token; else the temperature of sampling.
    seed : int
        Of sampling; both texts draw the same numbers.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Generation

    Raises
    ------
    InputError
        If a change does not fit, or a number makes no sense.
    """
    count = whole(max_new_tokens, "max_new_tokens", 1)
    temperature = number(temperature, "temperature", 0.0, 1000.0)
    known = as_dictionaries(model, dictionaries, optional=True)
    if not isinstance(prompt, str) and not is_chat(prompt):
        raise InputError(f"prompt must be one text or chat, got {described(prompt)}.")
    prompt = prompt if isinstance(prompt, str) else model.chat_text(prompt)
    with intervened(model, changes, dictionaries=known) as changed:
        start = model.tokenize([prompt], bos=shared_bos(known))
        before, after = (
            continued(each, start, count, temperature, seed, progress=progress)[0]
            for each in (model, changed)
        )
    decode = model.tokenizer.decode
    return Generation(prompt, *(str(decode(ids[ids >= 0])) for ids in (before, after)))
