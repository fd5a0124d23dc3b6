"""WeightLens: describe every feature of some dictionaries from weights, tokens tested alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from torch import Tensor

from circuit_toolkit.arguments import one_of, settings_alone, whole
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.directions import encoder_rows, stream_of, unembedding_rows
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.errors import InputError, WriteError
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.features.descriptions.explainer import Explainer, check_before_a_run
from circuit_toolkit.features.descriptions.inherited_tokens import Described, describe_site
from circuit_toolkit.features.descriptions.tables import SiteTables
from circuit_toolkit.features.descriptions.words import check_language
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models import Model
from circuit_toolkit.models.versions import versions
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens.one_site import null_generator, tables_of
from circuit_toolkit.weight_lens.progress import ANSWERS, Progress, inputs_of, progress_in
from circuit_toolkit.weight_lens.single_token import (
    LAYER_0,
    alone_at,
    first_layer_rows,
    first_token,
    single_token_pass,
)
from circuit_toolkit.weight_lens.thresholds import Thresholds, reach, thresholds_for

INPUTS = ("embedding", "first_layer")  # what may stand for a token


@dataclass(frozen=True)
class WeightLens:
    """Describe features by the tokens that their weights single out, and that alone switch them on.

    A token stands out for a feature if the product of its embedding, or of what the first layer
    makes of it (`inputs`), with the encoder row is an outlier; it is a part of the description if
    it activates the feature when it is run alone. Special tokens, such as padding, which are no
    text, never are; among the tokens that a feature promotes is the end of a text, which is said. A
    feature whose encoder singles out features of earlier layers inherits those of their tokens that
    activate it, each tested alone.

    Parameters
    ----------
    preset : {"code", "paper", "robust"}
        Thresholds: of the authors' released code; of the paper; or ours, by median and median
        absolute deviation, for small vocabularies and features of many equal tokens, which fall
        silent under the other two.
    theta_token, theta_feature : float, optional
        Own thresholds of z, for tokens (inputs and outputs) and for earlier features.
    pool_tokens, pool_features : int or "all", optional
        Own pools: z-scores are taken inside so many of the largest contributions.
    robust : bool, optional
        Median and median absolute deviation, or mean and standard deviation.
    upstream : {"first", "all"}, optional
        Whose descriptions are inherited. The code takes the first layer's alone for GPT-2.
    inputs : {"embedding", "first_layer"}, optional
        What stands for a token: its embedding, as published, or the stream behind the first layer
        when the token runs alone, at norm 1. The first MLP rewrites tokens, so that features of
        later layers hardly read embeddings; the published method inherits from features of the
        first layer. By default the embedding where one of these is described, else the latter.
    slack : float
        How far below the thresholds `FeatureDescriptions.at` may go. More is more memory.
    n_permuted : int
        Features of each dictionary whose encoder is also taken with its entries permuted: the
        permutation null, of how many tokens stand out by chance; 0 for none.
    seed : int
        Seed of these.
    language : str or None
        Language of lemmas, as simplemma names it; None for no lemmas.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> from circuit_toolkit.weight_lens import WeightLens
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> found = WeightLens("robust").describe(model, transcoders, layers=[0], progress=False)
    >>> [str(word) for word in found.search("Mary")["words"][0].split(", ")[:3]]
    ['Frank', 'Robert', 'Carol']
    """

    preset: str = "code"
    theta_token: float | None = None
    theta_feature: float | None = None
    pool_tokens: int | Literal["all"] | None = None
    pool_features: int | Literal["all"] | None = None
    robust: bool | None = None
    upstream: Literal["first", "all"] | None = None
    inputs: Literal["embedding", "first_layer"] | None = None
    slack: float = 1.0
    n_permuted: int = 512
    seed: int = 0
    language: str | None = "en"

    def __post_init__(self) -> None:
        """Refuse what no model could be described with."""
        settings_alone(self.preset, "WeightLens().describe(model, dictionaries, ...)")
        found = asdict(self._thresholds(""))
        found |= {name: whole(getattr(self, name), name, 0) for name in ("n_permuted", "seed")}
        for name in ("n_permuted", "seed", "slack", *self.own):  # Python's own numbers
            if getattr(self, name) != "all":
                object.__setattr__(self, name, found[name])
        check_language(self.language)
        if self.inputs is not None:
            one_of(self.inputs, "inputs", *INPUTS)

    @property
    def own(self) -> dict[str, Any]:
        """Values that are not the preset's."""
        names = ("theta_token", "theta_feature", "pool_tokens", "pool_features")
        values = {name: getattr(self, name) for name in (*names, "robust", "upstream")}
        return {name: value for name, value in values.items() if value is not None}

    def _inputs(self, model: Model, dictionaries: Mapping[Site, Dictionary]) -> str:
        """Return what stands for tokens; the dictionaries are in order of computation."""
        first = stream_of(model, next(iter(dictionaries.values())))
        return self.inputs or INPUTS[first >= LAYER_0]

    def _thresholds(self, model_type: str) -> Thresholds:
        return thresholds_for(self.preset, self.own, self.slack, model_type)

    def _settings(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        limits: Thresholds,
        groups: Mapping[str, int | None],
    ) -> dict[str, Any]:
        """Return what descriptions depend on, in what JSON can hold."""
        return {
            "model": model.name,
            "model_type": model.hf.config.model_type,
            "n_tokens": model.d_vocab,
            **asdict(limits),
            "floors": {"theta_token": limits.floor_token, "theta_feature": limits.floor_feature},
            "own": self.own,
            "inputs": self._inputs(model, dictionaries),
            "largest_group": dict(groups),
            "dictionaries": {str(site): each.name for site, each in dictionaries.items()},
            "begins_with": first_token(model, dictionaries),
            "ends_with": model.tokenizer.eos_token_id,  # the one special token that outputs keep
            "n_permuted": self.n_permuted,
            "seed": self.seed,
            "language": self.language,
            "versions": versions(),
        }

    def describe(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        layers: Sequence[int] | int | None = None,
        *,
        store: str | os.PathLike | None = None,
        explain: Explainer | None = None,
        progress: bool = True,
    ) -> FeatureDescriptions:
        """Describe all features of some dictionaries.

        One pass of every token alone serves all dictionaries; all else are products of matrices.
        Products are made for a block of features and the whole vocabulary at a time, so that
        z-scores, medians and pools are exact and memory is bounded: 1.3 GB beside the weights, and
        with `inputs="first_layer"` as much as the embedding takes in float32.

        Parameters
        ----------
        model : Model
            The model.
        dictionaries : dict of Site to Dictionary
            All transcoders, or all autoencoders of the stream; the latter are marked as such, and
            their decoders overlap, see `upstream_candidates`.
        layers : int or sequence of int, optional
            Only these are given. Earlier ones are described all the same, to be inherited from.
        store : path, optional
            Folder to keep what is done, dictionary by dictionary; where one is there, it is gone
            on with, if the inputs are the same. What is said of a layer depends on all layers in
            front and on none behind, so with the same settings a run of more layers goes on with
            the folder of one of fewer, and the other way round. Only the pass of tokens is then
            made anew.
        explain : Explainer, optional
            Says in a sentence what tokens have in common; must have a `max_calls`. Its cost is
            shown before it is called; that is known when all is described, so large models are
            better described first, and explained by `FeatureDescriptions.explained`. With `store`
            its answers are kept there as they come, unless it has a store of its own.
        progress : bool
            Whether to show progress bars.

        Returns
        -------
        FeatureDescriptions

        Raises
        ------
        InputError
            If a dictionary does not read the stream, kinds are mixed, there is no such layer,
            the explainer has no limit, or the store is no folder.
        MismatchError
            If the folder holds descriptions of other inputs: other settings, or dictionaries that
            do not begin with the same ones.
        FileFormatError
            If what is there of them is damaged.

        Warns
        -----
        UserWarning
            If the vocabulary or a pool is too small for anything to stand out; if explanations
            would take more calls than are allowed, or one fails: descriptions then come without
            concepts, and what was answered is kept in the explainer.
        """
        if explain is not None:
            check_before_a_run(explain)
        order, shown = _needed(model, as_dictionaries(model, dictionaries), layers)
        limits = self._thresholds(model.hf.config.model_type)
        n_tokens = model.d_vocab
        groups = reach(limits, n_tokens, min(d.n_features for d in order.values()))
        settings = self._settings(model, order, limits, groups)
        with progress_in(store, lambda: inputs_of(model, order, settings)) as done:
            tables = self._tables(model, order, limits, done, store, progress)
        result = FeatureDescriptions(
            tables=tables,
            settings=settings,
            strings=_strings(model, tables),
            shown=shown,
        )
        if explain is None:
            return result
        if store is not None and explain.store is None:
            explain = replace(explain, store=resolved(store) / ANSWERS)
        try:
            return result.explained(explain)
        except (InputError, WriteError) as error:  # what was described is not thrown away for that
            warnings.warn(
                f"Described, but not explained: {error} Call `explained` of what is returned.",
                UserWarning,
                stacklevel=2,
            )
            return result

    def _tables(
        self,
        model: Model,
        order: Mapping[Site, Dictionary],
        limits: Thresholds,
        done: Progress,
        store: str | os.PathLike | None,
        progress: bool,
    ) -> dict[Site, SiteTables]:
        """Read the tables that are there, and make the others."""

        @cache  # made when the first dictionary needs it: not at all where all is done
        def shared() -> tuple[Any, Tensor, Tensor | None]:
            folder = None if store is None else resolved(store) / f"single_tokens_{len(order)}"
            acts = single_token_pass(model, order, folder, progress)
            rows = unembedding_rows(model, final_norm=False)
            if self._inputs(model, order) == "embedding":
                return acts, rows, None
            return acts, rows, first_layer_rows(model, first_token(model, order))

        n_tokens = model.d_vocab
        widths = {site: each.n_features for site, each in order.items()}
        tables: dict[Site, SiteTables] = {}
        found: list[Described] = []
        for site in Bar(order, "describe", unit="site", shown=progress):
            table = done.read(site, widths, n_tokens)
            if table is None:
                acts, unembedding, inputs = shared()
                alone, rng = alone_at(acts, site), null_generator(self.seed, site)
                given = limits, alone, unembedding, inputs, found, rng, self.n_permuted
                table = tables_of(model, site, order, *given)
                done.write(site, table)
            tables[site] = table
            floors = limits.floor_token, limits.floor_feature
            found.append(describe_site(table, *floors, found, limits.upstream, n_tokens))
        return tables


def _needed(
    model: Model, dictionaries: Mapping[Site, Dictionary], layers: Any
) -> tuple[dict[Site, Dictionary], tuple[Site, ...]]:
    """Check dictionaries; return those up to the last that is wanted, and the sites wanted."""
    for each in dictionaries.values():
        encoder_rows(model, each)  # refuses, by name, what does not read the stream
    if len({each.kind for each in dictionaries.values()}) > 1:
        raise InputError(
            "Transcoders and autoencoders were given together. Describe them one after the other."
        )
    known = sorted({site.layer for site in dictionaries})
    wanted = known
    if layers is not None:
        some = layers if np.ndim(layers) else [layers]
        wanted = [whole(each, "layers, such as 2 or [0, 1],") for each in some]
    if not wanted or not set(wanted) <= set(known):
        raise InputError(
            f"layers must be some of {known}, which have dictionaries; got {list(wanted)}."
        )
    order = {site: each for site, each in dictionaries.items() if site.layer <= max(wanted)}
    return order, tuple(site for site in order if site.layer in wanted)


def _strings(model: Model, tables: Mapping[Site, SiteTables]) -> dict[int, str]:
    """Readable text of every token that occurs."""
    ids = [table.tokens["token"] for table in tables.values()]
    ids += [table.outputs["token"] for table in tables.values()]
    ids += [table.inherited["token"] for table in tables.values()]
    return {int(i): model.word(int(i)) for i in np.unique(np.concatenate(ids))}
