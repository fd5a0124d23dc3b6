"""Capture: prompts through the model once, out come sparse feature activations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, overload

from circuit_toolkit.activations.activations import Activations, Positions, joined
from circuit_toolkit.activations.budget import pieces, refuse_batch, refuse_rest
from circuit_toolkit.activations.capture_plan import CapturePlan, Encoders, Prompts, plan_capture
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.activations.store.fingerprints import inputs_of
from circuit_toolkit.activations.store.shards import shard_name
from circuit_toolkit.activations.store.writer import KIND, add_shard, versions
from circuit_toolkit.arguments import whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import ResumableFolder
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar


@overload
def capture(
    model: Model,
    dictionaries: Encoders,
    prompts: Prompts,
    positions: Positions = "all",
    *,
    bos: bool = False,
    batch_size: int = 128,
    store: None = None,
    shard_size: int | None = None,
    remote: bool | str = False,
    progress: bool = True,
) -> Activations: ...


@overload
def capture(
    model: Model,
    dictionaries: Encoders,
    prompts: Prompts,
    positions: Positions = "all",
    *,
    bos: bool = False,
    batch_size: int = 128,
    store: str | os.PathLike,
    shard_size: int | None = None,
    remote: bool | str = False,
    progress: bool = True,
) -> ActivationStore: ...


def capture(
    model: Model,
    dictionaries: Encoders,
    prompts: Prompts,
    positions: Positions = "all",
    *,
    bos: bool = False,
    batch_size: int = 128,
    store: str | os.PathLike | None = None,
    shard_size: int | None = None,
    remote: bool | str = False,
    progress: bool = True,
) -> Activations | ActivationStore:
    """Run prompts through the model once and keep the features that they activate.

    One trace reads all sites. A capture that does not fit in memory or on the disk is refused when
    its first batch shows it; `estimate_capture` says beforehand what it will take.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary, or sites
        From `load_dictionaries`; one Dictionary, or objects of sae_lens, are fine. Or sites to read
        as they are, every coordinate a feature: a kind of site at all layers, such as
        `"head_out"`, or a list of sites.
    prompts : Task or iterable of str or of token ids
        What to run. A task gives its clean prompts, then its corrupted prompts, and its metric.
    positions : str or list of str
        `all` tokens as rows (from which every other choice can be read later), their `mean`
        (taken after encoding), the `last`, or a position that the task names. Of several, a row has
        the features at the first of them, then those at the second, and so on.
    bos : bool
        Whether special tokens make rows too: that of the beginning, whose activations have
        outlying norms, and those inside packed texts. By default none does but one that a prompt
        ends with.
    batch_size : int
        Prompts in one trace; fewer where they would take more than 2 GiB.
    store : path, optional
        Folder to write to, for activations that outgrow memory; `~` is the home folder. Where one
        is there, capture goes on with it, if the inputs are the same: prompts, dictionaries, and
        the model with all its weights, its configuration, modules and interventions.
    shard_size : int, optional
        Prompts in one file of the store, a multiple of `batch_size`; by default one batch.
        A shard is what is in memory at a time.
    remote : bool or "local"
        Run the model on NDIF through nnsight, see `run`; the dictionaries are applied here.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Activations or ActivationStore
        With `store` the latter, of the same activations.

    Raises
    ------
    InputError
        If prompts or dictionaries are none or something else, a prompt does not fit the model, the
        position is unknown, there is not enough memory or disk, or another process writes to the
        store.
    MismatchError
        If the store is of other inputs, or the dictionaries want other beginnings of a prompt.
    FileFormatError
        If what is there of the store is damaged.
    """
    source = plan_capture(model, dictionaries, prompts, positions, bos, remote, batch_size)
    n = len(source.prompts)
    with Bar(total=n, label="capture", unit="prompt", shown=progress) as bar:
        if store is None:
            return joined(_parts(source, range(n), bar))
        size = source.batch_size if shard_size is None else whole(shard_size, "shard_size", 1)
        return _to_store(source, size, resolved(store), bar)


def _parts(
    source: CapturePlan, rows: range, bar: Any, store: Path | None = None, begins: bool = True
) -> list[Activations]:
    """Activations of some prompts, batch by batch; the first one shows what the rest will take."""
    parts = []
    for start in rows[:: source.batch_size]:
        for here, batch in pieces(source, range(start, min(start + source.batch_size, rows.stop))):
            refuse_batch(source, *batch.ids.shape)
            parts.append(source.activations(here, batch))
            if begins and len(parts) == 1:
                refuse_rest(source, parts[0], here, batch.ids.shape[1], store)
            bar.update(len(here))
    return parts


def _to_store(source: CapturePlan, shard_size: int, folder: Path, bar: Any) -> ActivationStore:
    """Write what is not there yet, a shard at a time."""
    if shard_size % source.batch_size:
        raise InputError(
            f"shard_size must be a multiple of batch_size={source.batch_size}, got {shard_size}."
        )
    n = len(source.prompts)
    starts = range(0, n, shard_size)
    device, remote = source.model.device.type, bool(source.remote)
    content = {
        "inputs": inputs_of(source, shard_size),
        "made_with": {**versions(), "device": device, "remote": remote},
        "settings": source.settings,
        "sites": {str(site): each.n_features for site, each in source.dictionaries.items()},
        "n_prompts": n,
        "n_shards": len(starts),
    }
    with ResumableFolder.opened(folder, KIND, content, n_files=len(starts)) as there:
        missing = [i for i in range(len(starts)) if shard_name(i) not in there.files]
        bar.total = sum(min(shard_size, n - starts[index]) for index in missing)
        for index in missing:
            rows = range(starts[index], min(starts[index] + shard_size, n))
            parts = _parts(source, rows, bar, folder, index == missing[0])
            add_shard(there, index, joined(parts))
    return ActivationStore.open(folder)
