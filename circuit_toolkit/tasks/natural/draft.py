"""From a template with slots to a task: pairs of equal length, and places that are tokens."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.tasks.task import Metric, Task
from circuit_toolkit.tasks.tokens import encode


@dataclass(frozen=True)
class Draft:
    """One prompt and its corrupted prompt before a tokenizer has seen them."""

    template: str  # text with {slots}, up to the word that is asked for
    words: Mapping[str, str]  # slot -> word
    corrupted: Mapping[str, str]  # slots whose word is another in the corrupted prompt
    answers: tuple[int, ...]
    wrong: tuple[int, ...]
    says: str  # text of the first answer, with its space; empty if it need not follow as one token
    places: Mapping[str, str]  # position -> slot
    labels: Mapping[str, str] = field(default_factory=dict)
    direction: int = 0


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, int]]:
    """Write a template out, and say where the word in each slot ends."""
    text, ends = "", {}
    for literal, slot, _, _ in string.Formatter().parse(template):
        text += literal
        if slot is not None:
            text += words[slot]
            ends[slot] = len(text)
    return text, ends


def to_task(
    name: str,
    model: Model,
    drafts: Iterator[Draft],
    n: int,
    metric: Metric,
    *,
    test: bool,
    seed: int,
) -> Task:
    """Make a task of the first n drafts that the tokenizer splits alike, clean and corrupted."""
    kept: list[tuple[Draft, str, str, dict[str, int]]] = []
    for tried, draft in enumerate(drafts):
        if len(kept) == n:
            break
        if tried == 50 + 20 * n:
            raise InputError(
                f"Only {len(kept)} of {tried} prompts of {name!r} have a corrupted prompt of "
                f"equal length and an answer of one token with the tokenizer of {model.name}. "
                "Make prompts of your own: Task.from_pairs."
            )
        if placed := _placed(model, draft):
            kept.append((draft, *placed))
    first = kept[0][0]
    # Each prompt has its own places; a position that only some of them have has no name.
    shared = [place for place in first.places if all(place in each[0].places for each in kept)]
    return Task(
        name=name,
        clean=tuple(clean for _, clean, _, _ in kept),
        corrupted=tuple(text for _, _, text, _ in kept),
        answers=tuple(draft.answers for draft, *_ in kept),
        wrong=tuple(draft.wrong for draft, *_ in kept),
        metric=metric,
        labels={key: tuple(each[0].labels[key] for each in kept) for key in sorted(first.labels)},
        positions={place: tuple(at[place] for *_, at in kept) for place in shared},
        directions=tuple(draft.direction for draft, *_ in kept) if first.direction else (),
        split="held-out" if test else "training",
        seed=seed,
    )


def _placed(model: Model, draft: Draft) -> tuple[str, str, dict[str, int]] | None:
    """Clean and corrupted text, and places counted from the end; None if they do not fit."""
    slots = list(draft.places.values())
    texts, begun = [], []  # clean and corrupted; each up to the end of each slot
    for words in (draft.words, {**draft.words, **draft.corrupted}):
        text, ends = fill(draft.template, words)
        texts.append(text)
        begun += [text[: ends[slot]] for slot in slots]
    clean, corrupted = texts
    ids, others, said, *starts = encode(model, [*texts, clean + draft.says, *begun])
    places = [len(start) for start in starts[: len(slots)]]
    fits = (
        len(ids) == len(others)
        and model.tokenizer.unk_token_id not in ids
        and (not draft.says or said == [*ids, draft.answers[0]])
        and places == [len(start) for start in starts[len(slots) :]]
        # A word ends where a token ends: what follows has not been merged with it.
        and all(start == ids[: len(start)] for start in starts[: len(slots)])
        and all(start == others[: len(start)] for start in starts[len(slots) :])
    )
    if not fits:
        return None
    return (
        clean,
        corrupted,
        dict(zip(draft.places, (n - 1 - len(ids) for n in places), strict=True)),
    )
