"""Train the dictionaries of the bundled model: an autoencoder a residual site, a transcoder an MLP.

`python -m benchmarks.demo.train_dictionaries` repeats it: seeded, and what is already there
stays, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.demo.grammar import SHARES, Grammar
from circuit_toolkit.dictionaries import DictionaryConfig, save_dictionary
from circuit_toolkit.dictionaries.dictionary import DEMO_DICTIONARIES
from circuit_toolkit.dictionaries.training.trainers import SAMPLE, BatchTopKTraining, SaeTraining
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model, load_model, run, token_mask
from circuit_toolkit.sites import Site


@dataclass(frozen=True)
class Recipe:
    """How the dictionaries of one kind are trained.

    Parameters
    ----------
    config : DictionaryConfig
        Size and schedule.
    shares : dict of str to float
        How often a family of texts occurs.
    """

    config: DictionaryConfig
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)


RECIPES = {
    "sae": Recipe(DictionaryConfig(n_features=768, k=16, steps=3000, learning_rate=2e-3)),
    # An MLP of this model has few things to say: more features would hardly be active.
    "transcoder": Recipe(DictionaryConfig(n_features=384, k=24, steps=3000, learning_rate=2e-3)),
}


def training_texts(n: int, seed: int, shares: Mapping[str, float] = SHARES) -> list[str]:
    """Texts of the model's language, sorted by length so that little is padding."""
    grammar = Grammar(seed, shares)
    return sorted((sentence.text for sentence in grammar.sentences(n)), key=len)


def activations(model: Model, texts: list[str], sites: list[Site]) -> dict[Site, Tensor]:
    """Read sites on every token but <bos>, shape (n, D) each, in half precision to save memory."""
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(texts), 256):
        batch = model.tokenize(texts[start : start + 256])
        mask = token_mask(model, batch)
        for site, value in run(model, batch, read=sites).items():
            parts[site].append(value[mask].half())
    return {site: torch.cat(values) for site, values in parts.items()}


def plan(model: Model) -> list[tuple[str, Site, Site]]:
    """Folder, site read and site reconstructed of every dictionary."""
    layers = range(model.n_layers)
    residual = [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in layers)]
    saes = [(f"sae-{site.short.replace(' ', '-')}", site, site) for site in residual]
    transcoders = [
        (f"transcoder-{layer}", Site("mlp_in", layer), Site("mlp_out", layer)) for layer in layers
    ]
    return saes + transcoders


def train_sae(x: Tensor, config: DictionaryConfig, metadata: dict[str, Any]) -> Any:
    """Train a top-k sparse autoencoder on activations in memory, a row a token."""
    check_rows(x, config)
    batches = (x[rows] for rows in row_batches(len(x), config))
    training = SaeTraining(list(islice(batches, SAMPLE)), config, metadata)
    for batch in islice(batches, config.steps):
        training.update(batch)
    return training.finish()


def train_transcoder(
    x: Tensor, y: Tensor, config: DictionaryConfig, metadata: dict[str, Any]
) -> Any:
    """Train a transcoder on what an MLP reads and what it writes, a row a token."""
    check_rows(x, config)
    if x.shape != y.shape:
        raise InputError(f"x and y must agree in shape, got {tuple(x.shape)}, {tuple(y.shape)}.")
    training = BatchTopKTraining(x, y, config, metadata)
    for rows in islice(row_batches(len(x), config), config.steps):
        training.update(x[rows], y[rows])
    return training.finish()


def row_batches(n: int, config: DictionaryConfig) -> Iterator[Tensor]:
    """Endless shuffled row numbers, `batch` at a time."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from (part for part in order.split(config.batch) if len(part) == config.batch)


def check_rows(x: Tensor, config: DictionaryConfig) -> None:
    """Refuse fewer tokens than one batch."""
    if x.ndim != 2 or len(x) < config.batch:
        raise InputError(
            f"Activations must have shape (n, D) with n >= batch = {config.batch}, got "
            f"{tuple(x.shape)}. Capture more tokens, or lower the batch."
        )


def train_all(
    model: Model,
    folder: Path,
    recipes: Mapping[str, Recipe],
    n_texts: int,
    log=sys.stderr,
) -> None:
    """Train what is not there yet.

    Parameters
    ----------
    model : Model
        The trained model.
    folder : Path
        Where the dictionaries go, each in a folder of its own.
    recipes : dict of str to Recipe
        For `sae`, `transcoder` or both: how they are trained.
    n_texts : int
        Number of texts to capture.
    log : file
        Where progress is written.
    """
    began = time.monotonic()
    for kind, recipe in recipes.items():
        config = recipe.config
        todo = [
            (name, site, out)
            for name, site, out in plan(model)
            if name.split("-")[0] == kind and not (folder / name / "cfg.json").exists()
        ]
        if not todo:
            continue
        sites = sorted({site for _, *pair in todo for site in pair})
        texts = training_texts(n_texts, config.seed + 1, recipe.shares)
        acts = activations(model, texts, sites)
        for name, site, out in todo:
            metadata = {
                "model_name": model.name,
                "hook_name": str(site),
                "hook_name_out": str(out),
                "prepend_bos": True,
                "context_size": model.context,
                "model_class_name": "HookedTransformer",
                "model_from_pretrained_kwargs": {},
            }
            x = acts[site].float()
            if site == out:
                trained = train_sae(x, config, metadata)
            else:
                trained = train_transcoder(x, acts[out].float(), config, metadata)
            save_dictionary(trained, folder / name)
            log.write(f"{name}  {(time.monotonic() - began) / 60:.1f} min\n")
            log.flush()


def main(argv: list[str] | None = None) -> None:
    """Train the dictionaries of the bundled model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=DEMO_DICTIONARIES)
    parser.add_argument("--texts", type=int, default=30_000)
    parser.add_argument("--kinds", nargs="+", default=list(RECIPES), choices=RECIPES)
    for name in ("steps", "n-features", "k"):
        parser.add_argument(f"--{name}", type=int, help="by default that of the recipe")
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in ("steps", "n_features", "k")}
    given = {name: value for name, value in given.items() if value is not None}
    recipes = {
        kind: replace(RECIPES[kind], config=replace(RECIPES[kind].config, **given))
        for kind in args.kinds
    }
    train_all(load_model(args.model), args.out, recipes, args.texts)


if __name__ == "__main__":
    main()
