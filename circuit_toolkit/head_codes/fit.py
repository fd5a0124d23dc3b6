"""What head codes found: scores of heads and pairs, from which circuits are read off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.arguments import number, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import chosen_heads, head_nodes
from circuit_toolkit.circuit.tables import new_edges
from circuit_toolkit.display import draw
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes.autoencoder import CodeAutoencoders
from circuit_toolkit.head_codes.counts import heads_in_pairs, unique_pairs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class HeadCodesFit:
    """Scores of all heads and pairs of heads; made by `HeadCodes.fit`.

    Parameters
    ----------
    layers : tuple of int
        Layers whose heads were scored: L of them with H heads each.
    per_seed : ndarray, shape (S, L, H)
        Score of every head with every seed.
    codes : ndarray of int, shape (S, 2b, L, H)
        Code of every head on every prompt, of several positions at the first: b positives, then
        their b negatives. The number `n_features` where no code is active.
    moved : ndarray, shape (S, b, L, H)
        How far the codes move what a head writes from a prompt to its corrupted prompt.
    counted : ndarray of bool, shape (S, b)
        Pairs that the scores are from; the others were trained on.
    coders : CodeAutoencoders
        The autoencoders.
    settings : dict
        What made this.
    """

    layers: tuple[int, ...]
    per_seed: np.ndarray
    codes: np.ndarray
    moved: np.ndarray
    counted: np.ndarray
    coders: CodeAutoencoders
    settings: dict[str, Any]

    @property
    def scores(self) -> np.ndarray:
        """Score of every head, the mean over seeds, shape (L, H)."""
        return self.per_seed.mean(0)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of the scores over seeds, shape (L, H)."""
        return self.per_seed.std(0)

    @cached_property
    def pairs_per_seed(self) -> np.ndarray:
        """How much two heads do together, (S, L*H, L*H).

        With `score="change"` the root of the mean product of how far the two move on a pair; else
        how many pairs of codes only positives have in the two, as published.
        """
        b = self.counted.shape[1]
        found = []
        for codes, moved, mask in zip(self.codes, self.moved, self.counted, strict=True):
            if self.settings["score"] == "change":
                chosen = moved[mask].reshape(mask.sum(), -1)
                found.append(np.sqrt(chosen.T @ chosen / len(chosen)))
            else:
                flat = codes.reshape(len(codes), -1)
                found.append(unique_pairs(flat[:b][mask], flat[b:][mask]))
        return np.stack(found)

    @property
    def heads_in_pairs(self) -> np.ndarray:
        """How often a head is among the strongest pairs, (S, L, H): what the paper calls edges."""
        found = [heads_in_pairs(each) for each in self.pairs_per_seed]
        return np.stack(found).reshape(self.per_seed.shape)

    @property
    def pairs(self) -> np.ndarray:
        """Score of pairs from an earlier layer (row) to a later one, shape (L * H, L * H)."""
        layer = np.repeat(self.layers, self.per_seed.shape[2])
        return np.where(layer[:, None] < layer[None, :], self.pairs_per_seed.mean(0), 0.0)

    def figure(self, truth: np.ndarray | None = None) -> Any:
        """Draw the scores as a heat map.

        Parameters
        ----------
        truth : ndarray of bool, shape (L, H), optional
            Heads to mark.

        Returns
        -------
        plotly.graph_objects.Figure
        """
        return draw(self, "figure", truth)

    def __repr__(self) -> str:
        """Sizes and the strongest heads; not the tables."""
        order = np.argsort(-self.scores.ravel(), kind="stable")[:5]
        best = ", ".join("{}.{}".format(*self._place(i)) for i in order)
        return f"HeadCodesFit({self.scores.size} heads, {len(self.per_seed)} seeds; first {best})"

    def table(self) -> pd.DataFrame:
        """Heads for reading, the highest score first.

        Returns
        -------
        DataFrame
            Layer, head, score and spread.
        """
        import pandas as pd

        layers, heads = np.indices(self.scores.shape)
        columns = {
            "layer": np.asarray(self.layers)[layers.ravel()],
            "head": heads.ravel(),
            "score": self.scores.ravel(),
            "spread": self.spread.ravel(),
        }
        return pd.DataFrame(columns).sort_values("score", ascending=False, ignore_index=True)

    def code_table(self, layer: int, head: int, seed: int = 0) -> pd.DataFrame:
        """Return which codes a head uses, and on how many prompts.

        Parameters
        ----------
        layer, head : int
            Which head.
        seed : int
            Which autoencoder, from 0.

        Returns
        -------
        DataFrame
            Code (`none` where none is active), positives and negatives that use it, of those that
            are counted; those that differ most come first.

        Raises
        ------
        InputError
            If there is no such head or seed.
        """
        import pandas as pd

        layer, head, seed = whole(layer, "layer"), whole(head, "head"), whole(seed, "seed")
        heads = self.scores.shape[1]
        if layer not in self.layers or not 0 <= head < heads:
            raise InputError(
                f"There is no head {layer}.{head}: layers are {self.layers[0]} to "
                f"{self.layers[-1]}, heads 0 to {heads - 1}."
            )
        if not 0 <= seed < len(self.codes):
            raise InputError(f"There are seeds 0 to {len(self.codes) - 1}, not {seed}.")
        codes, mask = self.codes[seed, :, self.layers.index(layer), head], self.counted[seed]
        b, size = len(mask), self.settings["n_features"] + 1
        positives = np.bincount(codes[:b][mask], minlength=size)
        negatives = np.bincount(codes[b:][mask], minlength=size)
        used = np.flatnonzero(positives + negatives)
        used = used[np.argsort(-abs(positives - negatives)[used], kind="stable")]
        names = ["none" if code == size - 1 else str(code) for code in used]
        return pd.DataFrame(
            {"code": names, "positives": positives[used], "negatives": negatives[used]}
        )

    def predict(
        self, threshold: float | None = None, *, n_heads: int | None = None, pairs: float = 0.5
    ) -> Circuit:
        """Read off a circuit over heads.

        Parameters
        ----------
        threshold : float, optional
            Keep heads that reach this share of the highest score, in [0, 1].
        n_heads : int, optional
            Or keep so many of the highest.
        pairs : float
            Keep edges between them that reach this share of the highest score of a pair of heads
            of different layers.

        Returns
        -------
        Circuit
            Heads stand at `head_out` (feature = head). Its edges say what changes along with
            what; they are not tested.

        Raises
        ------
        InputError
            If not exactly one of `threshold` and `n_heads` is given, or one is out of range.
        """
        pairs, flat = number(pairs, "pairs", 0, 1), self.scores.ravel()
        kept = chosen_heads(flat, threshold, n_heads)
        target = str(self.settings.get("target") or "target")
        nodes = head_nodes([self._place(i) for i in kept.tolist()], flat[kept].tolist(), target)
        mine = self.pairs[np.ix_(kept, kept)]
        source, end = np.nonzero((mine > 0) & (mine >= pairs * self.pairs.max()))
        size = mine[source, end]
        edges = new_edges(len(source), source=source, target=end, weight=size, score=size)
        chosen = {"threshold": threshold, "n_heads": n_heads, "pairs": pairs}
        return Circuit(nodes, edges, {**self.settings, "level": "heads", **chosen})

    def _place(self, i: int) -> tuple[int, int]:
        """Layer and head of an entry of the scores."""
        row, head = divmod(int(i), self.scores.shape[1])
        return self.layers[row], head
