"""Train transformers to be programs: `python -m benchmarks.known_circuits.train FOLDER --seeds 0`.

Strict interchange intervention training (Gupta et al., 2024, arXiv 2407.14494), as one loss: the
output is right, right where a component of the program is that of another prompt (the program says
what that gives), and the same where components outside of it are. Three models a program are
written: `early/SEED` as soon as 99.5 % of all three are right on single components, `full/SEED`
after all steps, and `loose/SEED`, trained with one component outside at a time, as InterpBench's
recipe does, and no gradient through what is swapped in, until then: components that are harmless
one by one may act together, so it is least clean. The folders are those of `read_cases`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from benchmarks.known_circuits.programs import (
    LENGTH,
    OUTPUT,
    TOKENS,
    Program,
    random_program,
    sampled_tokens,
    universe,
)

WIDTH, D_HEAD, D_MLP = 20, 5, 64
ROWS, STEPS, RATE = 64, 2000, 4e-3
ENOUGH = 0.995


class Net(nn.Module):
    """A transformer without norms whose components can be those of another run."""

    def __init__(self, n_layers: int, n_heads: int, outputs: int):
        super().__init__()
        self.n_heads, self.n_layers = n_heads, n_layers
        sizes = {
            "embed.W_E": (TOKENS + 1, WIDTH),
            "pos_embed.W_pos": (LENGTH + 1, WIDTH),
            "unembed.W_U": (WIDTH, outputs),
            "unembed.b_U": (outputs,),
        }
        for i in range(n_layers):
            for letter in "QKV":
                sizes[f"blocks.{i}.attn.W_{letter}"] = (n_heads, WIDTH, D_HEAD)
                sizes[f"blocks.{i}.attn.b_{letter}"] = (n_heads, D_HEAD)
            sizes |= {
                f"blocks.{i}.attn.W_O": (n_heads, D_HEAD, WIDTH),
                f"blocks.{i}.attn.b_O": (WIDTH,),
                f"blocks.{i}.mlp.W_in": (WIDTH, D_MLP),
                f"blocks.{i}.mlp.b_in": (D_MLP,),
                f"blocks.{i}.mlp.W_out": (D_MLP, WIDTH),
                f"blocks.{i}.mlp.b_out": (WIDTH,),
            }
        self.names = list(sizes)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.zeros(s) if ".b_" in n else torch.randn(s) * s[-2] ** -0.5)
            for n, s in sizes.items()
        )

    def tensors(self) -> dict[str, Tensor]:
        """Weights by name."""
        return dict(zip(self.names, self.weights, strict=True))

    def forward(
        self, tokens: Tensor, theirs: dict[str, Tensor] | None = None, swapped: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return logits (n, T, outputs), and what heads (before W_O) and MLPs put out.

        Where `swapped` (n, components) is true, a component puts out what it does in `theirs`.
        """
        W = self.tensors()
        ids = torch.cat([torch.zeros_like(tokens[:, :1]), tokens + 1], 1)
        x, out = W["embed.W_E"][ids] + W["pos_embed.W_pos"], {}
        hidden = torch.full((LENGTH + 1, LENGTH + 1), -1e9).triu(1)
        for i in range(self.n_layers):
            q, k, v = (
                torch.einsum("btd,hde->bhte", x, W[f"blocks.{i}.attn.W_{c}"])
                + W[f"blocks.{i}.attn.b_{c}"][:, None]
                for c in "QKV"
            )
            z = (q @ k.transpose(2, 3) * D_HEAD**-0.5 + hidden).softmax(-1) @ v  # (n, H, T, e)
            first = i * (self.n_heads + 1)
            if theirs is not None and swapped is not None:
                mask = swapped[:, first : first + self.n_heads, None, None]
                z = torch.where(mask, theirs[f"a{i}"], z)
            out[f"a{i}"] = z
            x = x + torch.einsum("bhte,hed->btd", z, W[f"blocks.{i}.attn.W_O"])
            x = x + W[f"blocks.{i}.attn.b_O"]
            inner = gelu(x @ W[f"blocks.{i}.mlp.W_in"] + W[f"blocks.{i}.mlp.b_in"])
            y = inner @ W[f"blocks.{i}.mlp.W_out"] + W[f"blocks.{i}.mlp.b_out"]
            if theirs is not None and swapped is not None:
                y = torch.where(swapped[:, first + self.n_heads, None, None], theirs[f"m{i}"], y)
            out[f"m{i}"] = y
            x = x + y
        return (x @ W["unembed.W_U"] + W["unembed.b_U"])[:, 1:], out


def components(program: Program) -> list[str]:
    """Names in the order of `Net`'s swaps."""
    heads = range(program.n_heads)
    layers = range(program.n_layers)
    return [name for i in layers for name in (*(f"a{i}.h{h}" for h in heads), f"m{i}")]


def swaps(program: Program, n: int, rng: torch.Generator, single: bool) -> tuple[Tensor, Tensor]:
    """Draw for n rows one component of the program each, and some (or one) outside of it."""
    names = components(program)
    inside = torch.tensor([name in {v.place for v in program.variables} for name in names])
    one = torch.multinomial(inside.float().expand(n, -1), 1, generator=rng)
    other = torch.multinomial((~inside).float().expand(n, -1), 1, generator=rng)
    ours = torch.zeros(n, len(names), dtype=torch.bool).scatter(1, one, True)
    rest = torch.zeros(n, len(names), dtype=torch.bool).scatter(1, other, True)
    if not single:
        share = torch.rand(n, 1, generator=rng)
        rest |= (torch.rand(n, len(names), generator=rng) < share) & ~inside
    return ours, rest


def counterfactual(program: Program, base: Tensor, source: Tensor, ours: Tensor) -> Tensor:
    """Return outputs (n, T) where one variable of every row is that of the source."""
    theirs, labels = program.run(source), program.run(base)[OUTPUT].clone()
    for i, name in enumerate(components(program)):
        rows = ours[:, i]
        if rows.any():
            got = program.run(base[rows], {name: theirs[name][rows]})
            labels[rows] = got[OUTPUT]
    return labels


def right(logits: Tensor, labels: Tensor) -> float:
    """Share of right outputs."""
    if labels.is_floating_point():
        return float(((logits[..., 0] - labels).abs() < 0.05).float().mean())
    return float((logits.argmax(-1) == labels).float().mean())


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of outputs."""
    if labels.is_floating_point():
        return 10 * (logits[..., 0] - labels).square().mean()
    return cross_entropy(logits.flatten(0, 1), labels.flatten())


def trained(program: Program, seed: int, loose: bool, steps: int = STEPS):
    """Yield the model with its scores when it is first right enough, and (not loose) at the end."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    output = program.variables[-1]
    net = Net(program.n_layers, program.n_heads, output.size or 1)
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.9, 0.99))
    early = None
    for step in range(steps):
        warm, left = min(1.0, step / 100), max(0.02, 1 - step / steps)
        optimiser.param_groups[0]["lr"] = RATE * warm * left
        tokens = torch.randint(TOKENS, (2 * ROWS, LENGTH), generator=rng)
        base, source = tokens.split(ROWS)
        ours, rest = swaps(program, ROWS, rng, single=loose)
        plain, theirs = net(source)
        if loose:
            theirs = {name: x.detach() for name, x in theirs.items()}
        both, _ = net(
            torch.cat([base, base]),
            {name: torch.cat([x, x]) for name, x in theirs.items()},
            torch.cat([ours, rest]),
        )
        labels = torch.cat([counterfactual(program, base, source, ours), program.run(base)[OUTPUT]])
        changed, same = both.split(ROWS)
        loss = loss_of(changed, labels[:ROWS]) + loss_of(same, labels[ROWS:])
        loss = loss + 0.5 * loss_of(plain, program.run(source)[OUTPUT])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        if early is None and step % 100 == 99:
            early = scores(program, net)
            if min(early[key] for key in ("accuracy", "IIA", "SIIA")) >= ENOUGH:
                yield "loose" if loose else "early", net, early | {"steps": step + 1}
                if loose:
                    return
            else:
                early = None
    yield "loose" if loose else "full", net, scores(program, net) | {"steps": steps}


@torch.no_grad()
def scores(program: Program, net: Net) -> dict[str, float]:
    """Return the shares of right outputs: plain, interchanged, and resampled outside."""
    base, source = sampled_tokens(1000, 3), sampled_tokens(1000, 4)
    rng = torch.Generator().manual_seed(0)
    truth = program.run(base)[OUTPUT]
    plain, (_, theirs) = net(base)[0], net(source)
    found = {"accuracy": right(plain, truth)}
    ours, rest = swaps(program, len(base), rng, single=True)
    found["IIA"] = right(net(base, theirs, ours)[0], counterfactual(program, base, source, ours))
    found["SIIA"] = right(net(base, theirs, rest)[0], truth)
    inside = {v.place for v in program.variables}
    outside = torch.tensor([name not in inside for name in components(program)])
    found["SIIA_all"] = right(net(base, theirs, outside.expand(len(base), -1))[0], truth)
    return found


def write(folder: Path, program: Program, net: Net, made: dict) -> None:
    """Write a case as `read_cases` reads it."""
    folder.mkdir(parents=True)
    save_file(
        {k: v.detach().clone() for k, v in net.tensors().items()}, folder / "model.safetensors"
    )
    output = program.variables[-1]
    config = {
        "n_layers": program.n_layers, "n_heads": program.n_heads, "d_model": WIDTH,
        "d_head": D_HEAD, "d_mlp": D_MLP, "n_ctx": LENGTH + 1, "d_vocab": TOKENS + 1,
        "d_vocab_out": output.size or 1, "act_fn": "gelu", "causal": True,
        "input_vocab": ["BOS", *map(str, range(TOKENS))], "bos_id": 0,
        "output_type": "categorical" if output.size else "numerical",
        "scored_positions": [1, LENGTH],
        "circuit": {
            "edges": program.edges, "universe_edges": universe(program.n_layers, program.n_heads)
        },
        "program": {v.place: [v.kind, *v.parents] for v in program.variables},
        "training": made,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    data = {}
    for name, seed in (("clean", 42), ("corrupted", 43)):
        tokens = sampled_tokens(2000, seed)
        labels = program.run(tokens)[OUTPUT]
        data[name] = np.pad(tokens.numpy() + 1, ((0, 0), (1, 0))).astype(np.int16)
        data[f"{name}_labels"] = np.pad(labels.numpy(), ((0, 0), (1, 0)))
    np.savez_compressed(folder / "data.npz", **data)


def main() -> None:
    """Train the programs of some seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--loose", action="store_true", help="one component outside at a time")
    parser.add_argument("--chain", action="store_true", help="small programs in place of branches")
    args = parser.parse_args()
    for seed in args.seeds:
        program, began = random_program(seed, args.chain), time.perf_counter()
        for name, net, made in trained(program, seed, args.loose):
            good = min(made[key] for key in ("accuracy", "IIA", "SIIA")) >= ENOUGH
            made["seconds"] = time.perf_counter() - began
            print(seed, name, len(program.edges), {k: round(v, 4) for k, v in made.items()}, good)
            if good:
                write(
                    args.folder / f"{name}{'_chain' * args.chain}" / str(seed), program, net, made
                )


if __name__ == "__main__":
    main()
