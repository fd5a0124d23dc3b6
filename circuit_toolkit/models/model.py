"""A language model, its tokenizer and its layout, wrapped once around nnsight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from circuit_toolkit.arguments import as_prompts, refuse_surrogates
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.architectures import Architecture
from circuit_toolkit.models.token_texts import token_text
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A text, the ids of its tokens, or the messages of a chat.
Prompt = str | Sequence[int] | Tensor | Sequence[Mapping[str, str]]


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
    edits : callable, optional
        From a batch to what is written at sites in every run, see `interventions.intervened`.
    key : str
        By which this object is known again, also where it carries edits.
    """

    nn: Any
    name: str
    architecture: Architecture
    edits: Callable[[Batch], Mapping[Site, Callable[[Tensor], Tensor]]] | None = None
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def hf(self) -> PreTrainedModel:
        """The Hugging Face module."""
        return self.nn._module

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which pads on the left."""
        return self.nn.tokenizer

    @property
    def config(self) -> Any:
        """Configuration of the text model, also where the model takes pictures too."""
        return self.hf.config.get_text_config()

    @property
    def d_vocab(self) -> int:
        """Number of tokens that the model knows; its tokenizer may have more or fewer."""
        return self.config.vocab_size

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        """Number of attention heads in a block."""
        return self.config.num_attention_heads

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.config.hidden_size

    @property
    def d_head(self) -> int:
        """Width of a head, which need not be `width / n_heads`."""
        return getattr(self.config, "head_dim", None) or self.width // self.n_heads

    @property
    def context(self) -> int:
        """Largest number of tokens in a prompt, the beginning-of-sequence token included."""
        return self.config.max_position_embeddings

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP of a block read the same stream, as in GPT-J and Pythia."""
        flag = self.architecture.parallel
        return flag is not None and getattr(self.config, flag)

    @property
    def remote(self) -> bool:
        """Whether only the layout is here and the weights are on another machine."""
        return next(self.hf.parameters()).is_meta

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return torch.device("cpu") if self.remote else self.hf.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.hf.dtype

    @property
    def bos_id(self) -> int | None:
        """Token that begins a sequence; without one the end token, as in TransformerLens."""
        bos: Any = self.tokenizer.bos_token_id
        end: Any = self.tokenizer.eos_token_id
        return end if bos is None else bos

    def __deepcopy__(self, memo: dict) -> Model:
        """Copy the weights, and wrap the copy anew: a trace belongs to the modules that it saw."""
        module = copy.deepcopy(self.hf, memo)
        nn = type(self.nn)(module, tokenizer=self.tokenizer, task=self.nn.task)
        return replace(self, nn=nn, key=uuid4().hex)

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
            If the model has not as many layers, or no such place between attention and MLP.
        """
        if site.layer >= self.n_layers:
            raise InputError(
                f"{site} does not exist: {self.name} has layers 0 to {self.n_layers - 1}."
            )
        if site.kind == "resid_mid" and self.parallel:
            raise InputError(
                f"{site} does not exist: attention and MLP of {self.name} read the stream at "
                f"the same place. Use {Site('resid_pre', site.layer)}."
            )

    def shape_at(self, site: Site) -> tuple[int, ...]:
        """Return the shape of the activation of one token at a site.

        Parameters
        ----------
        site : Site
            A place in the model.

        Returns
        -------
        tuple of int
            `(H, d_head)` at `attn_z`, `(H, D)` at `head_out`, `(V,)` at the logits, else `(D,)`.

        Raises
        ------
        InputError
            If the model lacks the site, or it holds no activation of a token (`attn_pattern`).
        """
        self.check_site(site)
        if site.kind == "attn_pattern":
            raise InputError(f"{site} is of pairs of tokens: it has no activation of one token.")
        shapes = {
            "attn_z": (self.n_heads, self.d_head),
            "head_out": (self.n_heads, self.width),
            "logits": (self.d_vocab,),
        }
        return shapes.get(site.kind, (self.width,))

    def tokenize(self, prompts: Sequence[Prompt], bos: bool | None = None) -> Batch:
        """Turn prompts into one batch, padded on the left.

        Parameters
        ----------
        prompts : Task, or sequence of str or of sequences of int
            At least one text, or one list of token ids, to which nothing is added, or one chat, a
            list of messages, see `chat_text`.
        bos : bool, optional
            Whether texts begin with the beginning-of-sequence token: once, or not at all, also
            where the text itself begins with it, as chat templates do. By default as the tokenizer
            does by itself; GPT-2's adds none, though TransformerLens, and so most published
            dictionaries, begin with it. An end token that a tokenizer appends is left out.

        Returns
        -------
        Batch
            Token ids and mask, shapes (B, T).

        Raises
        ------
        InputError
            If there is no prompt, one is empty or too long, has words that the model's vocabulary
            lacks or holds half a character; or the tokenizer has no token to begin with, or no
            chat template.
        """
        given = as_prompts(prompts, self)
        prompts = getattr(given, "texts", given)
        if bos and self.bos_id is None:
            raise InputError(f"The tokenizer of {self.name} has no token to begin a prompt with.")
        rows = [
            torch.tensor(self._of_text(prompt, bos))
            if isinstance(prompt, str)
            else self._of_ids(prompt)  # pyright: ignore[reportArgumentType]  # chats are texts now
            for prompt in prompts
        ]
        length = max(map(len, rows))
        if length > self.context:
            longest = prompts[[len(row) for row in rows].index(length)]
            raise InputError(
                f"A prompt has {length} tokens, {self.name} takes at most {self.context}: "
                f"{longest[:80]!r}. Shorten it."
            )
        padding: Any = self.tokenizer.pad_token_id or 0
        if padding >= self.d_vocab:  # a token that was added to pad with, which has no row
            padding = 0
        ids, mask = (
            pad_sequence(each, batch_first=True, padding_value=fill, padding_side="left")
            for each, fill in ((rows, padding), ([torch.ones_like(row) for row in rows], 0))
        )
        return Batch(ids.to(self.device), mask.to(self.device))

    def chat_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the text that the tokenizer's template makes of a chat.

        Parameters
        ----------
        messages : sequence of dict
            Each with `role` and `content`. After a message of the user the answer of the model
            begins; a last message of the assistant is left open, to be gone on with.

        Returns
        -------
        str

        Raises
        ------
        InputError
            If the tokenizer has no chat template, or the template refuses the messages.
        """
        import jinja2

        tokenizer: Any = self.tokenizer
        if not tokenizer.chat_template:
            raise InputError(
                f"The tokenizer of {self.name} has no chat template. Pass texts, or set "
                "model.tokenizer.chat_template."
            )
        answered = messages[-1]["role"] == "assistant"
        begun = {"continue_final_message": True} if answered else {"add_generation_prompt": True}
        try:
            return str(tokenizer.apply_chat_template([*messages], tokenize=False, **begun))
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"The chat template of {self.name} refuses these messages: {error}"
            ) from error

    def _of_text(self, prompt: str, bos: bool | None) -> list[int]:
        if not prompt.strip():
            raise InputError(f"A prompt must be a text with words in it, got {prompt!r:.80}.")
        refuse_surrogates(prompt, "A prompt")
        ids: list = self.tokenizer(prompt, verbose=False)["input_ids"]  # pyright: ignore
        self._refuse_unknown_words(prompt, ids)
        self._refuse_beyond_vocabulary(prompt, ids)
        end: Any = self.tokenizer.eos_token
        if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id and not prompt.endswith(end):
            ids = ids[:-1]  # some tokenizers end every text, where we ask what comes next
        begins = 0  # a text may begin with the token, to which the tokenizer adds another
        while ids[begins : begins + 1] == [self.bos_id]:
            begins += 1
        wanted = min(begins, 1) if bos is None else int(bos)
        return [self.bos_id] * wanted + ids[begins:] or ids[:1]  # pyright: ignore

    def _of_ids(self, prompt: Sequence[int] | Tensor) -> Tensor:
        size = self.d_vocab
        try:
            ids = torch.as_tensor(prompt)
        except (TypeError, ValueError, RuntimeError):
            ids = torch.tensor([])
        whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
        if not whole or ids.ndim != 1 or not len(ids) or ids.min() < 0 or ids.max() >= size:
            raise InputError(
                f"A prompt must be a text with words in it, or token ids from 0 to {size - 1}, got "
                f"{prompt!r:.80}."
            )
        return ids.long()

    def _refuse_beyond_vocabulary(self, prompt: str, ids: list[int]) -> None:
        if beyond := [token for token in ids if token >= self.d_vocab]:
            words = ", ".join(repr(self.tokenizer.decode([token])) for token in beyond)
            raise InputError(
                f"The tokenizer knows {words} in {prompt[:80]!r}, but {self.name} has only "
                f"{self.d_vocab} tokens. Leave it out."
            )

    def _refuse_unknown_words(self, prompt: str, ids: list[int]) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.eos_token_id or unknown not in ids:
            return  # GPT-2: unk is eos
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
        """Return the tokens of each prompt as readable text, padding left out.

        Parameters
        ----------
        batch : Batch
            Tokenized prompts.

        Returns
        -------
        list of list of str
            As `word` names each.
        """
        return [
            [self.word(token) for token in ids[mask.bool()].tolist()]
            for ids, mask in zip(batch.ids, batch.mask, strict=True)
        ]

    def word(self, token: int) -> str:
        """Return a token as readable text, by which it differs from other tokens.

        Parameters
        ----------
        token : int
            Of the vocabulary.

        Returns
        -------
        str
            As it stands in a text, with the space that it begins with, which Llama's tokenizer
            leaves out of a token alone. Bytes that are no character by themselves are written as
            `<0xE2>`.
        """
        return token_text(self.tokenizer, token)

    def token_id(self, word: str) -> int:
        """Return the id of a word that is one token.

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
        refuse_surrogates(word, "An answer")
        ids = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or (ids[0] == self.tokenizer.unk_token_id != self.tokenizer.eos_token_id):
            cause = f"is {len(ids)} tokens for" if len(ids) != 1 else "is unknown to"
            raise InputError(f"{word!r} {cause} {self.name}. An answer must be one known token.")
        return ids[0]


def token_mask(model: Model, batch: Batch) -> Tensor:
    """Return which tokens count: neither padding nor special ones, such as those between texts.

    Packed texts hold the beginning or the end token between them, on which features fire that say
    nothing of a text. The last token of a prompt counts in any case, since the answer follows it,
    unless it is the beginning-of-sequence token.

    Parameters
    ----------
    model : Model
        Whose tokenizer made the batch.
    batch : Batch
        Tokenized prompts.

    Returns
    -------
    Tensor of bool, shape (B, T)
    """
    mask = batch.mask.bool()
    tokenizer: Any = model.tokenizer
    special = {*tokenizer.all_special_ids, model.bos_id} - {None}
    if tokenizer.unk_token_id not in (model.bos_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        special -= {tokenizer.unk_token_id}
    if not special:
        return mask
    counts = ~torch.isin(batch.ids, torch.tensor(sorted(special), device=batch.ids.device))
    counts[:, -1] |= (mask.sum(1) > 1) | (batch.ids[:, -1] != model.bos_id)
    return mask & counts
