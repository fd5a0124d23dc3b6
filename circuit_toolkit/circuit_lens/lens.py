"""CircuitLens: how a feature comes to fire, what it does next, and which examples are alike.

Golimblevskaia et al., "Circuit Insights: Towards Interpretability Beyond Activations", 2025,
arXiv 2510.14936. Sampled activating examples, the contributions to each, the set of those that
stand out, Jaccard distances between sets, DBSCAN. One run and one frozen pass a batch of examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.activations.capture_plan import Prompts
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.arguments import as_prompts, expect
from circuit_toolkit.attribution.frozen.run import frozen_weights, upstream_of
from circuit_toolkit.circuit_lens.activating_examples import sample_examples, strongest_examples
from circuit_toolkit.circuit_lens.circuits import FeatureCircuits
from circuit_toolkit.circuit_lens.feature import find_feature
from circuit_toolkit.circuit_lens.passes import run_pass
from circuit_toolkit.circuit_lens.settings import LensSettings
from circuit_toolkit.dictionaries import Dictionary, shared_bos
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.dictionaries.names import FeatureName
from circuit_toolkit.errors import MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.progress import Bar
from circuit_toolkit.sites import Site


@dataclass(frozen=True)
class CircuitLens(LensSettings):
    """Explain a feature by the circuits of its activating examples.

    Parameters
    ----------
    n_examples : int
        At most so many activating examples, one a prompt, the strongest token of it. They are drawn
        by how rare their strength is, so that weak ones are among them.
    mode : {"published", "frozen"}
        How heads are scored: `published`, by the feature's encoder column as it is stored, norms
        left out; `frozen`, by the gradient of the pre-activation with patterns and norm factors
        held, so that scores are terms of a sum.
    upstream : {"here", "anywhere"}
        Which upstream features count: those at the token itself, directly; or those at all
        tokens, through frozen attention too, the sum over tokens.
    theta_head, theta_feature : float
        A contribution stands out that exceeds the mean of its layer by so many standard
        deviations: over all heads and source tokens, and over active features. Of n entries none
        exceeds (n - 1) / sqrt(n): where 16 features are active, a threshold of 4 is out of reach.
        The published threshold of heads is 5; that of features is not known, ours suits the
        bundled transcoders.
    rho : float
        Elements in a smaller share of the sets are dropped.
    eps : float
        Examples with sets of at most this Jaccard distance, above 0, are neighbours.
    min_samples : int
        A cluster has an example with so many neighbours, itself included.
    n_outputs : int
        How many of the tokens that follow in the prompt are looked at; 0 for none. Where the
        model is to go on by itself, pass prompts with what `generate` makes of them.
    theta_output : float
        One of them counts as promoted if the feature adds to its logit, and by so many standard
        deviations more than to the mean token.
    batch_size : int
        Examples in one run.
    seed : int
        Of the draw.

    Raises
    ------
    InputError
        If a setting is out of range.

    Notes
    -----
    Columns `error` and `origins_error` of the examples say by how much the sums miss the
    activation. On the bundled model in float32 that is at most 2e-5 of it, over 2,400 examples of
    48 features; loaded in bfloat16 it is 0.2 % in the median, up to 3.3 % where the feature has at
    least a tenth of its largest activation, and all of it where it is weaker. One of the 48
    features was refused there: an example near its threshold was gone in another batch. So analyse
    in float32: `load_model(name, dtype=torch.float32)`, which is the default.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> task = ct.tasks.ioi(model, n=60)
    >>> lens = ct.CircuitLens(n_examples=40)
    >>> circuits = lens.analyse(model, transcoders, task, "mlp_in 2/6", progress=False)
    >>> bool(circuits.examples["error"].max() < 1e-4)
    True
    """

    def analyse(
        self,
        model: Model,
        dictionaries: Mapping[Site, Dictionary],
        prompts: Prompts,
        feature: FeatureName,
        *,
        acts: Activations | ActivationStore | None = None,
        descriptions: Any = None,
        progress: bool = True,
    ) -> FeatureCircuits:
        """Explain how a feature comes to fire, and what it does to the next tokens.

        Parameters
        ----------
        model : Model
            The model.
        dictionaries : dict of Site to Dictionary
            Transcoders, which explain the MLPs; an MLP without one counts as a whole. The
            dictionary of the feature is among them, and may be an autoencoder of the stream.
        prompts : Task or sequence of str or of token ids
            Where the feature may fire; the first 128 tokens of each are looked at.
        feature : str or tuple
            `"blocks.3.ln2.hook_normalized/17"`, or a site (or the layer of a transcoder) and a
            number.
        acts : Activations or ActivationStore, optional
            Of the same prompts, captured with `positions="all"`: then finding the examples takes no
            run of the model.
        descriptions : FeatureDescriptions, optional
            Words for upstream features: `descriptions.of(site, index)["words"]`. One that it does
            not hold is called by its name.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        FeatureCircuits

        Raises
        ------
        InputError
            If there is no such feature, it is not a linear reading of the stream, or it never
            fires; or there are no prompts.
        MismatchError
            If `acts` are of other prompts, or the dictionaries want other beginnings of a prompt.
        """
        import pandas as pd

        found = as_dictionaries(model, dictionaries)
        given = as_prompts(prompts, model)
        texts = given if isinstance(given, list) else list(given.texts)
        if acts is not None:
            expect(acts, "acts", "Activations", "ActivationStore")
        chosen = find_feature(model, found, feature)
        examples = strongest_examples(
            model, texts, chosen.dictionary, chosen.index, acts, progress=progress
        )
        examples = examples.some(sample_examples(examples.activation, self.n_examples, self.seed))
        layer, mid = chosen.reads_at
        n_attention, n_mlps = layer + mid, layer
        if self.n_outputs:  # then what comes behind the feature counts too
            n_attention = n_mlps = model.n_layers
        weights = frozen_weights(model, upstream_of(found), n_attention, n_mlps)
        used = [each.dictionary for each in weights.transcoders if each]
        bos = shared_bos([*used, chosen.dictionary])
        ids = [model.tokenize([texts[i]], bos=bos).ids[0].tolist() for i in examples.prompt]
        if any(at >= len(each) for at, each in zip(examples.position, ids, strict=True)):
            raise MismatchError("acts are of other prompts: an example stands behind its end.")
        ends = examples.position + 1 + self.n_outputs
        ids = [each[:end] for each, end in zip(ids, ends, strict=True)]
        order = np.argsort([len(each) for each in ids], kind="stable")
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        passes = [
            run_pass(
                model, weights, chosen, examples.some(rows), [ids[i] for i in rows], rows, self
            )
            for rows in Bar(batches, "CircuitLens", shown=progress)
        ]
        back = np.argsort(order)
        words = [row for each in passes for row in each.words]
        values = [row for each in passes for row in each.values]
        words, values = [words[i] for i in back], [values[i] for i in back]
        tokens = [row[at] for row, at in zip(words, examples.position, strict=True)]
        columns = pd.concat([each.columns for each in passes], ignore_index=True)
        elements = pd.concat([each.elements for each in passes])
        sites = {each.out.layer: str(each.site) for each in used}
        numbers = elements[["layer", "head", "feature", "offset"]].to_numpy()
        names = [
            f"a{layer}.h{head} {offset}" if head >= 0 else f"{sites[layer]}/{index}"
            for layer, head, index, offset in numbers
        ]
        elements.insert(1, "element", names)
        outputs = pd.concat([each.outputs for each in passes])
        decoded = [model.word(int(token)) for token in outputs["token"]]
        return FeatureCircuits(
            chosen.name,
            self,
            pd.DataFrame(
                {
                    "prompt": examples.prompt,
                    "position": examples.position,
                    "token": tokens,
                    "activation": examples.activation,
                    **columns.iloc[back].reset_index(drop=True),
                }
            ),
            elements.sort_values(["example", "layer"], kind="stable", ignore_index=True),
            outputs.assign(token=decoded).sort_values(["example", "step"], ignore_index=True),
            words,
            values,
            descriptions,
            {"model": model.name, "n_prompts": len(texts)},
        )
