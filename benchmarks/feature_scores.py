"""Surrogate scores of what the bundled transcoders' features are said to mean.

For every layer the mean clarity, responsiveness and purity, all surrogates, of three kinds of
token lists: WeightLens descriptions of the validated features, the words that carry most of a
feature's activation on other texts (up to three), and WeightLens descriptions dealt to the wrong
features of the same layer. `signed` is 2 AUROC - 1, which is below zero where a feature is quieter
on what its list says. Natural texts are of a seed that the activation
view did not see; templates are sentences of the grammar with one word taken out. With `--faith`
also faithfulness of some features of each layer, lists being the five tokens that they promote
most, beside those of the next feature.
Prints rows for RESULTS.md.
"""

import random
import sys
import time

import numpy as np

import circuit_toolkit as ct
from benchmarks.descriptions.peaks import text_peaks
from benchmarks.descriptions.scores import feature_scores
from benchmarks.descriptions.steering import steer
from benchmarks.descriptions.token_lists import neutral_templates
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.features.labels import promoted_words
from circuit_toolkit.features.word_shares import LEAST, activating_words
from circuit_toolkit.weight_lens import WeightLens

TEXTS, OTHER = 3000, 3000
COLUMNS = ("clarity", "clarity_signed", "responsiveness", "responsiveness_signed", "purity")


def texts(seed, n, kind=None):
    """Describe sentences of the grammar."""
    return [each.text for each in Grammar(seed).sentences(n, kind)]


def dealt(described, seed=0):
    """Return every feature the list of another one of its layer."""
    rng, wrong = random.Random(seed), {}
    for site in {site for site, _ in described}:
        mine = [key for key in described if key[0] == site]
        turn = rng.randrange(1, len(mine)) if len(mine) > 1 else 0
        for i, key in enumerate(mine):
            wrong[key] = described[mine[(i + turn) % len(mine)]]
    return wrong


def by_words(model, activating):
    """Take the words that carry at least a twentieth of a feature's activation as lists."""
    found = {}
    for site, features in activating.items():
        for i, words in enumerate(features):
            if heavy := [word for word, share in words if share >= LEAST]:
                found[site, i] = [model.token_id(word) for word in heavy]
    return found


def table(title, scores):
    """Print means a layer."""
    print(f"\n{title}\n| layer | features | {' | '.join(COLUMNS)} | base rate |")
    for layer in [*range(6), None]:
        mine = [s for s in scores if layer is None or f"blocks.{layer}." in s.feature]
        if not mine:
            continue
        with np.errstate(all="ignore"):
            means = [np.nanmean([getattr(s, c) for s in mine]) for c in (*COLUMNS, "base_rate")]
        print(f"| {layer if layer is not None else 'all'} | {len(mine)} |", end="")
        print("".join(f" {mean:.2f} |" for mean in means))


def main(faith):
    """Print the tables."""
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    acts = ct.capture(model, transcoders, texts(7, TEXTS), progress=False)
    seen = ct.capture(model, transcoders, texts(8, OTHER), progress=False)
    templates = neutral_templates(model, transcoders, texts(9, 500), n=20)
    began = time.process_time()
    found = WeightLens().describe(model, transcoders, progress=False)
    print(f"WeightLens, preset code: {time.process_time() - began:.1f} CPU s; {found}")
    lens = {(site, i): found.tokens_of(site)[i] for site, i in found.validated()}
    words = by_words(model, activating_words(seen))
    ours = {key: words[key] for key in lens if key in words}
    for title, lists in (
        ("WeightLens", lens),
        ("WeightLens, lists dealt to other features of the layer", dealt(lens)),
        ("words that carry most activation, the same features", ours),
        ("words that carry most activation, all features that have some", words),
        ("the same, dealt to other features of the layer", dealt(words)),
    ):
        began = time.process_time()
        scores = feature_scores(model, transcoders, lists, acts, templates, progress=False)
        table(f"{title} ({time.process_time() - began:.1f} CPU s)", scores)
    if faith:
        faithfulness(model, transcoders, acts, list(lens))


def faithfulness(model, transcoders, acts, features, n=8):
    """Print whether setting a feature makes the model say what it promotes most."""
    peaks = text_peaks(acts, transcoders)
    prompts = [" ".join(text.split()[:4]) for text in texts(10, 20, "filler")]
    print("\n| layer | features | faithfulness | lists of the next feature | r_0 | best factors |")
    for site, transcoder in transcoders.items():
        mine = [i for where, i in features if where == site and peaks.of(site, i).any()][:n]
        lists = promoted_words(model, transcoder, np.array(mine), n_words=5)
        found, other = (
            [
                steer(model, transcoders, (site, i), words, prompts, peaks.of(site, i).max())
                for i, words in zip(mine, given, strict=True)
            ]
            for given in (lists, [*lists[1:], lists[0]])
        )
        means = [np.mean([each.faithfulness for each in some]) for some in (found, other)]
        best = [max(each.rates, key=lambda f, each=each: each.rates[f]) for each in found]
        silent = np.mean([each.rates[0] for each in found])
        row = [len(found), *(f"{mean:.2f}" for mean in means), f"{silent:.2f}", best]
        print(f"| {site.layer} | {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main("--faith" in sys.argv[1:])
