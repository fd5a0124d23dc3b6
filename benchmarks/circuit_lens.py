"""CircuitLens on the bundled model: whether sums hold, what it costs, clusters against roles.

Without an argument: by how much sums of contributions miss activations, over features of all six
transcoders; CPU seconds of one thread for examples in batches, against the same gradients by
autograd, one example at a time. With `--roles`: every feature that is a mixture of roles of the
grammar (`demo.polysemantic`), and the adjusted Rand index of the clusters of its examples against
the roles, noise counted as one cluster more: with the default settings, and with those of `GRID`
that are best on every other mixture, so that the others are their test. Prints rows for RESULTS.md.
"""

import sys
import time
from itertools import product

import numpy as np
import torch

import circuit_toolkit as ct
from benchmarks.descriptions.mixtures import agreement_table, find_mixtures
from circuit_toolkit.attribution.frozen.run import (
    frozen_run,
    frozen_weights,
    upstream_of,
)
from circuit_toolkit.attribution.frozen.sums import origins
from circuit_toolkit.circuit_lens import CircuitLens
from circuit_toolkit.circuit_lens.feature import find_feature
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.models.weights import norm_gain
from circuit_toolkit.sites import Site

TEXTS, SEED = 2000, 777
GRID = {"theta_head": (5.0, 6.0), "theta_feature": (1.0, 1.5), "eps": (0.5, 0.6)}
LITTLE = 0.2  # noise up to which an agreement counts: a role that is all noise agrees too


def sentences():
    """Texts as the model was trained on, of a seed of their own."""
    return sorted(Grammar(SEED).sentences(TEXTS), key=lambda sentence: len(sentence.words))


class Autograd:
    """The peer: autograd through the modules; queries, keys, norm factors and MLPs are held."""

    def __init__(self, model):
        self.model = model
        self.blocks = list(model.hf.transformer.h)

    def token_contributions(self, target, ids, at):
        """Return what each token's embedding adds to a pre-activation, shape (T,)."""
        self.handles = []
        embed = self.model.hf.transformer.wte
        self.hook(embed, self.begin)
        for block in self.blocks:
            self.hook(block.attn.c_attn, self.cut)
            self.hook(block.mlp, lambda y: y.detach())
            for norm in (block.ln_1, block.ln_2):
                self.hold(norm)
        layer = target.stream.layer
        handle = self.blocks[layer].ln_2.register_forward_pre_hook(self.read)
        self.handles.append(handle.remove)
        self.model.hf(input_ids=ids[None])
        x = self.stream[0, at]
        gain = norm_gain(x, self.blocks[layer].ln_2, self.model.architecture).detach()
        pre = (gain * x * target.row).sum() + target.constant
        (g,) = torch.autograd.grad(pre, [self.embed])
        for undo in self.handles:
            undo()
        return (g * self.embed.detach())[0].sum(1)

    def hook(self, module, change):
        """Change what a module puts out."""
        handle = module.register_forward_hook(lambda _, __, y: change(y))
        self.handles.append(handle.remove)

    def hold(self, norm):
        """Let a norm multiply by its factor as it is, without a gradient of it."""

        def forward(x):
            y = x - x.mean(-1, keepdim=True)
            factor = (y.pow(2).mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
            return y * factor * norm.weight + norm.bias

        before, norm.forward = norm.forward, forward
        self.handles.append(lambda: setattr(norm, "forward", before))

    def begin(self, y):
        """Let gradients begin at the embedding."""
        self.embed = y.detach().requires_grad_()
        return self.embed

    def cut(self, y):
        """Hold queries and keys, and so patterns."""
        q, k, v = y.chunk(3, -1)
        return torch.cat([q.detach(), k.detach(), v], -1)

    def read(self, _, inputs):
        """Keep the stream in front of the feature's norm."""
        self.stream = inputs[0]


def cost(model, transcoders, texts, acts):
    """Print how sums hold, and what examples cost in batches and one at a time."""
    print(
        "| layer | features | examples | largest error, direct | origins | examples a CPU second |"
    )
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for site in transcoders:
        often = np.asarray((acts.features[site] > 0).sum(0)).ravel()
        features = rng.choice(np.flatnonzero(often >= 100), 8, replace=False)
        lens, errors, n, began = CircuitLens(), [], 0, time.process_time()
        for feature in features:
            found = lens.analyse(model, transcoders, texts, (site, int(feature)), acts=acts)
            errors.append(found.table[["error", "origins_error"]].max().to_list())
            n += len(found.table)
        spent = time.process_time() - began
        direct, through = np.max(errors, axis=0)
        row = f"{site.layer} | {len(features)} | {n} | {direct:.1e} | {through:.1e}"
        print(f"| {row} | {n / spent:.0f} |", flush=True)
    print("\n| layer | in batches, ms an example | autograd, one by one | times | difference |")
    print("|---|---|---|---|---|")
    for layer in (1, 3, 5):
        site = Site("mlp_in", layer)
        often = np.asarray((acts.features[site] > 0).sum(0)).ravel()
        feature = int(often.argmax())
        found = CircuitLens(n_outputs=0).analyse(
            model, transcoders, texts, (site, feature), acts=acts
        )
        places = found.table["position"].tolist()
        ids = [model.tokenize([texts[i]]).ids[0] for i in found.table["prompt"]]
        ids = [each[: at + 1] for each, at in zip(ids, places, strict=True)]
        target = find_feature(model, transcoders, (site, feature))
        weights = frozen_weights(model, upstream_of(transcoders), layer + 1, layer)
        began = time.process_time()
        ours = []
        order = np.argsort([len(each) for each in ids])
        for start in range(0, len(ids), 50):
            rows = order[start : start + 50]
            batch = model.tokenize([ids[i] for i in rows])
            frozen, values = frozen_run(model, batch, weights, {target.stream})
            at = torch.full((len(rows),), batch.ids.shape[1] - 1)
            tokens = origins(frozen, target.reading(model, values[target.stream], at))
            ours += list(tokens.parts["token"])
        batched = time.process_time() - began
        peer = Autograd(model)
        began = time.process_time()
        theirs = [peer.token_contributions(target, ids[i], places[i]) for i in order]
        single = time.process_time() - began
        off = max(
            float((mine[-len(other) :] - other).abs().max() / other.abs().max())
            for mine, other in zip(ours, theirs, strict=True)
        )
        each = f"{1e3 * batched / len(ids):.1f} | {1e3 * single / len(ids):.1f}"
        print(f"| {layer} | {each} | {single / batched:.1f} | {off:.0e} |", flush=True)


def roles(model, transcoders, texts, spoken, acts):
    """Print the mixtures and how clusters match their roles."""
    found = find_mixtures(acts, spoken)
    half = np.arange(len(found)) % 2 == 0
    ends = np.array([set(each.roles) == {"word .", 'word """'} for each in found])
    print(f'{len(found)} mixtures, {ends.sum()} of them ends of texts (`.` or `"""`)\n')
    tables = {}
    print("| settings | features | mean ARI | median | >= .7, little noise | clustered | noise |")
    print("|---|---|---|---|---|---|---|")
    for upstream in ("here", "anywhere"):
        lens = CircuitLens(n_outputs=0, upstream=upstream)
        circuits = [lens.analyse(model, transcoders, texts, m.name, acts=acts) for m in found]
        tables[f"{upstream}, defaults"] = agreement_table(found, circuits, spoken)
        best = -1.0
        for values in product(*GRID.values()):
            settings = dict(zip(GRID, values, strict=True))
            table = agreement_table(found, [c.at(**settings) for c in circuits], spoken)
            if table["ari"][half].mean() > best:
                best, chosen = table["ari"][half].mean(), (settings, table)
        name = ", ".join(f"{key} {value:g}" for key, value in chosen[0].items())
        tables[f"{upstream}, {name}"] = chosen[1]
    for name, table in tables.items():
        for label, which in (
            ("all", half | ~half),
            ("every other, chosen on", half),
            ("the others", ~half),
            ("all but ends of texts", ~ends),
            ("of these the others", ~ends & ~half),
            ("ends of texts", ends),
        ):
            part = table[which]
            good = ((part["ari"] >= 0.7) & (part["noise"] <= LITTLE)).sum()
            print(
                f"| {name} | {label} | {part['ari'].mean():.2f} | {part['ari'].median():.2f} "
                f"| {good} of {len(part)} | {part['ari_clustered'].mean():.2f} "
                f"| {part['noise'].mean():.2f} |",
                flush=True,
            )
    print("\n| feature | roles | shares | F1 of one, of all | " + " | ".join(tables) + " |")
    print("|---|---|---|---|" + "---|" * len(tables))
    first = next(iter(tables.values()))
    for i in np.argsort(-first["ari"].to_numpy()):
        if ends[i]:
            continue
        each = found[i]
        cells = [f"{t['ari'][i]:.2f} ({t['noise'][i]:.0%} noise)" for t in tables.values()]
        shares = ", ".join(f"{share:.0%}" for share in each.shares)
        print(
            f"| {each.site.layer}/{each.index} | {' / '.join(each.roles)} | {shares} "
            f"| {each.one_f1:.2f}, {each.union_f1:.2f} | {' | '.join(cells)} |"
        )


def main() -> None:
    """Print the tables that are asked for."""
    torch.set_num_threads(1)
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    spoken = sentences()
    texts = [sentence.text for sentence in spoken]
    acts = ct.capture(model, transcoders, texts, progress=False)
    if "--roles" in sys.argv:
        roles(model, transcoders, texts, spoken, acts)
    else:
        cost(model, transcoders, texts, acts)


if __name__ == "__main__":
    main()
