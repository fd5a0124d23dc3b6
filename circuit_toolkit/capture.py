"""Capture: prompts through the model once, out come sparse feature activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from circuit_toolkit.activations import Activations
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model, run
from circuit_toolkit.sites import Site


@runtime_checkable
class Scored(Protocol):
    """Prompts that can score a model; `Task` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def labels(self) -> Mapping[str, Sequence[str]]: ...  # noqa: D102

    @property
    def positions(self) -> Mapping[str, Sequence[int]]: ...  # noqa: D102

    @property
    def directions(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def texts(self) -> list[str]: ...  # noqa: D102

    @property
    def groups(self) -> np.ndarray: ...  # noqa: D102

    def score(self, logits: Tensor, rows: Sequence[int]) -> Tensor: ...  # noqa: D102


def token_mask(model: Model, batch: Batch) -> Tensor:
    """Say which tokens count: neither padding nor the beginning-of-sequence token.

    Parameters
    ----------
    model : Model
        Whose tokenizer made the batch.
    batch : Batch
        Tokenized prompts.

    Returns
    -------
    Tensor of bool, shape (B, T)
    """
    mask = batch.mask.bool()
    bos = model.tokenizer.bos_token_id
    if bos is None:
        return mask
    first = mask.int().argmax(dim=1)  # (B,) left padding ends here
    is_bos = batch.ids.gather(1, first[:, None]) == bos  # GPT-2 uses the token elsewhere as <eos>
    return mask.scatter(1, first[:, None], ~is_bos)


def capture(
    model: Model,
    prompts: Scored | Sequence[str],
    dictionaries: Mapping[Site, Dictionary],
    positions: str = "all",
    *,
    batch_size: int = 128,
    progress: bool = True,
) -> Activations:
    """Run prompts through the model once and keep the features that fire.

    One trace reads all sites. The beginning-of-sequence token is left out: its activations have
    outlying norms.

    Parameters
    ----------
    model : Model
        The model.
    prompts : Task or sequence of str
        What to run. A task gives its clean prompts, then its corrupted twins, and its metric.
    dictionaries : dict of Site to Dictionary
        From `load_dictionaries`.
    positions : str
        `all` tokens as rows (from which every other choice can be read later), their `mean`
        (taken after encoding), the `last`, or a position that the task names.
    batch_size : int
        Prompts in one trace.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Activations

    Raises
    ------
    InputError
        If there are no prompts or dictionaries, a prompt does not fit the model, or the position
        is unknown.
    """
    from tqdm.auto import tqdm

    if not dictionaries:
        raise InputError("No dictionaries were given: pass load_dictionaries(model).")
    if isinstance(prompts, str):
        raise InputError("prompts must be a list of texts or a task, not one text: write [text].")
    task = prompts if isinstance(prompts, Scored) else None
    texts = task.texts if task else list(prompts)  # type: ignore[arg-type]
    read = [*dictionaries, *([LOGITS] if task else [])]
    parts: list[Activations] = []
    starts = range(0, len(texts), batch_size) if texts else [0]
    for start in tqdm(starts, desc="capture", unit="batch", disable=not progress, leave=False):
        batch = model.tokenize(texts[start : start + batch_size])
        values = run(model, batch, read=read)
        rows = np.arange(start, start + len(batch.ids))
        part = _encoded(model, batch, values, dictionaries, rows)
        if task:
            scores = task.score(values[LOGITS][:, -1], rows.tolist()).numpy()
            part = _with_task(part, task, rows, scores)
        parts.append(part if positions == "all" else part.pooled(positions))
    settings = {
        "model": model.name,
        "task": task.name if task else None,
        "positions": positions,
        "dictionaries": {str(site): each.name for site, each in dictionaries.items()},
        "n_prompts": len(texts),
    }
    return _joined(parts, settings)


def _encoded(
    model: Model,
    batch: Batch,
    values: Mapping[Site, Tensor],
    dictionaries: Mapping[Site, Dictionary],
    rows: np.ndarray,
) -> Activations:
    """Sparse features of one batch, a row a token; `prompt` counts inside the batch."""
    mask = token_mask(model, batch)
    prompt, place = (index.cpu().numpy() for index in mask.nonzero(as_tuple=True))
    padding = (batch.mask == 0).sum(1).cpu().numpy()
    features = {}
    for site, dictionary in dictionaries.items():
        acts = dictionary.encode(values[site][mask])  # (tokens, F)
        index = acts.nonzero(as_tuple=True)
        features[site] = sp.csr_array(
            (acts[index].cpu().numpy(), tuple(i.cpu().numpy() for i in index)), shape=acts.shape
        )
    return Activations(
        features=features,
        prompt=prompt,
        position=place - padding[prompt],
        tokens=model.words(batch),
        groups=rows,
    )


def _with_task(
    part: Activations, task: Scored, rows: np.ndarray, scores: np.ndarray
) -> Activations:
    """Add what the task knows of a batch."""
    pairs = task.groups[rows]
    lengths = np.array([len(words) for words in part.tokens])
    return replace(
        part,
        groups=pairs,
        metric=scores,
        directions=np.asarray(task.directions)[pairs] if len(task.directions) else None,
        labels={key: np.asarray(values)[pairs] for key, values in task.labels.items()},
        named={key: lengths + np.asarray(values)[pairs] for key, values in task.positions.items()},
    )


def _joined(parts: list[Activations], settings: dict) -> Activations:
    """Put batches below each other."""
    first = parts[0]
    offsets = np.cumsum([0, *(part.n_prompts for part in parts)])
    return Activations(
        features={
            site: sp.csr_array(sp.vstack([part.features[site] for part in parts]))
            for site in first.features
        },
        prompt=np.concatenate(
            [part.prompt + offset for part, offset in zip(parts, offsets, strict=False)]
        ),
        position=np.concatenate([part.position for part in parts]),
        tokens=[words for part in parts for words in part.tokens],
        groups=np.concatenate([part.groups for part in parts]),
        metric=_maybe_joined([part.metric for part in parts]),
        directions=_maybe_joined([part.directions for part in parts]),
        labels={key: np.concatenate([p.labels[key] for p in parts]) for key in first.labels},
        named={key: np.concatenate([p.named[key] for p in parts]) for key in first.named},
        settings=settings,
    )


def _maybe_joined(columns: list[np.ndarray | None]) -> np.ndarray | None:
    """Put columns below each other that all parts have, or none."""
    given = [column for column in columns if column is not None]
    return np.concatenate(given) if given else None
