"""A real Llama with grouped-query heads, and transcoders trained for it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch

from circuit_toolkit.dictionaries import train_dictionaries
from circuit_toolkit.models import load_model
from circuit_toolkit.sites import Site


@cache
def stories_case(shared_data: Path):
    """Model, transcoders of three of its layers, and prompts as token ids."""
    model = load_model(shared_data / "models/stories260k")
    texts = json.loads((shared_data / "text/tinystories_1000.json").read_text())[:60]
    cut = [model.tokenize([text[:300]]).ids[0, :48].tolist() for text in texts]
    sites = [Site("mlp_in", layer) for layer in (0, 1, 3)]
    torch.manual_seed(0)
    transcoders = train_dictionaries(
        model,
        sites,
        cut,
        "transcoder",
        n_features=128,
        k=12,
        steps=100,
        batch=256,
        progress=False,
    )
    return model, transcoders, cut
