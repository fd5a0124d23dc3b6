"""How to read the names of the features of a circuit, with examples from it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from circuit_toolkit.arguments import expect
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.features.labels import ARROW, WITHIN

_ENDS = re.compile(r"(?: @\S+| L\d+| #\d+)+$")  # what `told_apart` adds
_SIGN = re.compile(r"“[^”]+”")
_WORD = re.compile(r"“[^”]+”|[^ ,][^,]*")


class _Name(NamedTuple):
    """A name in parts; those that it has not are empty."""

    whole: str
    context: str
    words: str
    promoted: str
    ends: tuple[str, ...]
    brackets: bool

    @classmethod
    def of(cls, whole: str) -> _Name:
        ends = _ENDS.search(whole)
        start, _, promoted = f" {whole[: ends.start() if ends else None]}".partition(ARROW)
        start = start.lstrip()
        brackets = start.startswith("(") and start.endswith(")")
        start = start[1:-1] if brackets else start
        context, between, words = start.rpartition(WITHIN)
        if not between:
            words = start
        return cls(
            whole, context, words, promoted, tuple(ends[0].split()) if ends else (), brackets
        )

    @property
    def listed(self) -> str:
        """The words on which it fires."""
        return self.words.removesuffix("…").removesuffix(", ")

    @property
    def meaning(self) -> str:
        """The whole name in words."""
        said = [f"fires on {_either(self.listed)}"] if self.listed else []
        if self.context:
            said[-1:] = [f"{said[-1]} in prompts with {_either(self.context)}"]
        if self.promoted:
            said.append(f"promotes {_either(self.promoted, 'and')}")
        return ", and ".join(said)


def how_to_read(circuit: Circuit) -> list[tuple[str, str]]:
    """Explain the names of a circuit's features by examples from it.

    Parameters
    ----------
    circuit : Circuit
        Whose features have names from `feature_labels`, `named_features` or `described_labels`.

    Returns
    -------
    list of (str, str)
        A name, or a part of one, and what it means: first the fullest name as a whole, then a line
        for each kind of part that occurs, the example being of the feature with the highest score.
        Empty where no feature has a name.

    Examples
    --------
    >>> from circuit_toolkit.circuit.tables import TARGET, new_edges, new_nodes
    >>> site, label = "blocks.3.hook_resid_post", "Emma, Kate … to ⇒ Emma"
    >>> nodes = new_nodes(2, ["feature", TARGET], site=[site, TARGET], label=[label, ""])
    >>> how_to_read(Circuit(nodes, new_edges(0)))[0][1]
    'fires on “to” in prompts with “Emma” or “Kate”, and promotes “Emma”'
    """
    expect(circuit, "circuit", "Circuit")
    nodes = circuit.nodes[circuit.nodes["kind"] == "feature"]
    order = np.argsort(-nodes["score"], kind="stable")
    names = [_Name.of(label) for label in nodes["label"][order].tolist() if label]
    if not names:
        return []
    fullest = max(names, key=lambda each: bool(each.context) + bool(each.promoted))
    found = [(fullest.whole, fullest.meaning)]
    for shown, meaning in _PARTS:
        example = next((text for each in names if (text := shown(each))), "")
        if example:
            found.append((example, meaning))
    return found


def _either(words: str, joint: str = "or") -> str:
    """Write words of a name as a list in quotes; signs have theirs."""
    quoted = [each if each.startswith("“") else f"“{each}”" for each in _WORD.findall(words)]
    return f" {joint} ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def _end(mark: str) -> Callable[[_Name], str]:
    return lambda name: next((end for end in name.ends if end.startswith(mark)), "")


def _sign(name: _Name) -> str:
    found = _SIGN.search(name.whole)
    return found[0] if found else ""


_PARTS: tuple[tuple[Callable[[_Name], str], str], ...] = (
    (
        lambda name: f"{name.context}{WITHIN}" if name.context else "",
        "in front of “…”: words of the prompts in which it fires, wherever they stand",
    ),
    (
        lambda name: name.listed,
        "words on which it fires, the one with most of its activation first",
    ),
    (
        lambda name: name.words if name.words.endswith(", …") else "",
        "“…” at the end: its words carry less than half of its activation",
    ),
    (
        lambda name: f"{ARROW.lstrip()}{name.promoted}" if name.promoted else "",
        "next words that it promotes by its direct path to the logits",
    ),
    (_sign, "a sign, not a word; ↵ is a line break, ⇥ a tab, ␣ a space"),
    (
        lambda name: f"({name.words})" if name.brackets else "",
        "in brackets: named by its activations, as its weights name nothing",
    ),
    (_end("@"), "added to tell apart: the position at which it stands"),
    (_end("L"), "added to tell apart: the layer"),
    (_end("#"), "added to tell apart: the number of the feature, as nothing else differs"),
)
