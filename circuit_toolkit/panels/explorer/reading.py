"""What the model makes of a prompt: its tokens, what it would say next, and the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import LOGITS, Model, run
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.tokens import next_tokens

MOST = 5  # next tokens that are told


@dataclass(frozen=True, eq=False)
class Reading:
    """One prompt as the model reads it."""

    task: Task  # of this one prompt
    tokens: list[str]
    logits: Tensor  # (V,) after the last token
    top: list[dict[str, Any]]
    answers: tuple[str, str]
    value: float  # of the target on this prompt

    @property
    def text(self) -> str:
        """The prompt."""
        return self.task.clean[0]

    @property
    def target(self) -> str:
        """The target in words and its value."""
        right, wrong = self.answers
        return f"logit({right}) − logit({wrong}) = {self.value:+.1f}".replace("-", "−")

    def places(self) -> dict[str, int]:
        """Return where the named positions are, counted from the end."""
        return {"last": -1} | {name: at[0] for name, at in self.task.positions.items()}


def unknown_words(model: Model, text: str) -> list[str]:
    """Return the words of a text for which the tokenizer has no token."""
    return [text[start:end] for start, end in _unknown_spans(model, text)]


def _unknown_spans(model: Model, text: str) -> list[tuple[int, int]]:
    tokenizer: Any = model.tokenizer
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id or not tokenizer.is_fast:
        return []
    refuse_surrogates(text, "The prompt")
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [(start, end) for token, (start, end) in pairs if token == unknown and end > start]


def understood(model: Model, text: str) -> tuple[str, dict[str, str]]:
    """Return a text whose unknown words are spelled as the model knows them, where it does."""
    spelled, parts, done = {}, [], 0
    for start, end in _unknown_spans(model, text):
        word = text[start:end]
        ways = (word.lower(), word.capitalize(), word.title(), word.upper())
        known = next((way for way in ways if not unknown_words(model, way)), word)
        if known != word:
            spelled[word] = known
        parts += [text[done:start], known]
        done = end
    return "".join([*parts, text[done:]]), spelled


def read_prompt(
    model: Model,
    prompt: str | Task,
    answers: Sequence[str] | None = None,
) -> Reading:
    """Run the model on a prompt; answers are its task's, those given, or the two likeliest."""
    text = prompt if isinstance(prompt, str) else prompt.clean[0]
    batch = model.tokenize([text])
    logits = run(model, batch, [LOGITS], last_logits=True)[LOGITS][0, -1].float().cpu()
    if answers is not None:
        right, wrong = (_token(model, text, word) for word in answers)
        if right == wrong:
            raise InputError(f"The two answers are one token, {answers[0]!r}: type two.")
    elif isinstance(prompt, Task) and prompt.answers:
        right, wrong = prompt.answers[0][0], prompt.wrong[0][0]
    else:
        right, wrong = logits.topk(2).indices.tolist()
    own = isinstance(prompt, Task) and bool(prompt.answers) and answers is None
    task = prompt if own else _task_of(prompt, text, right, wrong)
    assert isinstance(task, Task)
    best, chance = logits.topk(MOST), logits.softmax(-1)
    top = [
        {"word": _said(model, token), "logit": round(logit, 2), "p": round(float(chance[token]), 4)}
        for logit, token in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    names = _said(model, right).strip(), _said(model, wrong).strip()
    value = float(task.score(logits[None], [0])[0])
    return Reading(task, model.words(batch)[0], logits, top, names, value)


def _task_of(prompt: str | Task, text: str, right: int, wrong: int) -> Task:
    """Return a task of one prompt, at the positions that it had."""
    positions = prompt.positions if isinstance(prompt, Task) else {}
    return Task("own", (text,), (), ((right,),), ((wrong,),), positions=positions)


def _token(model: Model, text: str, word: str) -> int:
    """Return the token of an answer, by itself, as another case, or as it follows the prompt."""
    plain = word.strip()
    for way in filter(None, dict.fromkeys([plain, understood(model, plain)[0]])):
        after = next_tokens(model, text, [f" {way}", way])
        if after:
            return after.get(f" {way}", next(iter(after.values())))
        try:
            return model.token_id(way)
        except InputError:
            continue
    raise InputError(f"{word!r} is not one token of {model.name}: type a word that is.")


def _said(model: Model, token: int) -> str:
    return model.word(token)
