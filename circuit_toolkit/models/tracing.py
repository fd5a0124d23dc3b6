"""Read some sites and write others in a single run.

What a site is (z per head, the stream normalised) is worked out from the raw values of ports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError
from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.ports import LOGITS_PORT, ONE_RUN, Edit, Port, block_port, run_ports
from circuit_toolkit.models.weights import in_block, norm_weight, normalised, output_matrix
from circuit_toolkit.sites import Site

LOGITS = Site("logits")

# Port that holds a site, as (path in the architecture's row, side).
_IN_BLOCK = {
    "resid_pre": ("", "input"),
    "attn_pattern": ("attention", "pattern"),
    "attn_z": ("out_proj", "input"),
    "head_out": ("out_proj", "input"),
    "attn_out": ("attn_out", "output"),
    "resid_mid": ("mlp_norm", "input"),
    "mlp_in": ("mlp_norm", "input"),
    "mlp_norm": ("mlp_norm", "output"),
    "mlp_out": ("mlp_out", "output"),
    "resid_post": ("", "output"),
}


def run(
    model: Model,
    batch: Batch,
    read: Sequence[Site] = (),
    write: Mapping[Site, Edit] | None = None,
    *,
    last_logits: bool = False,
    skip: tuple[int, Tensor] | None = None,
    remote: bool | str = False,
    grad: bool = False,
) -> dict[Site, Tensor]:
    """Run the model once on a batch, editing some sites and reading others.

    The values are what the Hugging Face modules compute; `shift` turns them into what a processed
    TransformerLens model shows. The run stops after the last site that is needed. A site that is
    written and read gives the written value, and later sites what follows from it.

    Parameters
    ----------
    model : Model
        The model.
    batch : Batch
        Tokens of B prompts, T tokens long with padding.
    read : sequence of Site
        What to return; `Site("logits")` for the logits.
    write : mapping of Site to callable, optional
        For each site a function from its activation to what replaces it, of the same shape.
        Edits of one site after another see what the earlier ones made.
    last_logits : bool
        Compute logits at the last token only, shape (B, 1, V): much of the time and memory of a
        small model with a large vocabulary.
    skip : (int, Tensor), optional
        How many blocks are not computed, and what the last of them puts out, shape (B, T, D), as an
        earlier run gave it: for many runs that differ only after that.
    remote : bool or "local"
        Run on NDIF through nnsight, which needs a key (`nnsight.CONFIG.set_default_api_key`) and
        a model that is hosted there; `"local"` simulates that here. Reading only.
    grad : bool
        Keep the graph, for gradients with respect to what `write` puts in.

    Returns
    -------
    dict of Site to Tensor
        Activations of the sites in `read`: shape (B, T, D) in the residual stream; `attn_z`
        (B, T, H, d_head); `head_out` (B, T, H, D); `attn_pattern` (B, H, T, T) from queries to
        keys; `logits` (B, T, V). On the model's device, in float32 if the model is of half
        precision; so is what `write` is given, and what it returns is rounded to the model's type.

    Raises
    ------
    InputError
        If the model lacks a site or it is in a block that is skipped, or a remote run is to write
        or to read patterns.
    """
    write = _with_own(model, batch, dict(write or {}))
    for site in {*read, *write}:
        model.check_site(site)
        if skip and skip[0] and site < Site("resid_post", skip[0] - 1):
            raise InputError(f"{site} is not computed when {skip[0]} blocks are skipped.")
    patterns = any(site.kind == "attn_pattern" for site in {*read, *write})
    if remote and (write or patterns):
        raise InputError(
            "A remote run reads sites other than attn_pattern and writes none. Load the model "
            "here for this: load_model(name)."
        )
    if model.architecture.mlp_norm is None:  # a change of what the MLP reads is at the same port
        stream = (site for site in read if site.kind == "resid_mid" and site not in write)
        write |= dict.fromkeys(stream, lambda x: x)
    written: dict[Site, Tensor] = {}
    edits = port_edits(model, {site: _noting(written, site, edit) for site, edit in write.items()})
    keep = {_port_of(model, site) for site in read}
    with ONE_RUN, _eager_attention(model, patterns):
        raw = run_ports(
            model, batch, edits, keep, last_logits=last_logits, skip=skip, remote=remote, grad=grad
        )
    if last_logits and LOGITS_PORT in raw:
        raw[LOGITS_PORT] = raw[LOGITS_PORT][:, -1:]
    with torch.set_grad_enabled(grad):
        return {
            site: written[site]
            if site in written
            else _value_at(model, site, raw[_port_of(model, site)])
            for site in read
        }


def _port_of(model: Model, site: Site) -> Port:
    """Where a site is read."""
    if site.kind == "embed":
        return model.architecture.embed, "output"
    if site == LOGITS:
        return LOGITS_PORT
    name, side = _IN_BLOCK[site.kind]
    if site.kind == "attn_pattern" and model.architecture.pattern is not None:
        name, side = "pattern", "output"
    elif name == "mlp_norm" and model.architecture.mlp_norm is None:
        name, side = "mlp", "input"
    return block_port(model, name, side, site.layer)


def _value_at(model: Model, site: Site, value: Any) -> Tensor:
    """Work out a site from the raw value of its port."""
    if site.kind in ("attn_z", "head_out"):
        z = value.unflatten(-1, (model.n_heads, model.d_head))  # (B, T, H, d_head)
        return z if site.kind == "attn_z" else _head_out(model, site.layer, z)
    row = model.architecture
    if site.kind == "mlp_in" and row.mlp_norm is not None:
        return normalised(value, in_block(model, row.mlp_norm, site.layer), row)
    return value


def _head_out(model: Model, layer: int, z: Tensor) -> Tensor:
    return torch.einsum("bthe,hed->bthd", z, output_matrix(model, layer))


def _with_own(model: Model, batch: Batch, write: dict[Site, Edit]) -> dict[Site, Edit]:
    """Put the edits that a model brings before those of this run."""
    for site, first in (model.edits(batch) if model.edits else {}).items():
        then = write.get(site)
        write[site] = first if then is None else lambda x, a=first, b=then: b(a(x))
    return write


def _noting(written: dict[Site, Tensor], site: Site, edit: Edit) -> Edit:
    """Keep what an edit made, where the port of the site does not show it."""
    if site.kind not in ("head_out", "mlp_in", "resid_mid"):
        return edit

    def noting(x: Tensor) -> Tensor:
        written[site] = edit(x)
        return written[site]

    return noting


def port_edits(model: Model, write: Mapping[Site, Edit]) -> dict[Port, list[Edit]]:
    """Return for each port what is done to its raw value, in order of computation."""
    edits: dict[Port, list[Edit]] = {}

    def at(name: str, side: str, layer: int, edit: Edit) -> None:
        edits.setdefault(block_port(model, name, side, layer), []).append(edit)

    for site in sorted(write):
        edit, layer = write[site], site.layer
        if site.kind == "attn_z":
            at("out_proj", "input", layer, _per_head(edit, model))
        elif site.kind == "head_out":
            first, then = _of_heads(edit, model, layer)
            at("out_proj", "input", layer, first)
            at("out_proj", "output", layer, then)
        elif site.kind == "resid_mid":
            # The block adds the old stream to the MLP's output: the difference follows there.
            first, then = _and_difference(edit)
            edits.setdefault(_port_of(model, site), []).append(first)
            at("", "output", layer, then)
        elif site.kind == "mlp_in" and model.architecture.mlp_norm is not None:
            first, then = _of_norm(edit, model, layer)
            at("mlp_norm", "input", layer, first)
            at("mlp_norm", "output", layer, then)
        else:
            edits.setdefault(_port_of(model, site), []).append(edit)
    return edits


def _per_head(edit: Edit, model: Model) -> Edit:
    return lambda x: edit(x.unflatten(-1, (model.n_heads, model.d_head))).flatten(-2)


def _handed_on(
    first: Callable[[Tensor], tuple[Tensor, Tensor]], then: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Edit, Edit]:
    """Two edits: of one port, which also keeps something, and of a later one, which uses that."""
    held: list[Tensor] = []

    def keeping(x: Tensor) -> Tensor:
        new, kept = first(x)
        held.append(kept)
        return new

    return keeping, lambda y: then(y, held.pop())


def _of_heads(edit: Edit, model: Model, layer: int) -> tuple[Edit, Edit]:
    """Two edits: from flat z the sum over heads of what an edit of `head_out` changes; add it."""

    def difference(x: Tensor) -> tuple[Tensor, Tensor]:
        out = _head_out(model, layer, x.unflatten(-1, (model.n_heads, model.d_head)))
        return x, (edit(out) - out).sum(-2)

    return _handed_on(difference, torch.add)


def _and_difference(edit: Edit) -> tuple[Edit, Edit]:
    """Two edits: change one port, and add the same difference at a later one."""

    def change(x: Tensor) -> tuple[Tensor, Tensor]:
        new = edit(x)
        return new, new - x

    return _handed_on(change, torch.add)


def _of_norm(edit: Edit, model: Model, layer: int) -> tuple[Edit, Edit]:
    """Two edits: look at what the norm reads, and write what it would put out."""
    row = model.architecture
    norm = in_block(model, row.mlp_norm, layer)
    weight, bias = norm_weight(norm, row)

    def replaced(_: Tensor, new: Tensor) -> Tensor:
        new = new * weight.to(new)
        return new if bias is None else new + bias.to(new)

    return _handed_on(lambda x: (x, edit(normalised(x, norm, row))), replaced)


@contextmanager
def _eager_attention(model: Model, needed: bool) -> Iterator[None]:
    """Let attention compute its pattern, which faster implementations never form."""
    before: Any = model.hf.config._attn_implementation
    if not needed or before == "eager":
        yield
        return
    model.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)
