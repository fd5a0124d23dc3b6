"""Path patching: what one component or feature does to another, and through it to the outcome.

The receiver alone sees what the sender is on the corrupted prompt, or nothing of it, or its mean;
everything after the receiver is computed anew. Features are part of the stream, so a path may run
from a head to a feature, from a feature to an MLP, or between two features. Source: Wang et al.,
2022, arXiv 2211.00593.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import described, expect_known, one_of, whole
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.components import Components, Offset, logits_from, run_components
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.model import Batch, Model, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks.prompt_pairs import (
    PromptPairs,
    TokenPairs,
    expect_pairs,
    row_slices,
    rows_of,
    tokenized_pairs,
)
from circuit_toolkit.tasks.task import reads_last_token

PathEnd = str | tuple[Site | str, int]  # `a0.h1`, or the site and the number of a feature
SenderValue = Literal["corrupted", "zero", "mean"]


@dataclass(frozen=True, eq=False)
class PathEffect:
    """What patching a path did to n prompts.

    Parameters
    ----------
    sender, receiver : str
        The ends of the path.
    through : tuple of str
        Components that passed the effect on, besides the direct path.
    effect : Tensor, shape (n,)
        Change of the metric of each prompt.
    clean : Tensor, shape (n,)
        The metric before.
    logits : Tensor, shape (n, V)
        At the last token, patched.
    change : Tensor, shape (n, T), optional
        Where the receiver is a feature: by how much its activation changed at every token. The
        last token stands last; padding is 0.
    """

    sender: str
    receiver: str
    through: tuple[str, ...]
    effect: Tensor
    clean: Tensor
    logits: Tensor
    change: Tensor | None = None

    def __repr__(self) -> str:
        """Name the path and its mean effect."""
        by = f" also through {', '.join(self.through)}" if self.through else ""
        change = "" if self.change is None else f", receiver {self.change.sum(1).mean():+.3g}"
        return (
            f"PathEffect({self.sender} -> {self.receiver}{by}: {self.effect.mean():+.3g} of "
            f"{self.clean.mean():.3g}{change}, {len(self.effect)} prompts)"
        )


def path_patching(
    model: Model,
    task: PromptPairs,
    sender: PathEnd,
    receiver: PathEnd,
    *,
    value: SenderValue = "corrupted",
    through: Sequence[str] = (),
    dictionaries: Mapping[Site, Dictionary] | Iterable[Dictionary] | None = None,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> PathEffect:
    """Let the receiver see the sender as it is on the corrupted prompt, and nobody else.

    What the receiver makes of it travels on, and all after it is computed anew. Everything before
    it is as on the clean prompt, but for the components of `through`.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts with corrupted prompts of equal length, and a metric; a `Task` is one.
    sender, receiver : str, or tuple of Site or str and int
        A component (`embed`, `a0.h1`, `m0`; `logits` as a receiver), or a feature: its site and
        its number. Of a feature that sends the activation changes; what dictionaries leave
        unexplained stays.
    value : {"corrupted", "zero", "mean"}
        What the sender is seen as: itself on the corrupted prompt, zero, or its mean over all
        tokens of the prompts. The last two need no corrupted prompts, and leave the
        beginning-of-sequence token.
    through : sequence of str
        Components that pass the effect on: they too see what the sender is, and what those of
        `through` before them make of it, and the receiver sees what they then write. All MLPs in
        the paper; by default none, which leaves the direct path.
    dictionaries : dict of Site to Dictionary, optional
        Autoencoders of the residual stream, of the features that are named.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    PathEffect
        Exactly 0 where the receiver is not computed after the sender: there is no path.

    Raises
    ------
    InputError
        If a component, feature or value does not exist, no autoencoder of the stream was given for
        a feature, or there are no corrupted prompts of equal length.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> task = ct.tasks.ioi(model, n=16, seed=0)
    >>> path_patching(model, task, "a0.h1", "m0").effect.shape
    torch.Size([16])
    """
    one_of(value, "value", "corrupted", "zero", "mean")
    expect_pairs(model, task)
    graph = graph_of(model)
    known = as_dictionaries(model, dictionaries, optional=True)
    start, end = _end_of(graph, sender, known), _end_of(graph, receiver, known, reads=True)
    through = [through] if isinstance(through, str) else through
    middle = sorted({graph.reader(name) for name in through})
    bos = shared_bos([each for each in (start.dictionary, end.dictionary) if each is not None])
    pairs = tokenized_pairs(model, task, n_prompts, bos=bos, corrupted=value == "corrupted")
    size = batch_size or pairs.fitting(model)
    found: list[list[Tensor]] = []
    with torch.no_grad():
        constant = _sender_mean(model, pairs, start, size) if value == "mean" else torch.zeros(())
        for rows in pairs.batches(size, progress, "path patching"):
            batch, count = rows_of(pairs.clean, rows), range(rows.start, rows.stop)
            # Even a 0 is added where the path ends, so that what changes nothing does so exactly.
            nothing = end.added(torch.zeros(()))
            clean = run_components(model, batch, nothing)
            if value == "corrupted":
                other = run_components(model, rows_of(pairs.corrupted, rows), nothing)
                given = start.difference(clean, start.value(other))
            else:
                where = token_mask(model, batch)[..., None]
                given = start.difference(clean, constant.to(clean.inputs)) * where
            passed = _passed_on(model, batch, clean, start, given, middle)
            seen = _reaching(end.slot, start, given, middle, passed, end.dictionary is not None)
            written, change = end.response(clean, seen)
            logits = run_components(model, batch, end.added(written)).logits
            before, after = (task.metric_of(x, count) for x in (clean.logits, logits))
            found.append([after - before, before, logits[:, -1], change * batch.mask])
    effect, before, logits, change = (torch.cat(each).cpu() for each in zip(*found, strict=True))
    return PathEffect(
        start.name,
        end.name,
        tuple(graph.readers[reader] for reader in middle),
        effect.float(),
        before.float(),
        logits,
        None if end.dictionary is None else change,
    )


def path_effects(
    model: Model,
    task: PromptPairs,
    paths: Sequence[tuple[str, str]],
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> tuple[Tensor, Tensor]:
    """Patch many paths between components through all MLPs between them, each path alone.

    Parameters
    ----------
    model : Model
        The model.
    task : PromptPairs
        Prompts with corrupted prompts of equal length, and a metric; a `Task` is one.
    paths : sequence of (str, str)
        Sender and receiver, as for `path_patching`.
    n_prompts : int, optional
        How many to use, the first ones; by default all.
    batch_size : int, optional
        Prompts that run at once; by default what fits into half a gigabyte.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    effects : Tensor, shape (n, paths)
        Change of the metric where the receiver sees what the sender is on the corrupted prompt:
        `path_patching(..., through=<all MLPs>).effect`, at a run a sender and one a path, the
        latter from the block of the receiver on.
    change : Tensor, shape (n,)
        Metric of the corrupted prompt minus that of the clean one.

    Raises
    ------
    InputError
        If a component does not exist, or there are no corrupted prompts of equal length.
    """
    expect_pairs(model, task)
    graph, last = graph_of(model), reads_last_token(task)
    middle = [graph.reader(name) for name in graph.readers if name.startswith("m")]
    ends = [(_end_of(graph, a, {}), _end_of(graph, b, {}, reads=True)) for a, b in paths]
    pairs = tokenized_pairs(model, task, n_prompts)
    found, change = torch.zeros(len(pairs), len(paths)), torch.zeros(len(pairs))
    with torch.no_grad():
        for rows in pairs.batches(batch_size or pairs.fitting(model), progress, "path patching"):
            batch, count = rows_of(pairs.clean, rows), range(rows.start, rows.stop)
            clean = run_components(model, batch, last_logits=last)
            other = run_components(model, rows_of(pairs.corrupted, rows), last_logits=last)
            usual = _held(model, batch, clean, middle)
            before = task.metric_of(clean.logits, count)
            change[rows] = (task.metric_of(other.logits, count) - before).float().cpu()
            start: _End | None = None
            for number in sorted(range(len(paths)), key=lambda i: ends[i][0].number):
                sender, end = ends[number]
                if start is None or sender.number != start.number:
                    start = sender
                    given = start.difference(clean, start.value(other))
                    passed = _held(model, batch, clean, middle, start, given, usual), usual
                seen = _reaching(end.slot, start, given, middle, passed)
                added = end.added(seen)(end.slot, clean.outputs)
                stream = clean.inputs[end.slot - end.slot % 2]  # what the block of the end reads
                assert added is not None
                after = logits_from(model, batch, end.slot, stream, added, last_logits=last)
                found[rows, number] = (task.metric_of(after, count) - before).float().cpu()
    return found, change


def _passed_on(
    model: Model,
    batch: Batch,
    clean: Components,
    start: _End,
    given: Tensor,
    middle: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """All outputs (B, W, T, D) where the middle alone sees `given`, and where it sees nothing."""
    if not middle:
        return clean.outputs, clean.outputs
    usual = _held(model, batch, clean, middle)
    return _held(model, batch, clean, middle, start, given, usual), usual


def _held(
    model: Model,
    batch: Batch,
    clean: Components,
    middle: Sequence[int],
    start: _End | None = None,
    sent: Tensor | None = None,
    usual: Tensor | None = None,
) -> Tensor:
    """Return all outputs of a clean run where only the middle sees `sent`, if that is given."""
    graph = graph_of(model)

    def offset(slot: int, outputs: Tensor) -> Tensor | None:
        here = graph.slots[slot]
        mine = [reader - here.start for reader in middle if here.start <= reader < here.stop]
        if not mine or start is None or sent is None or usual is None:
            return None
        added = outputs.new_zeros(len(outputs), here.stop - here.start, *outputs.shape[2:])
        added[:, mine] = _reaching(slot, start, sent, middle, (outputs, usual))[:, None]
        return added

    return run_components(model, batch, offset, base=clean.inputs).outputs


def _reaching(
    slot: int,
    start: _End,
    given: Tensor,
    middle: Sequence[int],
    passed: tuple[Tensor, Tensor],
    of_feature: bool = False,
) -> Tensor:
    """Sum up what readers of a slot get from the sender and from the middle, (B, T, D)."""
    outputs, usual = passed
    total = given if start.is_before(slot, of_feature) else torch.zeros_like(given)
    for reader in middle:
        if reader + 1 < start.graph.n_upstream(slot):  # reader j is writer j + 1
            total = total + outputs[:, reader + 1] - usual[:, reader + 1]
    return total


@dataclass(frozen=True, eq=False)
class _End:
    """A component or a feature; `slot` is that whose readers see the stream in which it stands."""

    graph: Graph
    name: str
    number: int
    slot: int = 0
    dictionary: Dictionary | None = None

    def _in(self, stream: Tensor) -> Tensor:
        """Return the activation of the feature in a stream (B, T, D), shape (B, T)."""
        assert self.dictionary is not None
        return self.dictionary.encode(stream)[..., self.number]

    def _feature(self, clean: Components, value: Tensor) -> tuple[Tensor, Tensor]:
        """Set the activation: what that adds to the stream, and its change, (B, T)."""
        assert self.dictionary is not None
        moved: list[Tensor] = []

        def edit(acts: Tensor) -> Tensor:
            moved.append(value - acts[..., self.number])
            acts[..., self.number] = value
            return acts

        return self.dictionary.added(clean.inputs[self.slot], edit), moved[0]

    def is_before(self, slot: int, of_feature: bool) -> bool:
        """Whether readers of a slot, or a feature of the stream that they read, come after it."""
        if self.dictionary is None:
            return self.number < self.graph.n_upstream(slot)
        return self.slot < slot or (self.slot == slot and not of_feature)

    def value(self, run: Components) -> Tensor:
        """Return what it is in a run: what it writes, (B, T, D), or its activation, (B, T)."""
        if self.dictionary is None:
            return run.outputs[:, self.number]
        return self._in(run.inputs[self.slot])

    def difference(self, clean: Components, value: Tensor) -> Tensor:
        """Return what it would write with this value, minus what it writes, (B, T, D)."""
        if self.dictionary is None:
            return value - clean.outputs[:, self.number]
        return self._feature(clean, value)[0]

    def response(self, clean: Components, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to add when it sees `seen` beside the stream, and its change, (B, T)."""
        if self.dictionary is None:
            return seen, seen.new_zeros(seen.shape[:2])
        return self._feature(clean, self._in(clean.inputs[self.slot] + seen))

    def added(self, value: Tensor) -> Offset:
        """Add to what a component reads; or to what all read after a feature."""

        def offset(slot: int, outputs: Tensor) -> Tensor | None:
            here = self.graph.slots[slot]
            if slot < self.slot or (self.dictionary is None and slot > self.slot):
                return None
            shape = len(outputs), here.stop - here.start, *outputs.shape[2:]
            added = outputs.new_zeros(shape)
            which = slice(None) if self.dictionary is not None else [self.number - here.start]
            added[:, which] = (value[:, None] if value.ndim else value).to(added)
            return added

        return offset


def _end_of(
    graph: Graph, unit: Any, dictionaries: Mapping[Site, Dictionary], *, reads: bool = False
) -> _End:
    if isinstance(unit, str):
        number, slot = (graph.reader if reads else graph.writer)(unit), 0
        if reads:
            slot = next(i for i, which in enumerate(graph.slots) if number < which.stop)
        return _End(graph, unit, number, slot)
    if not isinstance(unit, tuple | list) or len(unit) != 2:
        raise InputError(
            "An end of a path is a component, such as 'a0.h1', or a feature, such as "
            f"('resid_post 1', 12), not {described(unit)}."
        )
    site, number = Site.parse(unit[0]), whole(unit[1], "a feature")
    offsets = {"resid_pre": 0, "resid_mid": 1, "resid_post": 2}
    if graph.parallel:
        del offsets["resid_mid"]
    expect_known(site, dictionaries, f"No dictionary was given for {site}")
    dictionary = dictionaries[site]
    if site.kind not in offsets or dictionary.kind != "sae":
        raise InputError(
            f"{dictionary.name!r} at {site} is no autoencoder of the residual stream, in which "
            f"paths run. Use one at {' or '.join(offsets)}."
        )
    if not 0 <= number < dictionary.n_features:
        raise InputError(f"{site} has features 0 to {dictionary.n_features - 1}, not {number}.")
    slot = 2 * site.layer + offsets[site.kind]
    return _End(graph, f"{site}/{number}", number, slot, dictionary)


def _sender_mean(model: Model, pairs: TokenPairs, start: _End, size: int) -> Tensor:
    """Mean over tokens of what the sender is on the prompts, shape (D,) or ()."""
    total, count = torch.zeros(()), 0
    for rows in row_slices(len(pairs), size):
        batch = rows_of(pairs.clean, rows)
        values = start.value(run_components(model, batch))[token_mask(model, batch)].float()
        total, count = total + values.sum(0).cpu(), count + len(values)
    return total / max(count, 1)
