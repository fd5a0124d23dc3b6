"""What a capture will take in time, memory and disk, and its refusal where there is not enough."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from circuit_toolkit.activations.activations import TOKEN_BYTES, Activations, Positions, bytes_of
from circuit_toolkit.activations.capture_plan import (
    DENSE,
    CapturePlan,
    Encoders,
    Prompts,
    plan_capture,
)
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Batch, Model
from circuit_toolkit.progress import Bar

MOST = 2**31  # bytes of a batch of several prompts; the same everywhere, so that roundings are
CGROUP = Path("/sys/fs/cgroup")
# Measured (benchmarks.capture_memory): with an allocator that gives back at once, and as it comes.
BLOCK = 24  # widths that a block holds at a time beside the sites that are read
COPIES = 4  # of dense features that encoding holds at a time: jump-ReLU; top-k takes 2.3
KEPT = 2.05  # what the process holds, of what is alive: an allocator keeps tensors that were freed


@dataclass(frozen=True)
class CaptureEstimate:
    """What a capture will take."""

    seconds: float
    tokens: int
    result: int
    batch: int
    memory: int
    stored_memory: int
    disk: int

    def __str__(self) -> str:
        """Return the figures in words."""
        return (
            f"about {self.seconds:.3g} s for {self.tokens} tokens; {size(self.memory)} of memory, "
            f"or with store= {size(self.stored_memory)} and {size(self.disk)} of disk"
        )


def estimate_capture(
    model: Model,
    dictionaries: Encoders,
    prompts: Prompts,
    positions: Positions = "all",
    *,
    bos: bool = False,
    batch_size: int = 128,
    remote: bool | str = False,
    progress: bool = True,
) -> CaptureEstimate:
    """Return what a capture will take, before it is begun.

    All prompts are tokenized, and their tokens and the memory of the largest batch counted. One
    batch of prompts, spread evenly over all, is captured twice: how many features it activates,
    and how long its second run takes, stand for the rest.

    Parameters
    ----------
    model, dictionaries, prompts, positions, bos, batch_size, progress
        As in `capture`.
    remote : bool or "local"
        Where the model would run; the time of a far one holds as long as its queue stays short.

    Returns
    -------
    CaptureEstimate

    Raises
    ------
    InputError
        As `capture`.
    """
    source = plan_capture(model, dictionaries, prompts, positions, bos, remote, batch_size)
    n, batch_size = len(source.prompts), source.batch_size
    tokens, padded, largest = 0, 0, 0
    starts, most = range(0, n, batch_size), 1
    for start in Bar(starts, "estimate", unit="batch", shown=progress):
        for here, batch in pieces(source, range(start, min(start + batch_size, n))):
            tokens += int(batch.mask.sum())
            padded += batch.ids.numel()
            largest, most = (
                max(largest, batch_bytes(source, *batch.ids.shape)),
                max(most, len(here)),
            )
    probe = range(0, n, -(-n // most))  # at most a batch
    batch = source.tokenize(probe)
    source.activations(probe, batch)  # the first run of a process takes longer
    began = time.perf_counter()
    part = source.activations(probe, batch)
    seconds = (time.perf_counter() - began) * padded / batch.ids.numel()
    times = tokens / int(batch.mask.sum())  # as many tokens as in the probe
    share = times if positions == "all" else n / len(probe)
    twice = max(map(bytes_of, part.features.values()))  # while parts are joined
    words = TOKEN_BYTES * sum(map(len, part.tokens))
    result = round((part.nbytes - words) * share + words * times)
    written = len(json.dumps(part.tokens))  # of the words; arrays are written as they are
    return CaptureEstimate(
        seconds=seconds,
        tokens=tokens,
        result=result,
        batch=largest,
        memory=largest + result + round(twice * share),
        stored_memory=largest + round(result * min(1, batch_size / n)),
        disk=round((part.nbytes - words) * share + written * times),
    )


def batch_bytes(source: CapturePlan, prompts: int, length: int) -> int:
    """Count what one batch needs while it runs, besides the model's weights."""
    model, each = source.model, prompts * length
    shapes = {site: math.prod(model.shape_at(site)) for site in source.read}
    width = torch.finfo(model.dtype).bits // 8
    logits = shapes.pop(LOGITS, 0)  # at the last token alone
    values = each * width * sum(shapes.values())
    passing = each * width * BLOCK * model.width + (width + 4) * prompts * logits
    dense = max(min(each * d.n_features, DENSE) for d in source.dictionaries.values())
    encoding = 8 * each * max(shapes[site] for site in source.dictionaries) + 4 * COPIES * dense
    return round(KEPT * (values + max(passing, encoding)))  # features come after the pass


def fitting(source: CapturePlan, prompts: int, length: int) -> int:
    """Halve a number of prompts until they fit into one run."""
    while prompts > 1 and batch_bytes(source, prompts, length) > MOST:
        prompts = -(-prompts // 2)
    return prompts


def pieces(source: CapturePlan, rows: range) -> Iterator[tuple[range, Batch]]:
    """Tokenize a batch, in as many pieces as memory asks for."""
    batch = source.tokenize(rows)
    size = fitting(source, *batch.ids.shape)
    if size == len(rows):
        yield rows, batch
        return
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield part, source.tokenize(part)


def refuse_batch(source: CapturePlan, prompts: int, length: int) -> None:
    """Refuse a batch for which there is no memory."""
    # A far model's values come to this machine, so that they are counted here too.
    needed = batch_bytes(source, prompts, length)
    available = available_memory(source.model.device)
    if needed > available:
        raise InputError(
            f"A batch of {prompts} prompts of {length} tokens at {len(source.dictionaries)} sites "
            f"needs {size(needed)} of memory, {size(available)} are available. Use a smaller "
            "batch_size or fewer sites."
        )


def refuse_rest(
    source: CapturePlan, part: Activations, done: range, length: int, store: Path | None
) -> None:
    """Refuse a capture whose result or largest batch does not fit, when its first part is there."""
    rest = np.array([len(prompt) for prompt in source.prompts[done.start :]])  # in any unit
    first = rest[: len(done)]
    longest = math.ceil(length * rest.max() / first.max())
    longest = min(longest, source.model.context)
    refuse_batch(source, fitting(source, len(done), longest), longest)
    share = rest.sum() / first.sum() if source.positions == "all" else len(rest) / len(first)
    if store is None:
        twice = max(map(bytes_of, part.features.values()))  # while parts are joined
        needed = round((part.nbytes + twice) * share) - part.nbytes
        available = available_memory()
        where, out = "of memory", "Pass store='folder' to write it to disk, or use fewer sites"
    else:
        needed = round(part.nbytes * share)
        available = free_disk(store)
        where, out = f"of disk in {store}", "Choose another folder, or use fewer sites"
    if needed > available:
        pooled = ", or positions other than 'all'" if source.positions == "all" else ""
        raise InputError(
            f"The activations of {len(rest)} prompts at {len(source.dictionaries)} sites need "
            f"about {size(needed)} {where}, {size(available)} are available. {out}{pooled}."
        )


def available_memory(device: torch.device | None = None) -> int:
    """Bytes that this process can still take."""
    import psutil

    if device is not None and device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    available = [psutil.virtual_memory().available]
    for group in _control_groups():
        limit = (group / "memory.max").read_text().strip()
        if limit.isdigit():  # else "max"
            used = int((group / "memory.current").read_text())
            counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            cached = int(counts["inactive_file"])  # of files; given back when it is needed
            available.append(int(limit) - used + cached)
    return max(0, min(available))


def _control_groups() -> list[Path]:
    """Control groups (Linux, version 2) of this process that can limit its memory."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    groups = [CGROUP / own, *(CGROUP / own).parents]
    return [group for group in groups if (group / "memory.max").is_file()]


def free_disk(folder: str | os.PathLike) -> int:
    """Bytes that can still be written to a folder that exists."""
    return shutil.disk_usage(folder).free


def size(n: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
