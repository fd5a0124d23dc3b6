"""Which heads a task needs, by causation: what faster ways to find heads are measured by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import head_nodes
from circuit_toolkit.circuit.tables import EDGE
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import read_document, write_document

KINDS = ("resample", "direct", "mean")
FORM, VERSION = "circuit_toolkit.head_effects", 2
SHARE = 0.02  # of the metric, that a head of the reference circuit makes


@dataclass(frozen=True, eq=False)
class HeadEffects:
    """What replacing every head does to the metric of a task.

    Parameters
    ----------
    mean : dict of str to ndarray, each (L, H)
        Mean change of the metric, in its unit: `resample` (by the output on the corrupted prompt),
        `direct` (the same, for what reads the logits alone), `mean` (by the mean output).
    low, high : dict of str to ndarray, each (L, H)
        Ends of the 95 % bootstrap interval of that over prompts.
    gap : float
        Mean metric on the prompts minus that on their corrupted prompts: what there is to lose.
    settings : dict
        Model, task, prompts, seconds of the clock and of the processor for each kind.
    """

    mean: dict[str, np.ndarray]
    low: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    gap: float
    settings: dict[str, Any]

    def share(self, kind: str = "resample") -> np.ndarray:
        """Return effects as shares of the gap; above 0 where the head helps.

        Parameters
        ----------
        kind : {"resample", "direct", "mean"}
            Of which replacement.

        Returns
        -------
        ndarray, shape (L, H)
        """
        return -self.mean[self._known(kind)] / self.gap

    def reference(self, share: float = SHARE, kind: str = "resample") -> np.ndarray:
        """Return which heads are in the reference circuit.

        Parameters
        ----------
        share : float
            The least change of the metric, for better or worse, as a share of the gap.
        kind : {"resample", "direct", "mean"}
            Of which replacement.

        Returns
        -------
        ndarray of bool, shape (L, H)
            Heads that make so much, and whose interval leaves out 0.
        """
        sure = (self.low[self._known(kind)] > 0) | (self.high[kind] < 0)
        return sure & (abs(self.share(kind)) >= share)

    def circuit(self, share: float = SHARE, kind: str = "resample") -> Circuit:
        """Return the heads of the reference circuit as a circuit, which `evaluate` tests.

        Parameters
        ----------
        share, kind
            As for `reference`.

        Returns
        -------
        Circuit
            Over heads, without edges; the score of a head is the size of its share.
        """
        heads = [
            (int(layer), int(head)) for layer, head in np.argwhere(self.reference(share, kind))
        ]
        scores = [float(abs(self.share(kind)[head])) for head in heads]
        nodes = head_nodes(heads, scores, str(self.settings.get("metric") or "target"))
        settings = {**self.settings, "level": "heads", "kind": kind, "share": share}
        return Circuit(nodes, np.zeros(0, dtype=EDGE), settings)

    def save(self, path: str | os.PathLike) -> Path:
        """Write to a JSON file, whole or not at all, with four digits.

        Parameters
        ----------
        path : path
            The file; `~` is the home folder.

        Returns
        -------
        Path
        """
        document: dict[str, Any] = {"gap": self.gap, "settings": self.settings}
        for name in ("mean", "low", "high"):
            tables = getattr(self, name).items()
            document[name] = {
                kind: [[float(f"{x:.4g}") for x in row] for row in table.tolist()]
                for kind, table in tables
            }
        return write_document(path, FORM, VERSION, document, flat=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> HeadEffects:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        HeadEffects

        Raises
        ------
        InputError
            If there is no such file.
        FileFormatError
            If the file does not hold head effects.
        """
        try:
            document = read_document(
                path, FORM, VERSION, "Pass what `save` wrote.", flat=True, older={1: dict}
            )
            tables = [
                {kind: np.array(document[name][kind], dtype=float) for kind in KINDS}
                for name in ("mean", "low", "high")
            ]
            gap, settings = float(document["gap"]), document["settings"]
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} holds no head effects ({error}).") from error
        shapes = {values.shape for table in tables for values in table.values()}
        numbers = np.concatenate([values.ravel() for table in tables for values in table.values()])
        if len(shapes) > 1 or len(shapes.pop()) != 2 or not np.isfinite([gap, *numbers]).all():
            raise FileFormatError(
                f"{path} holds no head effects (all tables must be of the same heads, and finite)."
            )
        if gap <= 0 or not isinstance(settings, dict):
            raise FileFormatError(
                f"{path} holds no head effects (gap {gap} must be above 0, settings an object)."
            )
        return cls(*tables, gap=gap, settings=settings)

    def _known(self, kind: str) -> str:
        if kind not in self.mean:
            raise InputError(f"kind must be one of {', '.join(self.mean)}, got {kind!r}.")
        return kind
