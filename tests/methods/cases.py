"""Models with dictionaries and a task, for tests that run every public method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import Dictionary, bind_dictionary
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from tests.families import random_model, word_tokenizer

SUBJECTS, OTHERS = ("cat", "dog", "bird"), ("tree", "door", "cat")
ENDS = ("sat by the", "sang near the", "saw the old", "sat near the")


@dataclass(frozen=True, eq=False)
class Case:
    """A model with dictionaries and a task."""

    model: Model
    saes: dict[Site, Dictionary]
    transcoders: dict[Site, Dictionary]
    task: ct.Task
    found: dict[str, Any] = field(default_factory=dict)  # circuits that other calls begin with

    @cached_property
    def acts(self) -> ct.Activations:
        return ct.capture(self.model, self.saes, self.task, progress=False)

    @property
    def first(self) -> Site:
        return next(iter(self.saes))

    @property
    def first_transcoder(self) -> dict[Site, Dictionary]:
        """For what runs every token of the vocabulary through the layers below."""
        return dict([next(iter(self.transcoders.items()))])

    @property
    def unit(self) -> int:
        """The feature of the first site that is active on most prompts."""
        return most_active(self.found.get("acts", self.acts), self.first)

    @property
    def small(self) -> bool:
        return self.model.n_layers <= 3


def most_active(acts: ct.Activations, site: Site) -> int:
    return int(np.asarray((acts.features[site] > 0).sum(0)).argmax())


def case_of(
    name: str,
    dtype: torch.dtype = torch.float32,
    found: dict[str, Any] | None = None,
    device: str | torch.device = "cpu",
) -> Case:
    """Make the case of the bundled model (`demo`), or of a random model of a family."""
    make = bundled_case if name == "demo" else random_case
    case = make(name, dtype, device)
    case.found.update(found or {})
    return case


def bundled_case(name: str, dtype: torch.dtype, device: str | torch.device) -> Case:
    """Give the bundled model on IOI."""
    model = ct.load_model(name, dtype=dtype, device=device)
    saes = ct.load_dictionaries(model, sites=[f"resid_post {layer}" for layer in (1, 3, 5)])
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    return Case(model, saes, transcoders, ct.tasks.ioi(model, n=8))


def random_case(
    family: str,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    place: Callable[[Any], Any] = lambda module: module,
) -> Case:
    """Give a small random model of a family, and a task that it does."""
    tokenizer, module = word_tokenizer(), random_model(family)
    pairs = [(end, *both) for end in ENDS for both in zip(SUBJECTS, OTHERS, strict=True)]
    clean, corrupted = (tuple(f"the {pair[i]} {pair[0]}" for pair in pairs) for i in (1, 2))
    with torch.no_grad():
        here, there = (
            module(tokenizer(list(texts), return_tensors="pt")["input_ids"]).logits[:, -1]
            for texts in (clean, corrupted)
        )
    right, wrong = (  # what a clean prompt raises most, and what it lowers most
        tuple((token,) for token in each.tolist())
        for each in ((here - there).argmax(1), (here - there).argmin(1))
    )
    subject = {"subject": (-4,) * len(clean)}
    task = ct.Task("easy", clean, corrupted, right, wrong, positions=subject)
    model = ct.load_model(place(module.to(dtype)), tokenizer, device=device)
    layers = range(model.n_layers)
    saes, transcoders = (
        [bind_dictionary(model, sae.to(device), check_model=False) for sae in each]
        for each in (
            [relu_dictionary(model, Site("resid_post", i), Site("resid_post", i)) for i in layers],
            [relu_dictionary(model, Site("mlp_in", i), Site("mlp_out", i)) for i in layers],
        )
    )
    return Case(model, {d.site: d for d in saes}, {d.site: d for d in transcoders}, task)


def relu_dictionary(model: Model, site: Site, out: Site, n_features: int = 80) -> Any:
    """Make a random dictionary without jumps, so that a rounding switches no feature on or off."""
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.transcoder import Transcoder, TranscoderConfig

    width, rng = model.width, torch.Generator().manual_seed(site.layer)
    metadata = SAEMetadata(
        model_name=model.name,
        hook_name=str(site),
        hook_name_out=str(out),
        prepend_bos=True,
        model_from_pretrained_kwargs={},
    )
    size: dict[str, Any] = {"d_in": width, "d_sae": n_features, "metadata": metadata}
    if site == out:
        sae = StandardSAE(StandardSAEConfig(**size))
    else:
        sae = Transcoder(TranscoderConfig(**size, d_out=width, apply_b_dec_to_input=False))
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(n_features, width, generator=rng), dim=1)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        sae.b_enc.copy_(0.1 * torch.randn(n_features, generator=rng) - 1)  # few are active
        sae.b_dec.copy_(0.1 * torch.randn(width, generator=rng))
    return sae.eval().requires_grad_(False)
