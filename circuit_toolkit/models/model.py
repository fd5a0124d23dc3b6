"""A language model, its tokenizer and its layout, wrapped once around nnsight."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models.architectures import Architecture, architecture_of
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEMO_FOLDER = Path(__file__).parents[1] / "demo" / "model"


@dataclass(frozen=True, eq=False)
class Batch:
    """Prompts as tokens, padded on the left.

    Parameters
    ----------
    ids : Tensor, shape (B, T)
        Token ids.
    mask : Tensor, shape (B, T)
        1 where there is a token, 0 where there is padding.
    """

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face language model that can be read and edited at its sites.

    Parameters
    ----------
    nn : nnsight.TransformersModel
        The wrapped model; `model.nn.trace(...)` is there for whatever this class does not offer.
    name : str
        What it was loaded from; dictionaries are checked against it.
    architecture : Architecture
        Where the family keeps its sites.
    """

    nn: Any
    name: str
    architecture: Architecture

    @property
    def hf(self) -> PreTrainedModel:
        """The Hugging Face module."""
        return self.nn._module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which pads on the left."""
        return self.nn.tokenizer

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.hf.config.num_hidden_layers

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.hf.config.hidden_size

    @property
    def context(self) -> int:
        """Largest number of tokens in a prompt, the beginning-of-sequence token included."""
        return self.hf.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.hf.device

    def __repr__(self) -> str:
        """Name and size, without the tree of modules."""
        return f"Model({self.name!r}, {self.n_layers} layers, width {self.width}, {self.device})"

    def check_site(self, site: Site) -> None:
        """Refuse a site that this model does not have.

        Parameters
        ----------
        site : Site
            A place in the model.

        Raises
        ------
        InputError
            If the family has no such kind of site, or the model not as many layers.
        """
        if site.kind not in self.architecture.places:
            known = ", ".join(self.architecture.places)
            raise InputError(f"{self.name} has no site of kind {site.kind!r}. It has {known}.")
        if site.layer >= self.n_layers:
            raise InputError(
                f"{site} does not exist: {self.name} has layers 0 to {self.n_layers - 1}."
            )

    def tokenize(self, prompts: Sequence[str]) -> Batch:
        """Turn prompts into one batch, padded on the left.

        Parameters
        ----------
        prompts : sequence of str
            At least one text.

        Returns
        -------
        Batch
            Token ids and mask, shapes (B, T).

        Raises
        ------
        InputError
            If there is no prompt, one is empty or too long, or has words that the model's
            vocabulary lacks.
        """
        prompts = list(prompts)
        for prompt in prompts:
            if not isinstance(prompt, str) or not prompt.strip():
                raise InputError(f"A prompt must be a text with words in it, got {prompt!r}.")
        if not prompts:
            raise InputError("No prompts were given. Pass a task or a list of texts.")
        encoded = self.tokenizer(
            prompts, padding=True, padding_side="left", return_tensors="pt", verbose=False
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        if ids.shape[1] > self.context:
            longest = prompts[int(mask.sum(1).argmax())]
            raise InputError(
                f"A prompt has {ids.shape[1]} tokens, {self.name} takes at most {self.context}: "
                f"{longest[:80]!r}. Shorten it."
            )
        self._refuse_unknown_words(prompts, ids)
        return Batch(ids.to(self.device), mask.to(self.device))

    def _refuse_unknown_words(self, prompts: list[str], ids: Tensor) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.eos_token_id:  # GPT-2: unk is eos
            return
        rows = torch.isin(ids, torch.tensor(unknown)).any(dim=1).nonzero().flatten().tolist()
        if rows:
            prompt = prompts[rows[0]]
            encoded = self.tokenizer(prompt, return_offsets_mapping=True)
            words = [
                prompt[start:end]
                for token, (start, end) in zip(
                    encoded["input_ids"], encoded["offset_mapping"], strict=True
                )
                if token == unknown
            ]
            raise InputError(
                f"{self.name} does not know {', '.join(map(repr, words))} in {prompt!r}. "
                "Use words of its vocabulary: model.tokenizer.get_vocab()."
            )

    def words(self, batch: Batch) -> list[list[str]]:
        """Give the tokens of each prompt as readable text, padding left out.

        Parameters
        ----------
        batch : Batch
            Tokenized prompts.

        Returns
        -------
        list of list of str
        """
        return [
            [str(self.tokenizer.decode([token])) for token in ids[mask.bool()].tolist()]
            for ids, mask in zip(batch.ids, batch.mask, strict=True)
        ]

    def token_id(self, word: str) -> int:
        """Give the id of a word that is one token.

        Parameters
        ----------
        word : str
            An answer, with its leading space if the tokenizer wants one.

        Returns
        -------
        int

        Raises
        ------
        InputError
            If the word is not exactly one known token.
        """
        ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or (ids[0] == self.tokenizer.unk_token_id != self.tokenizer.eos_token_id):
            raise InputError(
                f"{word!r} is {len(ids)} tokens for {self.name}, or unknown to it. "
                "An answer must be one known token."
            )
        return ids[0]


def load_model(
    name: str | os.PathLike | PreTrainedModel = "demo",
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    architecture: Architecture | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Load a language model.

    Parameters
    ----------
    name : str, path or PreTrainedModel
        `demo` for the model that ships with the package, a folder or a name of the Hugging Face
        hub, or a module that is already loaded.
    tokenizer : PreTrainedTokenizerBase, optional
        Needed with a module; otherwise read from where the model comes from.
    architecture : Architecture, optional
        Layout of a family that the toolkit does not know.
    device : str or torch.device
        Where to put it.
    dtype : torch.dtype
        Precision of the weights.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If there is no such folder or model, or its family is unknown.
    MismatchError
        If tokenizer and model do not belong together, or a path of the layout does not exist.
    """
    import beartype  # noqa: F401  # before nnsight, which puts .save on every object: else it fails
    from nnsight import TransformersModel

    module: Any  # transformers wraps `to` in a way that type checkers misread
    if isinstance(name, (str, os.PathLike)):
        module, found = _read(str(DEMO_FOLDER) if name == "demo" else os.fspath(name), dtype)
        tokenizer = tokenizer or found
        label = str(name)
    else:
        module, label = name, getattr(name.config, "_name_or_path", "") or type(name).__name__
        if tokenizer is None:
            raise InputError("A module needs its tokenizer: load_model(module, tokenizer).")
    assert tokenizer is not None
    if len(tokenizer) > module.config.vocab_size:
        raise MismatchError(
            f"The tokenizer has {len(tokenizer)} tokens, the model {module.config.vocab_size}. "
            "Load both from the same place."
        )
    architecture = architecture or architecture_of(module.config.model_type)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    module = module.eval().to(device).requires_grad_(False)
    _check_paths(module, architecture)
    wrapped = TransformersModel(module, tokenizer=tokenizer, task="text-generation")
    return Model(wrapped, label, architecture)


def _read(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Read module and tokenizer, without a progress bar where nothing is downloaded."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet = os.path.isdir(source) and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        module = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        return module, AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No model could be loaded from {source!r}. Pass 'demo', a folder with "
            "config.json and weights, or a name of the Hugging Face hub (which needs the "
            f"network). Cause: {error}"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()


def _check_paths(module: torch.nn.Module, architecture: Architecture) -> None:
    """Name the first path of the layout that the module lacks."""
    paths = {kind: path for kind, (path, _) in architecture.places.items()}
    for kind, path in {**paths, "the final norm": architecture.final_norm}.items():
        try:
            module.get_submodule(path.format(0))
        except AttributeError as error:
            raise MismatchError(
                f"The layout puts {kind!r} at {path!r}, which {type(module).__name__} does not "
                "have. Pass a fitting architecture=Architecture(...)."
            ) from error
