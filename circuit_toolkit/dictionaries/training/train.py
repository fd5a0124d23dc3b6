"""Train dictionaries for sites of a model, from texts to what is ready for use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from circuit_toolkit.arguments import expect, one_of, whole
from circuit_toolkit.dictionaries.dictionary import DICTIONARY_FILES, Dictionary
from circuit_toolkit.dictionaries.training.batches import ActivationReader, TokenRows, token_rows
from circuit_toolkit.dictionaries.training.checkpoints import TrainingRun
from circuit_toolkit.dictionaries.training.streaming import (
    TokenStream,
    beginning,
    train_on_stream,
)
from circuit_toolkit.dictionaries.training.trainers import DictionaryConfig
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.checks import check_folder
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.folder import check_replaceable, locked
from circuit_toolkit.models import Model
from circuit_toolkit.models.weights import expect_weights
from circuit_toolkit.sites import Site


def train_dictionaries(
    model: Model,
    sites: Iterable[Site | str],
    prompts: Any,
    kind: Literal["sae", "transcoder"] = "sae",
    *,
    n_features: int | None = None,
    k: int = 16,
    steps: int = 2000,
    batch: int = 1024,
    learning_rate: float | None = None,
    rule: Literal["topk", "batchtopk"] | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    passes: int = 1,
    seed: int = 0,
    prepend_bos: bool | None = None,
    context: int | None = None,
    packed: bool = False,
    folder: str | Path | None = None,
    resume: bool = True,
    checkpoint_every: int = 500,
    half: bool = False,
    memory: float = 2e9,
    progress: bool = True,
) -> dict[Site, Dictionary]:
    """Train a dictionary for each of some sites of a model.

    Autoencoders are top-k (Gao et al., 2024) and trained by sae_lens; transcoders, and autoencoders
    where it is asked for, are batch-top-k (Bussmann et al., 2024), saved as jump-ReLU. They read
    what the Hugging Face model computes, and their metadata say so. The beginning-of-sequence token
    is left out, and so are tokens whose norm is 4 times the median, such as attention sinks. The
    same arguments give the same dictionaries, on the same machine and number of threads.

    Text that is larger than memory comes as a generator, a function that returns one, or the path
    of a file. All dictionaries are then trained side by side, and the model runs once.

    Parameters
    ----------
    model : Model
        The model.
    sites : iterable of Site or str
        What autoencoders read and reconstruct (heads in a row); what transcoders read, `mlp_in` or
        `mlp_norm`, to reconstruct `mlp_out` of that layer.
    prompts : sequence of str, or of sequences of int, or integers of shape (n, T), or Task
        Texts; or token ids, which are taken as they are. As a stream: an iterator over these, a
        function that returns an iterable, or the path of a file, each of whose lines is a text.
    kind : {"sae", "transcoder"}
        What to train.
    n_features : int, optional
        Width of a dictionary; by default 8 times what it reads.
    k : int
        Features active per token: exactly for an autoencoder, on average for a transcoder.
    steps, batch : int
        Number of steps, and tokens in each.
    learning_rate : float, optional
        Peak of Adam's rate, which falls to a tenth over the last third; by default
        `5e-4 * sqrt(2**14 / n_features)`, falling with width as Gao et al. (2024) found.
    rule : {"topk", "batchtopk"}, optional
        Which features stay active: the k largest of each token (autoencoders, by default), or k a
        token on average (transcoders, always).
    precision : {"float32", "bfloat16"}
        What matrices are multiplied in during batch-top-k training; weights are float32.
    passes : int
        Of a stream: how often each block of it is gone through, shuffled anew, before the next.
    seed : int
        Seed of the weights and of the order of the tokens.
    prepend_bos : bool, optional
        Whether texts begin with the beginning-of-sequence token; by default as the tokenizer has
        it.
    context : int, optional
        Tokens in the longest sequence; by default the model's context, but at most 1,024.
    packed : bool
        Whether to join texts and cut them into sequences of `context` tokens, so that nothing is
        lost; else each text is a sequence, and what exceeds the context is left out.
    folder : path, optional
        Where dictionaries go, each in a folder of its own in sae_lens format, and checkpoints
        meanwhile. Without it they stay in memory.
    resume : bool
        Whether to take what is finished in the folder and go on from checkpoints. The result is
        that of a run without an interruption. Otherwise all is trained anew.
    checkpoint_every : int
        Steps between checkpoints.
    half : bool
        Whether to save weights in half precision.
    memory : float
        Bytes for activations. If those of all sites fit, the model runs once; if those of one site
        do, once a site; otherwise they stream through a buffer of this size. Of a stream, the size
        of a block, at all sites.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    dict of Site to Dictionary
        In order of computation.

    Raises
    ------
    InputError
        If there are no prompts or fewer tokens than a batch, a setting makes no sense, a site does
        not exist or is not of this kind, the folder of a dictionary holds something else, another
        process trains in the folder, or the weights are not finite: pass a smaller rate.
    MismatchError
        If the folder holds a run with other settings.
    FileFormatError
        If a checkpoint is damaged.
    WriteError
        If the disk is full or the folder cannot be written to; the last checkpoint stays.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> from circuit_toolkit.dictionaries import train_dictionaries
    >>> model = ct.load_model("demo")
    >>> texts = ct.tasks.ioi(model, n=64).texts
    >>> train_dictionaries(model, ["resid_post 2"], texts, steps=20, batch=256, progress=False)
    {Site(kind='resid_post', layer=2): Dictionary('sae-resid_post-2', sae at ...)}
    """
    expect(model, "model", "Model")
    expect_weights(model)
    plan = _plan(model, sites, kind)
    k, steps, batch = whole(k, "k", 1), whole(steps, "steps", 1), whole(batch, "batch", 1)
    seed, every = whole(seed, "seed"), whole(checkpoint_every, "checkpoint_every", 1)
    width = None if n_features is None else whole(n_features, "n_features", k)
    passes, parent = whole(passes, "passes", 1), None if folder is None else resolved(folder)
    if parent is not None:
        check_folder(parent)
    one_of(precision, "precision", "float32", "bfloat16")
    text, begin = (prepend_bos, context, packed), beginning(prompts)
    blocks: Iterator[TokenRows] | None = None
    if begin is None:
        tokens = token_rows(model, prompts, *text)
    else:
        every_site = [site for pair in plan.values() for site in pair]
        blocks = TokenStream(model, begin, *text, _fits(model, every_site, memory)).blocks()
        tokens = next(blocks, TokenRows([], False, np.zeros(0, int)))
        blocks = chain([tokens], blocks)
    if tokens.total < batch:
        raise InputError(
            f"The prompts have {tokens.total} tokens to train on, fewer than one batch of {batch}. "
            "Pass more, or a smaller batch."
        )
    config = DictionaryConfig(0, k, steps, batch, 0.0, seed, _rule(rule, kind), precision)
    runs = {}
    for site, pair in plan.items():
        held = min(_capacity(model, pair, tokens, batch, memory), tokens.total)
        mine = of_width(config, width or 8 * prod(model.shape_at(site)), learning_rate)
        runs[site] = training_run(model, tokens, pair, mine, held, parent, half)
    with nullcontext() if parent is None else locked(parent):
        found, todo = begun(model, runs, resume)
        every_run = list(todo.values())
        if blocks is not None and todo:
            how = {"passes": passes, "every": every, "seed": seed, "progress": progress}
            trained = train_on_stream(model, todo, blocks, **how)
            found |= {site: todo[site].keep(model, each) for site, each in trained.items()}
        elif todo:
            reader = ActivationReader(model, tokens, [r.sites for r in every_run], memory, progress)
            for site, run in todo.items():
                batches = partial(reader.batches, run.sites, batch, seed)
                found[site] = run.keep(model, run.train(batches, every, progress))
    return {site: found[site] for site in runs}


def begun(
    model: Model, runs: Mapping[Site, TrainingRun], resume: bool
) -> tuple[dict[Site, Dictionary], dict[Site, TrainingRun]]:
    """Load what is finished; return it, and the runs that are left."""
    finished = {site for site, run in runs.items() if resume and run.is_finished()}
    todo = {site: run for site, run in runs.items() if site not in finished}
    for run in todo.values():
        if run.parent is not None:
            check_replaceable(run.parent / run.name, DICTIONARY_FILES)
    for site, run in runs.items():
        if site in finished or not resume:
            run.forget()
    return {site: runs[site].load(model) for site in finished}, todo


def training_run(
    model: Model,
    tokens: TokenRows,
    sites: tuple[Site, ...],
    config: DictionaryConfig,
    held: int,
    parent: Path | None,
    half: bool,
) -> TrainingRun:
    """Return the training of one dictionary, with what its files will say of it."""
    kind = "sae" if len(sites) == 1 else "transcoder"
    name = f"{kind}-{sites[0].short.replace(' ', '-')}"
    about = _metadata(model, tokens, sites, config, held)
    return TrainingRun(name, sites, config, about, parent, half)


def of_width(
    config: DictionaryConfig, n_features: int, learning_rate: float | None
) -> DictionaryConfig:
    """Return settings for a width, with the rate that suits it where none is given."""
    size = whole(n_features, "n_features", config.k)
    rate = 5e-4 * (2**14 / size) ** 0.5 if learning_rate is None else learning_rate
    return replace(config, n_features=size, learning_rate=rate)


def _rule(rule: str | None, kind: str) -> str:
    one_of(rule, "rule", "topk", "batchtopk", None)
    if kind == "transcoder" and rule == "topk":
        raise InputError("Transcoders are batch-top-k: leave rule out.")
    return rule or ("topk" if kind == "sae" else "batchtopk")


def _fits(model: Model, sites: Sequence[Site], memory: float) -> int:
    """Tokens whose activations at these sites fit into memory."""
    return int(memory // (4 * sum(prod(model.shape_at(site)) for site in sites)))


def _plan(model: Model, sites: Iterable[Site | str], kind: str) -> dict[Site, tuple[Site, ...]]:
    """Return what each dictionary reads, and what a transcoder reconstructs."""
    one_of(kind, "kind", "sae", "transcoder")
    if isinstance(sites, str | Site):
        raise InputError(f"sites must be a list, not one site: write [{str(sites)!r}].")
    found = sorted({Site.parse(site) for site in sites})
    if not found:
        raise InputError("No sites were given: pass for example ['resid_post 2'].")
    for site in found:
        model.shape_at(site)
        if site.kind == "logits":
            raise InputError("Dictionaries read activations, not logits: use resid_post.")
        if kind == "transcoder" and site.kind not in ("mlp_in", "mlp_norm"):
            raise InputError(
                f"A transcoder reads what an MLP reads, not {site}. Pass "
                f"[{Site('mlp_in', site.layer).short!r}], or kind='sae'."
            )
    if kind == "sae":
        return {site: (site,) for site in found}
    return {site: (site, Site("mlp_out", site.layer)) for site in found}


def _capacity(
    model: Model, sites: Sequence[Site], tokens: TokenRows, batch: int, memory: float
) -> int:
    """Tokens that memory holds: all, or at least a batch and the longest sequence."""
    each = 4 * sum(prod(model.shape_at(site)) for site in sites)
    least = min(tokens.total, batch + int(tokens.counts.max()))
    if memory < each * least:
        raise InputError(
            f"memory={memory:.0f} bytes hold fewer tokens of {sites[0]} than a batch and a "
            f"sequence: pass at least {each * least}, or a smaller batch or context."
        )
    return _fits(model, sites, memory)


def _metadata(
    model: Model, tokens: TokenRows, sites: tuple[Site, ...], config: DictionaryConfig, held: int
) -> dict[str, Any]:
    """Write what a dictionary says of its training."""
    return {
        "model_name": model.name,
        "hook_name": str(sites[0]),
        "hook_name_out": str(sites[-1]),
        "prepend_bos": tokens.begin,
        "context_size": tokens.longest,
        "model_class_name": "HookedTransformer",  # whose hook names these are
        "model_from_pretrained_kwargs": {},  # its weights were not processed
        "training_tokens": config.steps * config.batch,
        "training": {
            **asdict(config),
            "dataset_sequences": len(tokens.rows),
            "dataset_tokens": tokens.total,
            "dataset_sha256": tokens.sha256,
            "buffer_tokens": held,
        },
    }
