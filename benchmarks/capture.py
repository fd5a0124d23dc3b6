"""What reading all layers at batch 32 costs beside plain forward hooks that keep the same tensors.

`python -m benchmarks.capture [MODEL]`: by default a random model of GPT-2 small's shape (12 layers,
width 768; a small vocabulary, since neither way runs the head: both stop after the last block), or
a model that `load_model` finds, on IOI prompts. The two ways take turns in one process, on the same
tokens and with the same threads. Prints a table for RESULTS.md; fails above the budget.
"""

import statistics
import sys
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.models import Batch, Model, load_model, run
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import ioi

BUDGET = 1.1
PROMPTS, TOKENS, REPEATS = 32, 16, 7


class Enough(Exception):
    """Raised by the hook of the last block."""


def build() -> Model:
    """Build the model; its vocabulary is that of the bundled language."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(vocab_size=len(tokenizer), **ends)  # the rest is GPT-2 small's
    return load_model(GPT2LMHeadModel(config), tokenizer)


@torch.no_grad()
def plain_hooks(model: Model, batch: Batch) -> list[torch.Tensor]:
    """Output of every block (B, T, D), by hooks of torch alone."""
    blocks, kept = model.hf.get_submodule(model.architecture.blocks), []

    def keep(module, inputs, output):
        kept.append(output)
        if module is blocks[-1]:
            raise Enough

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        at = (batch.mask.cumsum(1) - 1).clamp(min=0)
        model.hf(input_ids=batch.ids, attention_mask=batch.mask, position_ids=at)
    except Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return kept


def by_run(model: Model, batch: Batch) -> list[torch.Tensor]:
    """Read the same by the toolkit."""
    sites = [Site("resid_post", layer) for layer in range(model.n_layers)]
    return list(run(model, batch, read=sites).values())


def ratio(seconds: dict[str, list[float]], name: str) -> float:
    """Compare one way with plain hooks, turn by turn, which what slows both does not change."""
    pairs = zip(seconds[name], seconds["plain hooks"], strict=True)
    return statistics.median(ours / plain for ours, plain in pairs)


def main() -> int:
    """Measure and print a table for RESULTS.md."""
    if sys.argv[1:]:
        model = load_model(sys.argv[1])
        batch = model.tokenize(ioi(model, n=PROMPTS, seed=0).clean)
    else:
        model = build()
        ids = torch.randint(3, len(model.tokenizer), (PROMPTS, TOKENS))
        batch = Batch(ids, torch.ones_like(ids))
    ways = {"plain hooks": plain_hooks, "run": by_run}
    first, second = (way(model, batch) for way in ways.values())  # these warm up, too
    assert len(first) == model.n_layers and all(map(torch.equal, first, second)), "not the same"
    wall = {name: [] for name in ways}
    cpu = {name: [] for name in ways}  # of all threads: other work on the machine adds nothing
    for turn in range(REPEATS):
        for name in sorted(ways, reverse=bool(turn % 2)):
            began, used = time.perf_counter(), time.process_time()
            ways[name](model, batch)
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - used)
    shape = " x ".join(map(str, batch.ids.shape))
    print(f"| {len(first)} x resid_post, {shape} tokens | s | ratio | CPU s | ratio |")
    print("|---|---|---|---|---|")
    for name in ways:
        row = [statistics.median(wall[name]), ratio(wall, name)]
        row += [statistics.median(cpu[name]), ratio(cpu, name)]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    print(
        f"\nMedians of {REPEATS} turns, ratios within a turn; {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; budget {BUDGET}"
    )
    return int(ratio(wall, "run") > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
