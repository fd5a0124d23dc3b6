"""The feature that is asked about: where it reads the stream, and where it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_toolkit.attribution.frozen.readings import block_of, reading_of
from circuit_toolkit.attribution.frozen.sums import Reading
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import (
    decoder_rows,
    encoder_constants,
    encoder_rows,
    stream_of,
)
from circuit_toolkit.dictionaries.names import FeatureName, feature_at
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site


@dataclass(frozen=True, eq=False)
class AnalysedFeature:
    """A feature as a linear reading of the stream, and as a direction that is written to it."""

    dictionary: Dictionary
    index: int
    stream: Site
    row: Tensor
    constant: float
    raw: Tensor
    writes: Tensor

    @property
    def name(self) -> str:
        """As in circuits: site and number."""
        return f"{self.dictionary.site}/{self.index}"

    @property
    def reads_at(self) -> tuple[int, bool]:
        """In front of which block it reads, and whether behind that block's attention."""
        return block_of(self.stream)

    @property
    def writes_at(self) -> tuple[int, bool]:
        """In front of which block it writes, and whether behind that block's attention."""
        site = self.dictionary.out
        return (site.layer + 1, False) if site.kind == "mlp_out" else block_of(site)

    def reading(self, model: Model, stream: Tensor, at: Tensor) -> Reading:
        """Return what it reads at one token of each row of a batch."""
        x = stream[torch.arange(len(at), device=at.device), at]  # (B, D)
        row = self.row.to(x).expand(len(at), -1)
        return reading_of(model, self.dictionary, x, at, row, self.constant)


def find_feature(
    model: Model, dictionaries: Mapping[Site, Dictionary], name: FeatureName
) -> AnalysedFeature:
    """Find a feature by its name."""
    site, index = feature_at(name, dictionaries)
    dictionary = dictionaries[site]
    model.check_site(site)
    return AnalysedFeature(
        dictionary,
        index,
        stream_of(model, dictionary),
        encoder_rows(model, dictionary)[index],
        float(encoder_constants(model, dictionary)[index]),
        dictionary.sae.W_enc[:, index].detach().float(),
        decoder_rows(model, dictionary)[index],
    )
