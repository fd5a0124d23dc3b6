"""The one place where a trace is opened: read some sites, write others, in a single run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.sites import Site

LOGITS = Site("logits")
Edit = Callable[[Tensor], Tensor]  # (B, T, D) -> (B, T, D)


@torch.no_grad()
def run(
    model: Model,
    batch: Batch,
    read: Sequence[Site] = (),
    write: Mapping[Site, Edit] | None = None,
) -> dict[Site, Tensor]:
    """Run the model once on a batch, editing some sites and reading others.

    The run stops after the last site that is needed. A site that is written and read gives the
    written value.

    Parameters
    ----------
    model : Model
        The model.
    batch : Batch
        Tokens of B prompts, T tokens long with padding.
    read : sequence of Site
        What to return; `Site("logits")` for the logits.
    write : mapping of Site to callable, optional
        For each site a function from its activation, shape (B, T, D), to what replaces it.

    Returns
    -------
    dict of Site to Tensor
        Activations, shape (B, T, D), for the sites in `read`.

    Raises
    ------
    InputError
        If the model lacks a site, or it cannot be written.
    """
    from nnsight import save

    write = dict(write or {})
    for site in {*read, *write}:
        model.check_site(site)
    for site in write:
        if site.kind not in model.architecture.writable:
            raise InputError(
                f"{site} cannot be written. Writable kinds: "
                f"{', '.join(sorted(model.architecture.writable))}."
            )
    order = sorted({*read, *write})  # nnsight wants modules in the order in which they run
    places = [model.architecture.places[site.kind] for site in order]
    modules = [
        attrgetter(path.format(site.layer))(model.nn)
        for site, (path, _) in zip(order, places, strict=True)
    ]
    wanted = set(read)
    stop = LOGITS not in wanted and not (write and not wanted)
    saved: dict[Site, Tensor] = {}
    with model.nn.trace({"input_ids": batch.ids, "attention_mask": batch.mask}) as tracer:
        for site, module, (_, side) in zip(order, modules, places, strict=True):
            if side == "input":
                value = module.input
                if site in write:
                    value = write[site](value)
                    module.input = value
            else:
                value = module.output
                if site in write:
                    value = write[site](value)
                    module.output = value
            if site in wanted:
                saved[site] = save(value)
        if stop:
            tracer.stop()
    return saved
