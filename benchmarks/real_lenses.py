"""WeightLens, CircuitLens and the attribution graph on a real model and its transcoders.

`python -m benchmarks.real_lenses [MODEL] [words | circuits | graph ...]`, by default SmolLM2 and
all three. Needs the package of the model (`make real`) and its dictionaries (`circuit-toolkit train
--model MODEL`). Prompts are held-out ones of ioi, docstring and agreement, which no dictionary was
trained on. Prints rows for RESULTS.md.

`words`: by what stands for a token, share of features with a token of their own that passes the
test, beside that of permuted encoders; and whether what the weights say is what activates the
feature on the prompts: of features that have a word that is there, how many have one among the five
on which they are strongest, beside words dealt out anew within the layer. Then features, drawn at
random, for a reader to judge: those above, and one of a layer with no word that is in the prompts.
`circuits`: by how much sums of contributions miss activations, as a share of them.
`graph`: the attribution graph of one IOI prompt.
"""

import resource
import sys
import time

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.features.descriptions.words import spelled, unspaced

TASKS, PROMPTS = ("ioi", "docstring", "agreement"), 100
STRONGEST, OFTEN, SHOWN = 5, 20, 2  # words compared; tokens where a feature is active; a layer
FEATURES, EXAMPLES = 4, 20  # of CircuitLens, a layer and a feature
PROMPT = "When Mary and John went to the store, John gave a drink to"


def held_out(model):
    """Return prompts of all tasks, corrupted ones included."""
    tasks = [ct.tasks.BUNDLED[name](model, n=PROMPTS, seed=1, test=True) for name in TASKS]
    return [text for task in tasks for text in task.texts]


def strongest_words(acts, site, feature):
    """Return the words on which a feature is strongest, tokens of outlying size left out."""
    column = np.where(acts.inlying(site), acts.features[site][:, [feature]].toarray().ravel(), 0)
    rows = np.argsort(-column, kind="stable")
    rows = rows[column[rows] > 0]
    words = (unspaced(acts.tokens[acts.prompt[row]][acts.position[row]]) for row in rows)
    return list(dict.fromkeys(words))[:STRONGEST]


def lower(words):
    """Return words as a set, in lower case."""
    return {unspaced(word).lower() for word in words}


def agreement(acts, site, words):
    """Return how often a word is among the strongest, by chance; the features, and the others."""
    there = lower(word for tokens in acts.tokens for word in tokens)
    usual = acts.features[site][np.flatnonzero(acts.inlying(site))]
    often = np.asarray((usual > 0).sum(0)).ravel() >= OFTEN
    named = [i for i in np.flatnonzero(often).tolist() if words[i]]
    known = [i for i in named if lower(words[i]) & there]
    found = {i: lower(strongest_words(acts, site, i)) for i in known}
    met = np.array([[bool(lower(words[i]) & found[j]) for j in known] for i in known])
    others = [i for i in named if i not in found]
    if len(known) < 2:
        return np.nan, np.nan, known, others
    n = len(known)
    return met.diagonal().mean(), (met.sum() - met.trace()) / (n * n - n), known, others


def words(model, transcoders, texts):
    """Print how many features weights describe, how truly, and some of them."""
    acts = ct.capture(model, transcoders, texts, progress=False)
    print("| tokens by | layer | described | own | by chance | compared | agree | shuffled |")
    print("|---|---|---|---|---|---|---|---|")
    for inputs in ("embedding", "first_layer"):
        began, shown = time.process_time(), []
        found = ct.WeightLens(inputs=inputs).describe(model, transcoders, progress=False)
        spent = time.process_time() - began
        for (_, row), site in zip(found.coverage().iterrows(), transcoders, strict=True):
            agree, chance, known, others = agreement(acts, site, found.words_of(site))
            shares = " | ".join(f"{row[name]:.3f}" for name in ("validated", "own", "null_own"))
            compared = f"{len(known)} | {agree:.2f} | {chance:.2f}"
            print(f"| {inputs} | {site.layer} | {shares} | {compared} |", flush=True)
            rng = np.random.default_rng(site.layer)
            draw = [*rng.permutation(known)[:SHOWN], *rng.permutation(others)[:1]]
            shown += [(site, int(i)) for i in draw]
        print(f"\n{inputs}: {spent:.0f} CPU s\n")
    print("| feature | words by weights | strongest on prompts |\n|---|---|---|")
    for site, i in shown:
        said, there = found.words_of(site)[i], strongest_words(acts, site, i)
        pair = (", ".join(f"`{spelled(x)}`" for x in each[:STRONGEST]) for each in (said, there))
        print(f"| {site.layer}/{i} | {' | '.join(pair)} |")


def circuits(model, transcoders, texts):
    """Print by how much sums of contributions miss activations."""
    acts = ct.capture(model, transcoders, texts, progress=False)
    lens, rng = ct.CircuitLens(n_examples=EXAMPLES, n_outputs=0), np.random.default_rng(0)
    print("| layer | features | examples | largest error, direct | origins | CPU s |")
    print("|---|---|---|---|---|---|")
    for site in transcoders:
        often = np.asarray((acts.features[site] > 0).sum(0)).ravel() >= EXAMPLES
        some = rng.choice(np.flatnonzero(often), FEATURES, replace=False).tolist()
        began, n, errors = time.process_time(), 0, []
        for feature in some:
            found = lens.analyse(
                model, transcoders, texts, (site, feature), acts=acts, progress=False
            )
            errors.append(found.table[["error", "origins_error"]].max().to_numpy())
            n += len(found.table)
        direct, origins = np.max(errors, axis=0)
        spent = time.process_time() - began
        print(f"| {site.layer} | {len(some)} | {n} | {direct:.1e} | {origins:.1e} | {spent:.0f} |")


def graph(model, transcoders, _):
    """Print what the attribution graph of one prompt holds and costs."""
    began = time.process_time()
    found = ct.attribution_graph(
        model, transcoders, PROMPT, targets={" Mary": 1, " John": -1}, progress=False
    )
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    said = found.evidence["attribution"]
    print(f"{len(found.nodes)} nodes, {len(found.edges)} edges after pruning; {said}")
    print(f"{spent:.0f} CPU s, peak {peak:.1f} GiB of the process")


def main() -> None:
    """Print what is asked for."""
    torch.set_num_threads(1)
    known = {"words": words, "circuits": circuits, "graph": graph}
    names = [name for name in sys.argv[1:] if name not in known] or ["smollm2"]
    model = ct.load_model(names[0])
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    texts = held_out(model)
    for part in [name for name in sys.argv[1:] if name in known] or known:
        print(f"\n## {part}\n")
        known[part](model, transcoders, texts)


if __name__ == "__main__":
    main()
