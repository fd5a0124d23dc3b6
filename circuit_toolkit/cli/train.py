"""`circuit-toolkit train`: dictionaries of SmolLM2, on text that is made here, or of your model.

SmolLM2's text: sentences like those of the tasks, in words that no task has, and what the model
itself writes. All of it lies in the cache, where `load_dictionaries(model)` finds it. A run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import markdown, warn, write, write_json
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.files.checks import check_folder, existing_file
from circuit_toolkit.files.documents import plain, write_text
from circuit_toolkit.files.folder import locked
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.progress import Bar

LOCK = ".command.lock"  # of the whole command; `train_dictionaries` takes one of its own
JUDGED = 32  # sentences, and prompts of the task
IN_MEMORY = 100e6  # bytes of a user's texts
TEXTS_AT_ONCE = 64  # that the model writes in one go
OPENINGS = (
    "Once upon a time", "The", "In the", "When", "My friend", "Yesterday", "One day", "I think",
    "She said", "He was", "The city of", "In 1", "It was a", "There are many", "According to",
    "A new study", "How to", "The old man", "The president", "Every morning",
)  # fmt: skip
REQUESTS = (
    "Tell me a short story about two friends.",
    "Write a letter to a neighbor.",
    "What happened at the market today?",
    "Explain how bread is made.",
    "Describe a family dinner.",
    "Write a Python function with a docstring.",
    "Who wrote your favorite book, and what is it about?",
    "Give me three facts about history.",
    "Write a dialogue between a teacher and a student.",
    "Summarize the news of a small town.",
)


@dataclass(frozen=True)
class Recipe:
    """Which dictionaries a model gets, and on how much text."""

    saes: tuple[str, ...]
    transcoders: tuple[str, ...]
    n_features: int = 2048
    k: int = 32
    batch: int = 512
    passes: int = 6
    steps: int = 700
    written: int = 64  # texts that the model writes
    sentences: int = 12  # beside each of these, which come again and again


RECIPES = {
    "smollm2": Recipe(
        saes=tuple(f"resid_post {layer}" for layer in (11, 15, 18, 20, 22, 25)),
        transcoders=tuple(f"mlp_in {layer}" for layer in (5, 10, 15, 19, 22, 26)),
    )
}


def run_train(args: argparse.Namespace) -> None:
    """Write text, train, and report; or train on a user's texts."""
    import torch

    from circuit_toolkit.models import load_model

    if args.texts is not None or args.sites is not None:
        _train_yours(args)
        return
    if args.model not in RECIPES:
        raise InputError(
            f"There is no recipe for {args.model!r}, only for {', '.join(RECIPES)}. Train on your "
            "own texts: --texts FILE --sites 'resid_post 2, resid_post 4' --folder FOLDER."
        )
    recipe, folder = RECIPES[args.model], args.folder or cache_folder(args.model)
    check_folder(folder)
    began, say = time.perf_counter(), write_json if args.json else _say
    with locked(folder, LOCK):
        model = load_model(args.model, device=args.device, dtype=torch.bfloat16)
        train(model, recipe, folder, progress=not args.json)
        judged = load_model(args.model, device=args.device)
        say(quality(judged, folder, progress=not args.json))
    warn(f"{folder} is ready after {time.perf_counter() - began:.0f} s.")


def _train_yours(args: argparse.Namespace) -> None:
    """Train on lines of a file, at sites that were asked for, and judge on the first lines."""
    from circuit_toolkit.dictionaries import check_dictionaries, train_dictionaries

    options = {"--texts": args.texts, "--sites": args.sites, "--folder": args.folder}
    if missing := [name for name, value in options.items() if value is None]:
        raise InputError(
            f"{' and '.join(missing)} is missing: your model needs --texts, a file whose lines are "
            "texts, --sites and --folder."
        )
    existing_file(args.texts, "Pass a file whose lines are texts.")
    check_folder(args.folder)
    began, show, model = time.perf_counter(), not args.json, asked_model(args)
    kind = "transcoder" if args.transcoders else "sae"
    with args.texts.open(encoding="utf-8") as lines:
        texts = filter(None, map(str.strip, lines))
        judged = [*islice(texts, JUDGED)]
        small = args.texts.stat().st_size <= IN_MEMORY
        # All in memory, gone through as often as the steps need; or as a stream, each text once.
        given: Any = [*judged, *texts] if small else args.texts
    made = train_dictionaries(
        model, args.sites, given, kind, folder=args.folder, steps=args.steps, progress=show
    )
    check = check_dictionaries(model, {**made}, judged, progress=show)
    found = {
        "model": model.name,
        "folder": str(args.folder),
        "prompts": len(judged),
        "dictionaries": {str(site): dict(row) for site, row in check.figures.items()},
        "findings": {str(site): list(each) for site, each in check.findings.items() if each},
    }
    write_json(found) if args.json else write(*_table(found))
    warn(f"{args.folder} is ready after {time.perf_counter() - began:.0f} s.")


def train(model: Any, recipe: Recipe, folder: Path, progress: bool = True) -> None:
    """Train the autoencoders of a recipe side by side, then the transcoders."""
    from circuit_toolkit.dictionaries import train_dictionaries

    texts = written_texts(model, recipe.written, folder, progress)
    for kind, sites in (("sae", recipe.saes), ("transcoder", recipe.transcoders)):
        train_dictionaries(
            model,
            sites,
            mixed(model, texts, recipe.sentences),
            kind,  # pyright: ignore[reportArgumentType]
            n_features=recipe.n_features,
            k=recipe.k,
            steps=recipe.steps,
            batch=recipe.batch,
            passes=recipe.passes,
            rule="batchtopk",
            precision="bfloat16",
            folder=folder,
            checkpoint_every=100,
            half=True,
            memory=4e8,
            progress=progress,
        )


def quality(model: Any, folder: Path, progress: bool = True) -> dict[str, Any]:
    """Judge what was trained, on sentences and prompts that it was not trained on; keep it there.

    `features_hold` is the share of the metric that goes when all features of the autoencoders, at
    the positions that the task names, are set to those of the corrupted prompt, and what they leave
    unexplained is kept.
    """
    from circuit_toolkit.dictionaries import check_dictionaries, load_dictionaries
    from circuit_toolkit.patching.placed_features import PlacedFeatures
    from circuit_toolkit.tasks import ioi
    from circuit_toolkit.tasks.natural.sentences import sentences

    path = folder / "quality.json"
    if path.is_file():
        return read_json(path, f"Delete {path}: it is made anew.")
    task = ioi(model, n=JUDGED, seed=1, test=True)
    text = [*islice(sentences(seed=1), JUDGED), *task.clean]
    found: dict[str, Any] = {"model": model.name, "task": task.name, "prompts": JUDGED}
    kinds = {kind: load_dictionaries(model, folder, kind=kind) for kind in ("sae", "transcoder")}
    rows, said = found["dictionaries"], found["findings"] = {}, {}
    for known in kinds.values():
        check = check_dictionaries(model, {**known}, text, task=task, progress=progress)
        rows |= {str(site): dict(row) for site, row in check.figures.items()}
        said |= {str(site): list(each) for site, each in check.findings.items() if each}
    runs = PlacedFeatures.of(model, kinds["sae"], task)
    full, empty = runs.metric().mean(), runs.metric_with({}).mean()
    found["features_hold"] = float(1 - empty / full)
    write_text(path, json.dumps(plain(found, "quality"), indent=1) + "\n")
    return found


def _say(found: dict[str, Any]) -> None:
    hold = f"All autoencoders together hold {found['features_hold']:.2f} of {found['task']}."
    write(*_table(found), hold)


def _table(found: dict[str, Any]) -> list[str]:
    """Return what dictionaries were judged by, and what was found wrong."""
    rows = found["dictionaries"]
    heads = list(next(iter(rows.values())))
    table = [[site, *(f"{row[name]:.3f}" for name in heads)] for site, row in rows.items()]
    notes = [f"{site}: {text}" for site, each in found["findings"].items() for text in each]
    return [*markdown(["site", *heads], table), "", *notes]


def mixed(model: Any, texts: list[list[int]], each: int) -> Iterator[list[int]]:
    """Return token ids of what the model wrote and of sentences, in turn; the texts start anew."""
    from circuit_toolkit.tasks.natural.sentences import sentences

    made = sentences()
    for text in cycle(texts):
        yield text
        for sentence in islice(made, each):
            yield model.tokenizer(sentence)["input_ids"]


def written_texts(model: Any, n: int, folder: Path, progress: bool = True) -> list[list[int]]:
    """Let the model write n texts, token ids each; parts that are there are read."""
    found: list[list[int]] = []
    parts = range(-(-n // TEXTS_AT_ONCE))
    for part in Bar(parts, "write text", shown=progress):
        path = folder / "text" / f"{part:04d}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(_sampled(model, part)))
        found += read_json(path, f"Delete {path}: it is made anew.")
    return found[:n]


def _sampled(model: Any, seed: int, length: int = 48) -> list[list[int]]:
    """Sample texts, half of them answers in a chat, the others plain."""
    import torch

    from circuit_toolkit.models.ports import alone

    rng, tokenizer = random.Random(seed), model.tokenizer
    prompts = []
    for i in range(TEXTS_AT_ONCE):
        if i % 2 and tokenizer.chat_template:
            asked = [{"role": "user", "content": rng.choice(REQUESTS)}]
            text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            prompts.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        else:
            prompts.append(tokenizer(rng.choice(OPENINGS))["input_ids"])
    batch = model.tokenize(prompts)
    with alone(model), torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        rows = model.hf.generate(
            batch.ids,
            attention_mask=batch.mask,
            do_sample=True,
            max_new_tokens=length,
            pad_token_id=tokenizer.pad_token_id or 0,
        )
    texts, end = [], tokenizer.eos_token_id
    for prompt, row in zip(prompts, rows.tolist(), strict=True):
        new = row[batch.ids.shape[1] :]
        new = new[: new.index(end) + 1] if end in new else new
        texts.append([*prompt, *new])
    return texts
