"""A capture batch by batch: where one is refused for lack of memory, and what a shard holds."""

from __future__ import annotations

from pathlib import Path

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.budget import pieces, refuse_batch, refuse_rest
from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.progress import Bar


def captured(
    source: CapturePlan, rows: range, bar: Bar, store: Path | None = None, begins: bool = True
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


def shard_rows(source: CapturePlan, shard_size: int, index: int) -> range:
    """Return the prompts of a shard."""
    start = index * shard_size
    return range(start, min(start + shard_size, len(source.prompts)))
