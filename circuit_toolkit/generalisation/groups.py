"""Texts with two labels: those on which the labels go together, and all four groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circuit_toolkit.arguments import expect_known
from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks import Task


def groups_of(
    task: Task,
    groups: Sequence[Mapping[str, str]],
    n: int | None = None,
    *,
    unlike: Task | None = None,
    seed: int = 0,
) -> Task:
    """Take n texts of each of some groups, by default as many as the smallest has, in random order.

    A group is a dict of labels that its texts have, such as `{"profession": "nurse", "gender":
    "male"}`; texts of `unlike` are left out. InputError where a label is missing, or a group has
    too few texts.
    """
    for name in {name for group in groups for name in group}:
        _label(task, name)
    taken = set(unlike.clean) if unlike else set()
    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation(
            [
                row
                for row, text in enumerate(task.clean)
                if text not in taken
                and all(task.labels[name][row] == value for name, value in group.items())
            ]
        ).astype(int)
        for group in groups
    ]
    least = min(map(len, rows), default=0)
    n = least if n is None else n
    if not 1 <= n <= least:
        raise InputError(
            f"{n} texts of each group are wanted, the smallest of {len(rows)} has {least}. Take "
            "fewer, or make a larger task."
        )
    return task.select(rng.permutation(np.concatenate([each[:n] for each in rows])))


@dataclass(frozen=True)
class TiedLabels:
    """Two labels and their classes: those of the same place go together in training."""

    names: tuple[str, str]  # of the target and of the spurious label
    classes: tuple[str, str]  # of the target
    partners: tuple[str, str]  # the spurious class that goes with each

    @classmethod
    def of(cls, task: Task, target: str, spurious: str) -> TiedLabels:
        """Read off which classes of two labels go together in ambiguous texts; refuse others."""
        pairs = sorted(set(zip(_label(task, target), _label(task, spurious), strict=True)))
        classes, partners = zip(*pairs, strict=True)
        if len(pairs) != 2 or len(set(classes)) != 2 or len(set(partners)) != 2:
            found = ", ".join("/".join(pair) for pair in pairs[:5])
            raise InputError(
                f"In the ambiguous texts {target!r} and {spurious!r} must each have two classes "
                f"that go together, as groups_of gives them; found {found}."
            )
        return cls((target, spurious), classes, partners)

    def target(self, task: Task) -> np.ndarray:
        """Whether each text is of the second class of the target."""
        return _is_second(task, self.names[0], self.classes)

    def spurious(self, task: Task) -> np.ndarray:
        """Whether each text has the spurious class that goes with the second of the target."""
        return _is_second(task, self.names[1], self.partners)

    def check_all_four(self, task: Task) -> None:
        """Refuse texts that are not of all four groups."""
        found = set(zip(self.target(task).tolist(), self.spurious(task).tolist(), strict=True))
        if len(found) < 4:
            raise InputError(
                "Texts to train the oracle and to test on must be of all four groups of "
                f"{self.names[0]} ({', '.join(self.classes)}) and {self.names[1]} "
                f"({', '.join(self.partners)}), found {len(found)}."
            )


def _label(task: Task, name: str) -> Sequence[str]:
    expect_known(name, task.labels, f"The texts of {task.name!r} have no label {name!r}")
    return task.labels[name]


def _is_second(task: Task, name: str, classes: tuple[str, str]) -> np.ndarray:
    """Whether each text is of the second class, refusing others."""
    values = _label(task, name)
    if other := sorted(set(values) - set(classes)):
        raise InputError(f"{name!r} must be one of {classes}, as in training; got {other[0]!r}.")
    return np.array(values) == classes[1]
