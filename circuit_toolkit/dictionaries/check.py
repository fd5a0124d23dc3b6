"""Check on one batch of prompts whether dictionaries read what they were trained on."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuit_toolkit.arguments import as_prompts, expect
from circuit_toolkit.dictionaries.dictionary import Dictionary, shared_bos, under
from circuit_toolkit.dictionaries.fidelity import (
    ce_recovered,
    explained_typical,
    explained_variance,
    is_inlying,
    metric_with_reconstruction,
    next_token_loss,
)
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import RAW, Batch, Conventions, Model, Shift, run, token_mask
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

Values = Mapping[Site, Tensor]
LOW = 0.8  # explained variance below which prompts are run with and without <bos> too
BETTER = 0.8  # a reading fits better if it leaves less than this share of what is unexplained,
TYPICAL = 0.5  # explained variance above which a dictionary fits what is not outlying
GAP = 0.1  # by which two figures that tell of one dictionary disagree
CLEAR_GAIN = 0.01  # and explains so much more
_READINGS = (  # what models were commonly loaded with
    RAW,
    Conventions(center_writing_weights=True),
    Conventions(fold_value_biases=True),
    Conventions(fold_ln=True, fold_value_biases=True),
    Conventions(*[True] * 4),
)


@dataclass(frozen=True, eq=False)
class DictionaryCheck:
    """What `check_dictionaries` found; a notebook shows it as a table.

    Parameters
    ----------
    figures : dict of Site to dict
        `explained_variance`, share of the variance over tokens, of what the dictionary was trained
        to reconstruct; `explained_typical`, the same without tokens of outlying norm (4 times the
        median) and coordinates of outlying variance (20 times); `l0`, active features a token,
        and `silent`, share of features that are active at none, both without such tokens;
        `ce_recovered`, share of the loss of zero ablation that the spliced reconstruction wins
        back. With a task also `metric_kept`, the mean metric with the reconstruction in place at
        all tokens, what it leaves unexplained gone, as a share of the model's.
    findings : dict of Site to list of str
        What looks wrong, where figures disagree, and what would fit better; empty where nothing
        does.
    """

    figures: Mapping[Site, Mapping[str, float]]
    findings: Mapping[Site, Sequence[str]]

    @property
    def ok(self) -> bool:
        """Whether nothing looks wrong."""
        return not any(self.findings.values())

    def table(self) -> pd.DataFrame:
        """Return the figures as a table, a row a site.

        Returns
        -------
        DataFrame
        """
        import pandas as pd

        rows = {str(site): row for site, row in self.figures.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("site")

    def _lines(self) -> list[str]:
        return [f"{site}: {text}" for site, texts in self.findings.items() for text in texts]

    def __repr__(self) -> str:
        """Table and findings as text."""
        table = self.table().to_string(float_format="{:.3f}".format)
        return "\n".join([table, *(self._lines() or ["Nothing looks wrong."])])

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self._lines())
        rest = f"<ul>{lines}</ul>" if lines else "<p>Nothing looks wrong.</p>"
        return self.table().to_html(float_format="{:.3f}".format) + rest


def check_dictionaries(
    model: Model,
    dictionaries: Mapping[Site | str, Dictionary] | Iterable[Dictionary] | Dictionary,
    prompts: Any,
    *,
    task: Any = None,
    progress: bool = True,
) -> DictionaryCheck:
    """Check on one batch whether dictionaries read what they were trained on.

    A dictionary that reads activations of other conventions than its own gives features all the
    same. Here that shows: in what it reconstructs, in how many features are active, and in the loss
    once its reconstruction is spliced in. Where something else fits better, a finding names it.

    Parameters
    ----------
    model : Model
        The model.
    dictionaries : dict of Site to Dictionary, Dictionary, or sae_lens object, or several
        From `load_dictionaries`; see `as_dictionaries`.
    prompts : Task, or sequence of str or of token ids
        Ordinary text of a kind that the model was trained on, some hundred tokens in all.
    task : Task, optional
        What `metric_kept` is measured on; by default the prompts, if they are a task with a metric.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    DictionaryCheck

    Raises
    ------
    InputError
        If there are no dictionaries or prompts, or fewer than two tokens to predict.
    MismatchError
        If the dictionaries differ in whether prompts begin with the beginning-of-sequence token.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> from circuit_toolkit.dictionaries import check_dictionaries
    >>> model = ct.load_model("demo")
    >>> saes = ct.load_dictionaries(model, sites=["resid_post 2"])
    >>> texts = ["when Mary and John went to the store , John gave"]
    >>> check_dictionaries(model, saes, texts, progress=False).ok
    True
    """
    each = [*as_dictionaries(model, dictionaries).values()]
    given = as_prompts(prompts, model)
    task = given if task is None and getattr(given, "metric", None) is not None else task
    if task is not None:
        expect(task, "task", "Task")
    prompts, begins = getattr(given, "texts", given), shared_bos(each)
    batch = model.tokenize(prompts, bos=begins)
    mask = token_mask(model, batch)
    if int(mask.sum()) < 3:
        raise InputError("The prompts have too few tokens: pass some hundred words of text.")
    values: dict[bool | None, Values] = {None: _values(model, batch, each)}
    base = next_token_loss(model, [batch])
    figures, findings = {}, {}
    for dictionary in Bar(each, "check", shown=progress):
        x, y = values[None][dictionary.site], values[None][dictionary.out]
        acts = dictionary.encode(x[is_inlying(x)])  # on huge ones nearly all features are active
        row = {
            "explained_variance": explained_variance(dictionary, x, y),
            "explained_typical": explained_typical(dictionary, x, y),
            "l0": float((acts > 0).sum(-1).float().mean()),
            "silent": float((acts <= 0).all(0).float().mean()),
            "ce_recovered": ce_recovered(model, [batch], dictionary, base),
        }
        if task is not None:
            full, kept = metric_with_reconstruction(model, task, [dictionary], begins)
            row["metric_kept"] = kept / full
        texts = model.bos_id is not None and all(isinstance(prompt, str) for prompt in prompts)
        if row["explained_variance"] < LOW and texts and len(values) == 1:  # at most once
            for bos in (True, False):
                values[bos] = _values(model, model.tokenize(prompts, bos=bos), each)
        wrong = [*_oddities(row, dictionary, batch)]
        if not _fails_on_outlying_tokens_alone(row):
            wrong += _better(model, dictionary, values, row)
        figures[dictionary.site], findings[dictionary.site] = row, wrong
    return DictionaryCheck(figures, findings)


def _values(model: Model, batch: Batch, each: Sequence[Dictionary]) -> Values:
    """Raw activations at what is read and reconstructed, a row a token."""
    sites = sorted({site for one in each for site in (one.site, one.out)})
    mask = token_mask(model, batch)
    return {site: x[mask.to(x.device)] for site, x in run(model, batch, sites).items()}


def _oddities(row: Mapping[str, float], dictionary: Dictionary, batch: Batch) -> Iterator[str]:
    n_features = dictionary.n_features
    if _fails_on_outlying_tokens_alone(row):
        yield (
            f"explained variance {row['explained_variance']:.2f} is that of a few tokens of "
            f"outlying size, such as the first: of the others {row['explained_typical']:.2f} is "
            "explained. Training may have left such tokens out, as train_dictionaries does"
        )
    elif row["explained_variance"] < 0:
        yield (
            f"explained variance {row['explained_variance']:.2f} is below 0: it reads activations "
            "unlike those that it was trained on"
        )
    if row["l0"] < 0.5:
        yield f"hardly a feature is active (L0 {row['l0']:.2f})"
    if row["l0"] > n_features / 2:
        yield f"more than half of its {n_features} features are active (L0 {row['l0']:.0f})"
    if row["ce_recovered"] < 0:
        yield (
            f"cross-entropy recovered {row['ce_recovered']:.2f} is below 0: its reconstruction "
            "harms the model more than zeros do"
        )
    yield from _disagreements(row)
    trained, length = dictionary.metadata.get("context_size"), int(batch.mask.sum(1).max())
    if trained and length > trained:
        yield f"a prompt has {length} tokens; it was trained on prompts of {trained}"


def _fails_on_outlying_tokens_alone(row: Mapping[str, float]) -> bool:
    """Whether a dictionary fits all tokens but those of outlying size."""
    return row["explained_variance"] < 0 and row["explained_typical"] > TYPICAL


def _disagreements(row: Mapping[str, float]) -> Iterator[str]:
    """Say where one figure looks good that another one contradicts."""
    explained, typical = row["explained_variance"], row["explained_typical"]
    if explained > 0 and explained - typical > GAP:
        yield (
            f"explained variance {explained:.3f} is made by a few tokens or coordinates of "
            f"outlying size: without them it is {typical:.3f}"
        )
    for name, said in (("ce_recovered", "cross-entropy recovered"), ("metric_kept", "the metric")):
        value = row.get(name, 1.0)
        if 0 <= value < min(explained, 1 - GAP) - GAP:
            kept = "of the task's metric is kept" if name == "metric_kept" else f"is {said}"
            yield (
                f"{value:.2f} {kept} though {explained:.3f} of the variance is explained: judge it "
                "by the former"
            )


def _better(
    model: Model, dictionary: Dictionary, values: dict[bool | None, Values], row: dict[str, float]
) -> list[str]:
    """Name the reading that leaves least unexplained, if it leaves much less than this one."""
    tried: dict[str, tuple[Dictionary, bool | None]] = {}  # as prompts begin; None: as they should
    for reading in _READINGS:
        other = under(model, dictionary, replace(reading, prepend_bos=None))
        tried[f"if its model was loaded with {_said(other.conventions)}"] = other, None
    for bos in {True, False} & set(values) - {dictionary.conventions.prepend_bos}:
        tried[f"on prompts with {_said(Conventions(prepend_bos=bos))}"] = dictionary, bos
    x, now = values[None][dictionary.site], row["explained_variance"]
    seen = dictionary.reads.apply(x.float()).flatten(1)
    factor = float(seen.shape[1] ** 0.5 / seen.norm(dim=1).mean())
    scaled = replace(
        dictionary,
        reads=_divided(dictionary.reads, factor),
        writes=_divided(dictionary.writes, factor),
    )
    call = f"dictionary.sae.fold_activation_norm_scaling_factor({factor:.4g})"
    tried[f"on activations scaled to norm sqrt(D), {call}"] = scaled, None
    scores = {
        said: explained_variance(each, values[bos][each.site], values[bos][each.out])
        for said, (each, bos) in tried.items()
    }
    best = max(scores, key=lambda said: scores[said])
    gain = scores[best] - now
    if not (scores[best] > 0 and gain > max(CLEAR_GAIN, (1 - BETTER) * (1 - now))):
        if now >= 0:
            return []
        return ["no other convention fits better: check that model, revision and hook are its own"]
    return [f"it explains {scores[best]:.2f} instead of {now:.2f} of the variance {best}"]


def _divided(shift: Shift, factor: float) -> Shift:
    scale = torch.ones(()) if shift.scale is None else shift.scale
    return replace(shift, scale=scale / factor)


def _said(conventions: Conventions) -> str:
    """Write conventions as one would type them."""
    said = [
        f"{each.name}={getattr(conventions, each.name)}"
        for each in fields(conventions)
        if getattr(conventions, each.name) not in (None, each.default)
    ]
    return f"Conventions({', '.join(said)})"
