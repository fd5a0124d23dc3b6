"""Prompts answered by any callable from text to text: shown and counted first, answers kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from circuit_toolkit.arguments import whole
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import digest, read_document, write_document
from circuit_toolkit.files.folder import FolderKind, ResumableFolder
from circuit_toolkit.texts import printable

CHARACTERS_A_TOKEN = 4  # roughly, of English
_PROMPT = """\
A feature inside a language model responds to some input tokens and changes the odds of some next \
tokens. In one or two sentences, say the concept that they have in common. Say only the concept.
Input tokens that switch it on: {important}
Next tokens that it makes likelier: {promoted}
Next tokens that it makes less likely: {suppressed}
"""
_AGAIN = "Delete it, and the explainer is asked again."
_KIND = FolderKind(
    "answers of an explainer", "circuit_toolkit.answers", 1, _AGAIN, "explainer.json"
)


@dataclass(frozen=True, repr=False)
class Cost:
    """What explanations would take; its repr says it in words, with the first prompt.

    Parameters
    ----------
    calls : int
        Different prompts: features with the same tokens share one.
    characters : int
        Of all prompts together; answers are not counted.
    tokens : int
        Roughly: four characters each.
    first : str
        The first prompt; "" where there is none.
    """

    calls: int
    characters: int
    tokens: int
    first: str

    @classmethod
    def of(cls, prompts: Iterable[str]) -> Cost:
        """Count prompts.

        Parameters
        ----------
        prompts : iterable of str
            What would be asked.

        Returns
        -------
        Cost
        """
        asked = list(dict.fromkeys(prompts))
        characters = sum(map(len, asked))
        tokens = round(characters / CHARACTERS_A_TOKEN)
        return cls(len(asked), characters, tokens, asked[0] if asked else "")

    @property
    def short(self) -> str:
        """The numbers in one line."""
        return (
            f"{self.calls:,} calls with {self.characters:,} characters (roughly {self.tokens:,} "
            "tokens)"
        )

    def __repr__(self) -> str:
        """Describe the numbers, and the first prompt as it would be sent."""
        shown = "\n".join(map(printable, self.first.split("\n")))
        first = f"\nThe first prompt:\n{shown}" if self.calls else ""
        return f"{self.short}; answers are not counted.{first}"


def _displayed(cost: Cost) -> None:
    """Show a cost as IPython shows things: below the cell, or on standard output in a script."""
    from IPython.display import display

    display(cost)


@dataclass(frozen=True, eq=False, repr=False)
class Explainer:
    """What turns a prompt into a sentence, how often it may be called, and what it has said.

    Before the first call of a run the number of calls, their size and the first prompt are shown.
    Every answer is kept in `answers` as it comes: if a call fails, or the run is interrupted, pass
    the same Explainer again, and it goes on where it stopped. `dataclasses.replace(explainer,
    max_calls=...)` or `call=...` keeps the answers too. A new Explainer begins anew, unless `store`
    holds the answers.

    Parameters
    ----------
    call : callable
        From text to text: a local pipeline, or a client of an API.
    max_calls : int, optional
        Nothing is called if a run would take more calls than this; answers that are there take
        none. Without it nothing is called at all: what it would take is shown, and the run is
        refused.
    show : callable
        Gets the `Cost` before anything is called; by default it is displayed below the cell.
    answers : dict of str to str
        Prompt -> what was said.
    store : path, optional
        Folder in which every answer is kept as it comes, for other sessions; `~` is the home
        folder. It is of one explainer: a `call` of another name is refused.
    """

    call: Callable[[str], str]
    max_calls: int | None = None
    show: Callable[[Cost], Any] = field(default_factory=lambda: _displayed)  # else a method
    answers: dict[str, str] = field(default_factory=dict)
    store: str | os.PathLike | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be called, and a limit that is none."""
        if not callable(self.call):
            raise InputError(f"An explainer must be a callable from text to text, got {self.call}.")
        if self.max_calls is not None:
            whole(self.max_calls, "max_calls", 0)

    def __repr__(self) -> str:
        """Limit and number of answers; not the answers."""
        return f"Explainer(max_calls={self.max_calls}, {len(self.answers)} answers)"

    def ask(self, prompts: Mapping[str, str]) -> dict[str, str]:
        """Show what it takes, then ask whatever has no answer yet.

        Parameters
        ----------
        prompts : dict of str to str
            Name of what is explained -> prompt.

        Returns
        -------
        dict of str to str
            Name -> answer, stripped.

        Raises
        ------
        InputError
            If there would be more calls than are allowed, and nothing was called then; if a call
            fails, or returns no text, and earlier answers are kept then; or another process uses
            the store.
        MismatchError
            If the store is of another explainer.
        FileFormatError
            If an answer in the store is damaged.
        """
        with self._folder() as folder:
            if folder is not None:
                for prompt in prompts.values():
                    if prompt not in self.answers and _place(folder, prompt).is_file():
                        self.answers[prompt] = _kept(folder, prompt)
            left = Cost.of(prompt for prompt in prompts.values() if prompt not in self.answers)
            if left.calls:
                self.show(left)
            if left.calls > (self.max_calls or 0):
                allowed = "none is" if self.max_calls is None else f"{self.max_calls} are"
                raise InputError(
                    f"Explanations would take {left.short}, {allowed} allowed; nothing was called. "
                    f"Pass Explainer(..., max_calls={left.calls}), or have less explained."
                )
            for name, prompt in prompts.items():
                if prompt not in self.answers:
                    self.answers[prompt] = self._answer(name, prompt)
                if folder is not None and not _place(folder, prompt).is_file():
                    content = {"prompt": prompt, "answer": self.answers[prompt]}
                    write_document(_place(folder, prompt), _KIND.form, _KIND.version, content)
            return {name: self.answers[prompt] for name, prompt in prompts.items()}

    @contextmanager
    def _folder(self) -> Iterator[Path | None]:
        """Hold the folder of the answers, if there is one."""
        if self.store is None:
            yield None
            return
        asked = {"explainer": getattr(self.call, "__qualname__", type(self.call).__name__)}
        with ResumableFolder.opened(self.store, _KIND, {"inputs": asked}) as folder:
            yield folder.path

    def _answer(self, name: str, prompt: str) -> str:
        kept = (
            f"An Explainer keeps the answers before it ({len(self.answers)}): pass the same one "
            "again to go on."
        )
        try:
            answer = self.call(prompt)
        except Exception as error:  # a client of others may raise anything; answers were paid for
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(f"The explainer failed on {name} ({said}). {kept}") from error
        if not isinstance(answer, str):
            raise InputError(
                f"The explainer must return a text, and gave {type(answer).__name__} for {name}. "
                f"{kept}"
            )
        return answer.strip()


def _place(folder: Path, prompt: str) -> Path:
    return folder / f"answer-{digest(prompt)[:32]}.json"


def _kept(folder: Path, prompt: str) -> str:
    path = _place(folder, prompt)
    content = read_document(path, _KIND.form, _KIND.version, _AGAIN)
    if content.get("prompt") != prompt or not isinstance(content.get("answer"), str):
        raise FileFormatError(f"{path} holds no answer to its prompt. {_AGAIN}")
    return content["answer"]


def as_explainer(given: Explainer | Callable[[str], str], max_calls: int | None) -> Explainer:
    """Take an Explainer as it is, and a bare callable as one that keeps its answers for one run."""
    return given if isinstance(given, Explainer) else Explainer(given, max_calls)


def prompt_for(description: Mapping[str, Any], n: int = 20) -> str:
    """Write what an explainer is asked about a feature.

    Parameters
    ----------
    description : mapping
        From `FeatureDescriptions.of`.
    n : int
        At most so many tokens in each list.

    Returns
    -------
    str
    """
    lists = {
        "important": description["description"],
        "promoted": description["outputs"]["promoted"],
        "suppressed": description["outputs"]["suppressed"],
    }
    texts = {
        name: ", ".join(repr(row["token"]) for row in rows[:n]) or "none stand out"
        for name, rows in lists.items()
    }
    return _PROMPT.format(**texts)


def check_before_a_run(explainer: Explainer) -> None:
    """Refuse, before features are described, an explainer that could not be called after it."""
    limit = getattr(explainer, "max_calls", None)
    if not isinstance(explainer, Explainer) or limit is None:
        raise InputError(
            "What explanations cost is known only when all is described, so describe(explain=) "
            "takes an Explainer with max_calls. Pass Explainer(call, max_calls=...), or describe "
            "first: found.explained(Explainer(call)) then shows the cost."
        )
