"""Train the bundled model from nothing, or print the table of its model card.

`python -m benchmarks.demo.train` repeats the training: seeded, resumable, in under an hour
on two cores. `--evaluate` scores the stored weights on what training never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.demo.tokenizer import SPECIAL, build_tokenizer
from circuit_toolkit.demo.grammar import SHARES, Grammar

HERE = Path(__file__).parent
MODEL_FOLDER = HERE / "model"


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides which weights come out."""

    layers: int = 6
    heads: int = 8
    width: int = 128
    context: int = 64
    steps: int = 6400
    batch: int = 96  # texts a step
    learning_rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 0.05
    seed: int = 0


# A curriculum: from which step on which families occur how often. Copying is the slowest to be
# learnt and most tasks stand on it; for some time it gets half of the texts, then the other
# families come back. The last lesson has names far apart, without which the model did 0.88 of the
# stories whose form it had never seen, and all of the others.
LESSONS = (
    (0, SHARES),
    (
        1760,
        {
            "ioi": 0.15,
            "three_names": 0.02,
            "greater_than": 0.05,
            "docstring": 0.15,
            "agreement": 0.06,
            "bios": 0.05,
            "filler": 0.04,
            "repeated": 0.18,
            "copies": 0.30,
        },
    ),
    (2512, SHARES),
    (
        5264,
        {
            "ioi": 0.14,
            "three_names": 0.05,
            "greater_than": 0.14,
            "docstring": 0.11,
            "agreement": 0.20,
            "bios": 0.06,
            "filler": 0.07,
            "repeated": 0.09,
            "far_ioi": 0.14,
        },
    ),
)
_COSINE_STEPS = 6000  # where the cosine would reach its end; the last lesson begins before
POOL = 16  # batches that are drawn together and sorted by length, so that little is padding


class Corpus:
    """An endless, seeded stream of batches; batch `i` does not depend on those before it."""

    def __init__(self, config: TrainingConfig, vocabulary: dict[str, int]) -> None:
        self.config, self.vocabulary = config, vocabulary
        self._pool: tuple[int, list[list[list[int]]]] = (-1, [])

    def _text(self, grammar: Grammar) -> list[int]:
        """Make one text, or two in a row, with <bos> first and <eos> last."""
        words = [word.text for word in grammar.sentence().words]
        if grammar.rng.random() < 0.4:
            more = [word.text for word in grammar.sentence().words]
            if len(words) + len(more) + 2 <= self.config.context:
                words += more
        return [
            self.vocabulary["<bos>"],
            *(self.vocabulary[word] for word in words),
            self.vocabulary["<eos>"],
        ]

    def batch(self, index: int) -> Tensor:
        """Return token ids (B, T), padded on the right with <pad> = 0."""
        pool, place = divmod(index, POOL)
        if self._pool[0] != pool:
            shares = [shares for start, shares in LESSONS if start <= pool * POOL][-1]
            grammar = Grammar(self.config.seed * 1_000_003 + pool, shares)
            texts = [self._text(grammar) for _ in range(POOL * self.config.batch)]
            texts.sort(key=len)
            size = self.config.batch
            batches = [texts[i : i + size] for i in range(0, len(texts), size)]
            random.Random(pool).shuffle(batches)
            self._pool = (pool, batches)
        rows = self._pool[1][place]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def new_model(config: TrainingConfig, vocabulary: int):
    """Make an untrained GPT-2 of the given shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(config.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=config.context,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            activation_function="gelu_pytorch_tanh",  # "gelu_new", in one step for seven
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=SPECIAL.index("<bos>"),
            eos_token_id=SPECIAL.index("<eos>"),
            pad_token_id=SPECIAL.index("<pad>"),
        )
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, a cosine towards a twentieth, and a rise and fall for the last lesson."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    last = LESSONS[-1][0]
    if step >= last:
        share = (step - last) / max(1, config.steps - last)
        return config.learning_rate * (0.35 - 0.33 * share)
    share = (step - config.warmup) / (_COSINE_STEPS - config.warmup)
    return config.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def train(
    config: TrainingConfig, scratch: Path, log=sys.stderr, checkpoint_every: int = 250
) -> torch.nn.Module:
    """Train, writing checkpoints from which a later call goes on.

    Parameters
    ----------
    config : TrainingConfig
        What to train.
    scratch : Path
        Folder of the checkpoint.
    log : file
        Where progress is written, a line every 50 steps.
    checkpoint_every : int
        Steps between checkpoints.

    Returns
    -------
    torch.nn.Module
        The trained `GPT2LMHeadModel`.
    """
    tokenizer = build_tokenizer()
    corpus = Corpus(config, tokenizer.get_vocab())
    model = new_model(config, len(tokenizer))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=config.weight_decay,
    )
    scratch.mkdir(parents=True, exist_ok=True)
    checkpoint = scratch / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != asdict(config):
            raise SystemExit(f"{checkpoint} is of another configuration: delete it or use its own.")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    began, running = time.monotonic(), float("nan")
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        ids = corpus.batch(step)  # (B, T)
        # No attention mask: padding is on the right and attention causal, so no word sees it.
        logits = model(ids).logits[:, :-1]  # (B, T - 1, V)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            spent = time.monotonic() - began
            left = spent / (step + 1 - start) * (config.steps - step - 1)
            log.write(
                f"step {step + 1}/{config.steps}  loss {running:.4f}  "
                f"{spent / 60:.1f} min spent, {left / 60:.1f} left\n"
            )
            log.flush()
        if (step + 1) % checkpoint_every == 0 or step + 1 == config.steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "config": asdict(config),
            }
            torch.save(state, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)
    return model


def save(model, folder: Path) -> None:
    """Write model and tokenizer as a Hugging Face folder, the weights in half precision."""
    model.half().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def evaluate(as_json: bool, cards: list[Path]) -> None:
    """Score the stored weights, say it, and write it into model cards."""
    from benchmarks.demo.card import tables, update
    from benchmarks.demo.evaluate import evaluate_dictionaries, evaluate_model
    from benchmarks.demo.features_needed import features_needed
    from circuit_toolkit.dictionaries import load_dictionaries
    from circuit_toolkit.models import load_model

    demo = load_model("demo")
    saes = load_dictionaries(demo)
    transcoders = load_dictionaries(demo, kind="transcoder")
    scores = {
        "model": evaluate_model(demo),
        "dictionaries": evaluate_dictionaries(demo, [*saes.values(), *transcoders.values()]),
        "needed": features_needed(demo, saes),
    }
    sys.stdout.write((json.dumps(scores, indent=1) if as_json else tables(scores)) + "\n")
    for card in cards:
        update(card, tables(scores))


def main(argv: list[str] | None = None) -> None:
    """Train, or evaluate the stored weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluate", action="store_true", help="score the stored weights")
    parser.add_argument("--json", action="store_true", help="with --evaluate: print JSON")
    parser.add_argument(
        "--card", type=Path, action="append", default=[], help="with --evaluate: write into a card"
    )
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    parser.add_argument("--out", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--scratch", type=Path, default=Path(".demo-training"))
    args = parser.parse_args(argv)
    if args.evaluate:
        return evaluate(args.json, args.card)
    return save(train(TrainingConfig(steps=args.steps), args.scratch), args.out)


if __name__ == "__main__":
    main()
