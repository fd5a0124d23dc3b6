"""A task as an instruct model meets it: a chat that breaks off within the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from circuit_toolkit.arguments import expect
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.answers import of_words
from circuit_toolkit.tasks.tokens import encode, unequal_lengths

_PROMPT = "{prompt}"
Spans = list[tuple[int, int]]


def as_chat(
    self: Any,
    model: Model,
    *,
    user: str = "Complete the text.",
    answer: str = _PROMPT,
    system: str | None = None,
) -> Any:
    """Put the prompts into the chat template of an instruct model.

    The chat ends in the middle of the assistant's message, so that the next token is the answer. By
    default this message is the prompt itself, and what stands before it is the same in all chats.

    Parameters
    ----------
    model : Model
        Whose tokenizer has a chat template.
    user, answer : str
        What the user says, and how the answer begins; `{prompt}`, in one of them at least, stands
        for the prompt. `answer=""` asks for the first token of the answer.
    system : str, optional
        What the system says; by default what the template says by itself.

    Returns
    -------
    Task
        Named with `-chat` behind. Positions are those of the last `{prompt}`; answers that do not
        follow it directly are the same words as tokens of their new place.

    Raises
    ------
    InputError
        If the tokenizer has no chat template, no `{prompt}` is asked for, or the template or the
        tokenizer changes a prompt so that its tokens are not found again.
    """
    expect(model, "model", "Model")
    if _PROMPT not in user + answer:
        raise InputError(f"user or answer must hold {_PROMPT!r}, got {user!r} and {answer!r}.")
    clean, corrupted = (
        [_chat(model, text, user, answer, system) for text in texts]
        for texts in (self.clean, self.corrupted)
    )
    if corrupted and (uneven := unequal_lengths(model, clean, corrupted)):
        raise InputError(
            f"Chat {uneven[0]} of {self.name!r} and its corrupted chat are of different length in "
            "tokens. Use prompts of equal length."
        )
    right, wrong = self.answers, self.wrong
    if self.metric is not None and not answer.endswith(_PROMPT):
        right, wrong = _answers_there(self, model, clean)
    return replace(
        self,
        name=f"{self.name}-chat",
        clean=tuple(clean),
        corrupted=tuple(corrupted),
        answers=tuple(right),
        wrong=tuple(wrong),
        positions={
            name: tuple(
                _moved(model, text, chat, place)
                for text, chat, place in zip(self.clean, clean, places, strict=True)
            )
            for name, places in self.positions.items()
        },
    )


def _chat(model: Model, text: str, user: str, answer: str, system: str | None) -> str:
    """Write a chat out, so that its tokens begin with one beginning-of-sequence token or none."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": user.replace(_PROMPT, text)})
    if answer:
        messages.append({"role": "assistant", "content": answer.replace(_PROMPT, text)})
    chat = model.chat_text(messages)
    end = answer.replace(_PROMPT, text)
    if text not in chat or not chat.endswith(end):
        raise InputError(
            f"The chat template of {model.name} changes {text[:60]!r}: it makes {chat[-80:]!r}."
        )
    tokenizer: Any = model.tokenizer
    begin = tokenizer.bos_token
    adds = begin and tokenizer(text, verbose=False)["input_ids"][:1] == [tokenizer.bos_token_id]
    return chat.removeprefix(begin) if adds else chat


def _answers_there(task: Any, model: Model, chats: list[str]) -> tuple[tuple, tuple]:
    """Tokens of the right and the wrong words where chats break off."""

    def words(text: str, tokens: Sequence[int]) -> list[str]:
        return [_said(model, text, token) for token in tokens]

    given = zip(task.clean, task.answers, task.wrong, strict=True)
    sides = [(words(text, right), words(text, wrong)) for text, right, wrong in given]
    found = of_words(model, chats, sides)
    if reasons := [each for each in found if isinstance(each, str)]:
        raise InputError(
            f"An answer of {task.name!r} cannot follow there: {reasons[0]}. Begin the answer, as "
            "in answer='It is', or with the prompt."
        )
    right, wrong = zip(*found, strict=True)
    return right, wrong


def _said(model: Model, prompt: str, token: int) -> str:
    """Word that a token is after a prompt, without its space."""
    (ids,) = encode(model, [prompt])
    before, after = (str(model.tokenizer.decode(each)) for each in (ids, [*ids, token]))
    return after[len(before) :].strip()


def _moved(model: Model, text: str, chat: str, place: int) -> int:
    """Place, from the end, of the token of a chat that is the token at a place of its prompt."""
    spans, others = _spans(model, [text, chat])
    end = chat.rindex(text) + spans[place][1]
    found = [i for i, (_, stop) in enumerate(others) if stop == end]
    if len(found) != 1:
        raise InputError(
            f"The tokenizer of {model.name} cuts {text[:60]!r} elsewhere when it is in a chat, so "
            "its positions are not known there."
        )
    return found[0] - len(others)


def _spans(model: Model, texts: Sequence[str]) -> list[Spans]:
    """Begin and end of the tokens of texts, in letters."""
    tokenizer: Any = model.tokenizer
    return tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
