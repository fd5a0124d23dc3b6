"""Features and logits as linear readings of the stream, norm factors held."""

from __future__ import annotations

from torch import Tensor

from circuit_toolkit.attribution.frozen.sums import Reading
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import is_normed, stream_of
from circuit_toolkit.models import Model
from circuit_toolkit.models.weights import in_block, norm_gain
from circuit_toolkit.sites import Site


def block_of(stream: Site) -> tuple[int, bool]:
    """Return in front of which block a place of the stream is, and whether behind its attention."""
    return stream.layer + (stream.kind == "resid_post"), stream.kind == "resid_mid"


def reading_of(
    model: Model,
    dictionary: Dictionary,
    x: Tensor,
    at: Tensor,
    rows: Tensor,
    constant: float | Tensor,
) -> Reading:
    """Return what features read of the stream, (R, D), at one token each: rows of the encoder."""
    stream = stream_of(model, dictionary)
    if is_normed(dictionary):
        norm = in_block(model, model.architecture.mlp_norm, stream.layer)
        rows = rows * norm_gain(x, norm, model.architecture)
    return Reading(rows, at, *block_of(stream), constant, dictionary.kind == "sae")
