"""Tasks from prompts that are tokens already, as ACDC's code and much other makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from circuit_toolkit.arguments import expect
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.tables import Metric

T = TypeVar("T")


def from_tokens(
    cls: Callable[..., T],
    model: Model,
    clean: Tensor,
    corrupted: Tensor | None,
    answers: Tensor,
    wrong: Tensor,
    *,
    metric: Metric = "logit_difference",
    name: str = "tokens",
) -> T:
    """Make a task of prompts that are tokens of the model's tokenizer, nothing being added.

    Of what ACDC's code makes, `things = get_all_ioi_things(...)`, these are
    `things.validation_data`, `validation_patch_data`, `validation_labels` and
    `validation_wrong_labels`.

    Parameters
    ----------
    model : Model
        The model.
    clean, corrupted : Tensor of int, shape (n, T)
        Token ids of prompts, each up to the token that is asked for; without padding. None for a
        task without corrupted prompts.
    answers, wrong : Tensor of int, shape (n,) or (n, k)
        Token ids that are right next, and wrong.
    metric : {"logit_difference", "probability_difference"}
        What says how right the model is.
    name : str
        Name of the task.

    Returns
    -------
    Task

    Raises
    ------
    InputError
        If shapes do not go together, or a number is no token of the model.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> ct.Task.from_tokens(model, [[5, 6]], [[7, 6]], [8], [9])
    Task('tokens', 1 prompts with corrupted prompts, logit_difference)
    """
    expect(model, "model", "Model")
    tables = {"clean": clean, "corrupted": corrupted, "answers": answers, "wrong": wrong}
    found: dict[str, Tensor] = {}
    for part, given in tables.items():
        if given is None and part == "corrupted":
            continue
        ids = _ids(part, given)
        ids = ids[:, None] if ids.ndim == 1 and part in ("answers", "wrong") else ids
        if ids.ndim != 2 or not ids.numel():
            raise InputError(f"{part} must be a table of token ids, got shape {tuple(ids.shape)}.")
        if not 0 <= ids.min() <= ids.max() < model.d_vocab:
            raise InputError(
                f"{part} has {int(ids.min())} to {int(ids.max())}: {model.name} has tokens 0 to "
                f"{model.d_vocab - 1}."
            )
        found[part] = ids
    shape = found["clean"].shape
    for part, ids in found.items():
        if len(ids) != shape[0] or (part == "corrupted" and ids.shape != shape):
            raise InputError(f"clean has shape {tuple(shape)}, {part} has {tuple(ids.shape)}.")
    rows = {part: tuple(map(tuple, ids.tolist())) for part, ids in found.items()}
    return cls(
        name=name,
        clean=rows["clean"],
        corrupted=rows.get("corrupted", ()),
        answers=rows["answers"],
        wrong=rows["wrong"],
        metric=metric,
    )


def _ids(part: str, given: Any) -> Tensor:
    try:
        ids = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{part} must be a table of token ids: {error}.") from error
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(f"{part} must be token ids, whole numbers, got {ids.dtype}.")
    return ids.cpu()
