"""HeadCodes: an autoencoder on a few prompts, then codes counted on the others.

O'Neill and Bui, "Sparse Autoencoders Enable Scalable and Reliable Circuit Identification in
Language Models", 2024, arXiv 2405.12522. No intervention and no gradient of the model.
`HeadCodes.published()` does what their code does; the defaults differ where it matters, and each
difference is an option.

What carries the information is the pair of a prompt and its corrupted prompt, at the tokens where
the task happens: the same autoencoder untrained ranks heads about as well, and so does the plain
difference of a pair's outputs (`compare_heads`). Codes say besides which states of a head are new.
A head that acts at other tokens alone is not seen: on SmolLM2 and IOI many heads act where the
first name comes again, and not at the last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.activations.activations import Activations, Positions
from circuit_toolkit.arguments import expect, one_of, whole
from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes.autoencoder import CodeAutoencoders, train_autoencoders
from circuit_toolkit.head_codes.counts import discrete_codes, unique_codes
from circuit_toolkit.head_codes.fit import HeadCodesFit
from circuit_toolkit.tasks.task import Task

HeadScore = Literal["change", "unique"]
_ROUNDING = 1e-4  # of the largest output: what other padding changes
_PAIRS_AT_ONCE = 64  # prompts that are encoded at a time, with every seed


@dataclass(frozen=True)
class HeadCodes:
    """Score attention heads by the codes of a small sparse autoencoder on their outputs.

    Parameters
    ----------
    n_features : int
        Codes.
    l1 : float
        Weight of the sparsity term; published: 0.02, and 0.05 for docstrings, which drops much of
        what tells a prompt from its corrupted prompt.
    positions : str or sequence of str, optional
        What stands for a prompt: the output at the `last` token (where the next word is said), the
        `mean` over tokens (published), at a position that the task names, or at several of these,
        one after the other. By default what the activations were captured at; of all tokens, the
        last and every one that the task names.
    score : {"change", "unique"}
        `change` (ours): how far the codes move what a head writes when a prompt is exchanged for
        its corrupted prompt, the mean over pairs of the norm of the difference of reconstructions
        at all positions, in units of the residual stream. `unique` (published): how many codes only
        positives use.
    n_train : int
        Prompts that the autoencoder is trained on, drawn from positives and negatives.
    held_out : bool
        Score on pairs of which neither prompt was trained on; published: on all.
    n_count : int, optional
        Pairs to score on, the first of those; by default all.
    n_seeds : int
        Autoencoders; scores are their mean. Published: 10.
    steps : int
        Of Adam, each on all rows; 0 for an autoencoder that was never trained. Published: 500.
    learning_rate : float
        Of Adam. Published: 1e-3; larger with fewer steps, the loss ends about as low.
    own_code_for_none : bool
        Count "no code is active" as a code of its own; published: as code 0.
    reference : bool
        Normalise the decoder along the axis of the published code; see `train_autoencoders`.
    seed : int
        Decides weights and training prompts.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> task = ct.tasks.greater_than(model, n=40)
    >>> codes = ct.HeadCodes(n_seeds=1, steps=50)
    >>> where = codes.positions_of(task)
    >>> fit = codes.fit(ct.capture(model, "head_out", task, where, progress=False), task)
    >>> fit.scores.shape
    (6, 8)
    """

    n_features: int = 200
    l1: float = 0.002
    positions: Positions | None = None
    score: HeadScore = "change"
    n_train: int = 10
    held_out: bool = True
    n_count: int | None = None
    n_seeds: int = 3
    steps: int = 110
    learning_rate: float = 5e-3
    own_code_for_none: bool = True
    reference: bool = False
    seed: int = 0

    @classmethod
    def published(cls, **options: Any) -> Self:
        """Do what the code of the paper does; capture with `positions="mean"` and `bos=True`.

        Parameters
        ----------
        **options
            Of `HeadCodes`, such as `l1=0.05` for docstrings.

        Returns
        -------
        HeadCodes
        """
        published: dict[str, Any] = {
            "l1": 0.02,
            "positions": "mean",
            "score": "unique",
            "held_out": False,
            "n_seeds": 10,
            "steps": 500,
            "learning_rate": 1e-3,
            "own_code_for_none": False,
            "reference": True,
        }
        return cls(**(published | options))

    def positions_of(self, task: Task) -> Positions:
        """Return where heads of a task are read: by default wherever they are known to act.

        Parameters
        ----------
        task : Task
            The task.

        Returns
        -------
        str or list of str
            `positions`, or the last token and every position that the task names; for
            `capture(model, "head_out", task, positions)`.
        """
        return ["last", *task.positions] if self.positions is None else self.positions

    def fit(self, acts: Activations, task: Task) -> HeadCodesFit:
        """Train the autoencoders and score the heads.

        Parameters
        ----------
        acts : Activations
            `capture(model, "head_out", task, positions=...)`: positives first, then negatives.
        task : Task
            The one that was captured; its clean prompts are the positives, their corrupted prompts
            the negatives.

        Returns
        -------
        HeadCodesFit

        Raises
        ------
        InputError
            If a setting is out of range, these are no head outputs of this task, or there are too
            few prompts.
        """
        one_of(self.score, "score", "change", "unique")
        whole(self.n_seeds, "n_seeds", 1)
        if self.n_count is not None:
            whole(self.n_count, "n_count", 1)
        outputs, layers, where = self._outputs(acts, task)  # (prompts, positions, heads, D)
        pairs = len(outputs) // 2
        rng = np.random.default_rng(self.seed)
        drawn = [rng.permutation(len(outputs))[: self.n_train] for _ in range(self.n_seeds)]
        counted = np.ones((self.n_seeds, pairs), dtype=bool)
        for mask, rows in zip(counted, drawn, strict=True):
            mask[rows % pairs] = not self.held_out
            if self.n_count is not None:
                mask[np.flatnonzero(mask)[self.n_count :]] = False
        if not 1 <= self.n_train <= len(outputs) or not counted.any(1).all():
            raise InputError(
                f"{self.n_train} training prompts of {len(outputs)} leave nothing to count on. "
                "Use a larger task, or a smaller n_train."
            )
        coders = train_autoencoders(
            torch.stack([outputs[rows].flatten(0, 2) for rows in drawn]),
            n_features=self.n_features,
            l1=self.l1,
            steps=self.steps,
            learning_rate=self.learning_rate,
            reference=self.reference,
            seed=self.seed,
        )
        codes, change = self._encoded(coders, outputs)
        scores = []
        for mask, code, moved in zip(counted, codes, change, strict=True):
            if self.score == "change":
                scores.append(moved[mask].mean(0))
            else:
                each = code.swapaxes(0, 1)  # a position each
                scores.append(sum(unique_codes(x[:pairs][mask], x[pairs:][mask]) for x in each))
        shape = (self.n_seeds, len(layers), -1)
        return HeadCodesFit(
            layers=tuple(layers),
            per_seed=np.stack(scores).reshape(shape),
            codes=codes[:, :, 0].reshape(self.n_seeds, len(outputs), len(layers), -1),
            moved=change.reshape(self.n_seeds, pairs, len(layers), -1),
            counted=counted,
            coders=coders,
            settings={
                "method": "head codes",
                **asdict(self),
                "positions": where,
                "target": task.metric,
                **{key: acts.settings.get(key) for key in ("model", "task", "bos", "trained_on")},
                "n_prompts": len(outputs),
            },
        )

    def _outputs(self, acts: Activations, task: Task) -> tuple[Tensor, list[int], Positions]:
        """Return outputs of all prompts (prompts, positions, heads, D), layers and positions."""
        expect(acts, "acts", "Activations")
        expect(task, "task", "Task")
        shapes: Mapping[str, Any] = acts.settings.get("shapes", {})
        if {site.kind for site in acts.sites} != {"head_out"} or not shapes:
            kinds = ", ".join(dict.fromkeys(site.kind for site in acts.sites))
            raise InputError(
                f"Head codes read what heads write, not {kinds}: "
                "capture(model, 'head_out', task, ['last', *task.positions])."
            )
        if acts.settings.get("task") != task.name or acts.n_prompts != len(task.texts):
            raise InputError(
                f"The activations are of {acts.n_prompts} prompts of task "
                f"{acts.settings.get('task')!r}, the task is {task.name!r} with {len(task.texts)}. "
                "Capture the task that is passed."
            )
        if len(np.unique(task.groups)) * 2 != len(task.texts):
            raise InputError(
                f"Task {task.name!r} has no corrupted prompts, which are the negatives here."
            )
        rows = acts if self.positions is None else acts.pooled(self.positions)
        if rows.settings.get("positions", "all") == "all":
            rows = acts.pooled(self.positions_of(task))
        found = []
        for site, matrix in rows.features.items():
            x = torch.from_numpy(matrix.toarray()).unflatten(1, (-1, *shapes[str(site)]))
            found.append(x - x.mean(3, keepdim=True))  # which a LayerNorm does not see
        layers = [site.layer for site in rows.sites]
        return _changing(torch.cat(found, 2)), layers, rows.settings["positions"]

    def _encoded(self, coders: CodeAutoencoders, outputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Codes (S, prompts, positions, heads), and how far pairs are apart (S, b, heads)."""
        pairs, shape = len(outputs) // 2, outputs.shape[1:3]
        codes, change = [], []
        for start in range(0, pairs, _PAIRS_AT_ONCE):
            stop = min(start + _PAIRS_AT_ONCE, pairs)
            both = outputs[[*range(start, stop), *range(pairs + start, pairs + stop)]]
            active = coders.encode(both.flatten(0, 2)[None])
            active = active.unflatten(1, (2, stop - start, *shape))
            codes.append(discrete_codes(active, own_code_for_none=self.own_code_for_none))
            moved = (active[:, 0] - active[:, 1]).flatten(1, 3) @ coders.decoder
            change.append(moved.unflatten(1, (stop - start, *shape)).norm(dim=(2, 4)).numpy())
        each = np.concatenate(codes, 2)  # (S, 2, b, positions, heads)
        return each.reshape(len(each), 2 * pairs, *shape), np.concatenate(change, 1)


def _changing(outputs: Tensor) -> Tensor:
    """Leave out positions, but the first, at which no pair differs: before what was corrupted."""
    pairs = len(outputs) // 2
    moved = (outputs[:pairs] - outputs[pairs:]).abs().amax((0, 2, 3))
    kept = moved > _ROUNDING * outputs.abs().max()
    kept[0] = True
    return outputs[:, kept]
