"""Transcoders whose features have a page on Neuronpedia."""

from __future__ import annotations

import re
from typing import Any

# Release of sae_lens -> model and source set on Neuronpedia, as sae_lens's registry says.
SOURCE_SETS = {
    "gemma-scope-2b-pt-transcoders": ("gemma-2-2b", "gemmascope-transcoder-16k"),
    "mntss-gemma-2-2b-2.5m-clt-as-per-layer": ("gemma-2-2b", "clt-hp"),
    "mwhanna-qwen3-0.6b-transcoders-lowl0": ("qwen3-0.6b", "transcoder-hp-lowl0"),
    "mwhanna-qwen3-1.7b-transcoders-lowl0": ("qwen3-1.7b", "transcoder-hp-lowl0"),
    "mwhanna-qwen3-4b-transcoders": ("qwen3-4b", "transcoder-hp"),
    "mwhanna-qwen3-8b-transcoders": ("qwen3-8b", "transcoder-hp"),
    "mwhanna-qwen3-14b-transcoders": ("qwen3-14b", "transcoder-hp"),
    "mwhanna-qwen3-14b-transcoders-lowl0": ("qwen3-14b", "transcoder-hp-lowl0"),
}
_RELEASE = re.compile(r"[\w.-]+")


def known_source(transcoders: Any) -> tuple[str, str] | None:
    """Return model and source set on Neuronpedia of a graph's transcoders, if all have one.

    `transcoders` is site -> where it was loaded from, which begins with the name of a release.
    """
    if not isinstance(transcoders, dict) or not transcoders:
        return None
    found = set()
    for place in transcoders.values():
        match = _RELEASE.match(place) if isinstance(place, str) else None
        found.add(SOURCE_SETS.get(match[0]) if match else None)
    return found.pop() if len(found) == 1 else None


def model_id(name: Any) -> str:
    """Return what Neuronpedia calls a model: `google/gemma-2-2b` is `gemma-2-2b`."""
    last = str(name or "unknown").rstrip("/").rpartition("/")[2].lower()
    return {"gpt2": "gpt2-small"}.get(last, last)
