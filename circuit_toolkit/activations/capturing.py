"""Capture: prompts through the model once, out come sparse feature activations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, overload

from circuit_toolkit.activations.activations import Activations, Positions, joined
from circuit_toolkit.activations.batches import captured, shard_rows
from circuit_toolkit.activations.capture_plan import CapturePlan, Encoders, Prompts, plan_capture
from circuit_toolkit.activations.cluster import check_client, write_on_workers
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.activations.store.fingerprints import inputs_of
from circuit_toolkit.activations.store.shards import shard_name
from circuit_toolkit.activations.store.writer import KIND, add_shard
from circuit_toolkit.arguments import whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import ResumableFolder
from circuit_toolkit.models import Model
from circuit_toolkit.models.versions import versions
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
    client: Any = None,
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
    client: Any = None,
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
    client: Any = None,
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
    client : dask.distributed.Client, optional
        Of a cluster whose workers run the model and write the shards of `store`, a folder that
        they all see; the store is the same. The model and the dictionaries as they are in memory
        go to each worker once, by a file in the folder. Needs the extra `scale`.
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
        store; with a client, if it is none, its workers do not see the store or die again and
        again, there is no `store`, or the model is far or spread over devices.
    MismatchError
        If the store is of other inputs, the dictionaries want other beginnings of a prompt, or a
        worker has other versions of the packages.
    FileFormatError
        If what is there of the store is damaged.
    """
    if client is not None:
        check_client(client, store, remote)
    source = plan_capture(model, dictionaries, prompts, positions, bos, remote, batch_size)
    n = len(source.prompts)
    with Bar(total=n, label="capture", unit="prompt", shown=progress) as bar:
        if store is None:
            return joined(captured(source, range(n), bar))
        size = source.batch_size if shard_size is None else whole(shard_size, "shard_size", 1)
        return _to_store(source, size, resolved(store), bar, client)


def _to_store(
    source: CapturePlan, shard_size: int, folder: Path, bar: Bar, client: Any
) -> ActivationStore:
    """Write what is not there yet, a shard at a time."""
    if shard_size % source.batch_size:
        raise InputError(
            f"shard_size must be a multiple of batch_size={source.batch_size}, got {shard_size}."
        )
    n = len(source.prompts)
    n_shards = -(-n // shard_size)
    device, remote = source.model.device.type, bool(source.remote)
    content = {
        "inputs": inputs_of(source, shard_size),
        "made_with": {**versions(), "device": device, "remote": remote},
        "settings": source.settings,
        "sites": {str(site): each.n_features for site, each in source.dictionaries.items()},
        "n_prompts": n,
        "n_shards": n_shards,
    }
    with ResumableFolder.opened(folder, KIND, content, n_files=n_shards) as there:
        missing = [i for i in range(n_shards) if shard_name(i) not in there.files]
        bar.total = sum(len(shard_rows(source, shard_size, index)) for index in missing)
        if client is not None and missing:
            write_on_workers(client, source, there, missing, shard_size, bar)
            missing = []
        for index in missing:
            rows = shard_rows(source, shard_size, index)
            parts = captured(source, rows, bar, folder, index == missing[0])
            add_shard(there, index, joined(parts))
    return ActivationStore.open(folder)
