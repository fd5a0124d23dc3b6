"""WeightLens: coverage and agreement on the bundled transcoders, and what large models would cost.

Without an argument both parts, `bundled` or `cost` for one. `bundled`: by preset, share of features
with a validated description, permutation null, F1 against the grammar, agreement with activations
on 1,000 held-out texts, and CPU seconds of `describe` for all 6 x 384 features. `cost`: constants
of the formulas in docs/describing_features.md, measured with random matrices on this machine, one
thread, and the figures for Gemma-2-2B that follow from them. Prints rows for RESULTS.md.
"""

import resource
import sys
import time

import torch

import circuit_toolkit as ct
from benchmarks.demo.tokenizer import build_tokenizer
from benchmarks.descriptions.roles import activation_scores, lexical_scores
from circuit_toolkit.models import Batch, load_model, run
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import PRESETS, WeightLens
from circuit_toolkit.weight_lens.candidates import BLOCK, products, row_outliers
from circuit_toolkit.weight_lens.thresholds import thresholds_for

GEMMA = {"V": 256_000, "D": 2304, "L": 26, "F": 16_384, "N": 2.02e9}  # N: weights in blocks
# Average number of active features of the 26 published transcoders, on texts.
GEMMA_L0 = [76, 65, 49, 54, 88, 87, 95, 70, 52, 72, 88, 5, 6, 8, 8, 8, 10, 12, 13, 12, 11, 13, 15]
GEMMA_L0 += [25, 37, 41]
OWN = {"robust": {"theta_token": 4.5, "theta_feature": 4.0}}  # its own are for small vocabularies
PERMUTED = 512
ROW = {"token": 20, "output": 16, "link": 20}  # bytes of a row of each table


def timed(make, repeats=3):
    """Return what `make` gives, and the least CPU seconds that it took."""
    best = float("inf")
    for _ in range(repeats):
        began = time.process_time()
        made = make()
        best = min(best, time.process_time() - began)
    return made, best


def bundled():
    """Print what the presets find in the bundled transcoders."""
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    WeightLens().describe(model, transcoders, progress=False)  # imports
    found = {}
    print("| preset | inherits from | validated by layer | all | candidates | by chance |", end="")
    print(" active by chance | CPU s |\n|---|---|---|---|---|---|---|---|")
    for name in PRESETS:
        for upstream in (None, "all"):
            lens = WeightLens(name, upstream=upstream)
            made, seconds = timed(
                lambda lens=lens: lens.describe(model, transcoders, progress=False)
            )
            used = made.settings["upstream"]
            if (name, used) in found:
                continue
            found[name, used] = made
            table = made.coverage()
            layers = " ".join(f"{share:.2f}" for share in table["validated"])
            print(
                f"| {name} | {used} | {layers} | {table['validated'].mean():.3f} "
                f"| {table['candidates'].mean():.2f} | {table['null_candidates'].mean():.2f} "
                f"| {table['null_own'].mean():.3f} | {seconds:.2f} |"
            )
    print(
        "\n| preset | inherits from | role F1 | several tokens | F1 of these | with classes |",
        end="",
    )
    print(" F1 with the activations' role | that role's F1 | agree | shuffled |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (name, used), made in found.items():
        words = lexical_scores(model, made).iloc[-1]
        fires = activation_scores(model, transcoders, made).iloc[-1]
        print(
            f"| {name} | {used} | {words['f1']:.3f} | {words['several']:.2f} "
            f"| {words['several_f1']:.3f} | {words['class_f1']:.3f} | {fires['role_f1']:.3f} "
            f"| {fires['activation_f1']:.3f} | {fires['agree']:.3f} | {fires['shuffled']:.3f} |"
        )


def constants():
    """Measure rates of products, of z-scores, of reading half precision, and of a pass."""
    torch.manual_seed(0)
    rows, matrix = torch.randn(256, GEMMA["D"]), torch.randn(16_384, GEMMA["D"])
    _, seconds = timed(lambda: rows @ matrix.T)
    rates = {"products": 2 * len(rows) * len(matrix) * GEMMA["D"] / seconds}
    half = matrix.bfloat16()
    _, seconds = timed(lambda: half.float())
    rates["reading"] = half.numel() / seconds
    x = torch.randn(64, GEMMA["V"])
    for name in PRESETS:
        rule = thresholds_for(name, OWN.get(name, {}), 1.0, "gemma2")
        found, seconds = timed(
            lambda rule=rule: row_outliers(
                x, rule.floor_token, rule.pool_tokens, rule.robust, low=True
            )
        )
        rates[f"z of {name}"] = x.numel() / seconds
        rates[f"rows of {name}"] = len(found[0]) / len(x)
        y = x[:, : GEMMA["F"]]
        rows_up = row_outliers(y, rule.floor_feature, rule.pool_features, rule.robust)
        rates[f"links of {name}"] = len(rows_up[0]) / len(y)
    rates["pass"] = pass_rate()
    rates["bytes of a block"] = block_bytes()
    return rates


def block_bytes():
    """Bytes by which memory grows while the outliers of one block are sought, robustly."""
    rows, matrix = torch.randn(BLOCK // GEMMA["V"], 64), torch.randn(GEMMA["V"], 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _, x in products(rows, lambda: matrix.split(7281), GEMMA["V"]):
        row_outliers(x, 3.5, None, True, low=True)
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def pass_rate(width=768, layers=4, prompts=512):
    """Floating-point operations a second of a forward pass of prompts of two tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = build_tokenizer()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"n_positions": 8, "n_embd": width, "n_layer": layers, "n_head": 12}
    config = GPT2Config(vocab_size=len(tokenizer), **size, **ends)
    model = load_model(GPT2LMHeadModel(config).eval(), tokenizer)
    weights = sum(p.numel() for p in model.hf.transformer.h.parameters())
    ids = torch.ones(prompts, 2, dtype=torch.long)
    batch = Batch(ids, torch.ones_like(ids))
    site = Site("resid_post", layers - 1)
    _, seconds = timed(lambda: run(model, batch, [site]))
    return 2 * weights * ids.numel() / seconds


def cost():
    """Print constants, and time, memory and disk for Gemma-2-2B."""
    rates = constants()
    for name, rate in rates.items():
        print(f"{name}: {rate:.3g}")
    V, D, L, F, N = (GEMMA[name] for name in "VDLFN")
    pairs = L * (L - 1) / 2
    null = PERMUTED / F
    blocks = -(-F // (BLOCK // V))
    print("\n| step | formula | amount | CPU h, one thread |\n|---|---|---|---|")
    steps = [
        ("pass of every token", "2 N 2 V", 4 * N * V, rates["pass"]),
        ("features of every token", "2 V D F L", 2 * V * D * F * L, rates["products"]),
        (
            "embeddings",
            "2 V D F L (1 + c / F)",
            2 * V * D * F * L * (1 + null),
            rates["products"],
        ),
        ("outputs", "2 V D F L", 2 * V * D * F * L, rates["products"]),
        (
            "upstream",
            "2 F D F L (L - 1) / 2 (1 + c / F)",
            2 * F * D * F * pairs * (1 + null),
            rates["products"],
        ),
        ("reading embeddings", "V D L blocks", V * D * L * blocks, rates["reading"]),
    ]
    values = V * F * L * (2 + null) + F * F * pairs * (1 + null)
    for step, formula, amount, rate in steps:
        print(f"| {step} | {formula} | {amount:.2e} | {amount / rate / 3600:.1f} |")
    shared = sum(amount / rate for _, _, amount, rate in steps)
    for name in PRESETS:
        seconds = values / rates[f"z of {name}"]
        print(f"| z-scores, {name} | V F L 2 + F F L (L - 1) / 2 | {values:.2e} ", end="")
        print(f"| {seconds / 3600:.1f} (all: {(shared + seconds) / 3600:.1f}) |")
    solo = V * sum(GEMMA_L0) * 8
    print(f"\nsolo activations on disk: 8 V sum(L0) = {solo / 1e9:.1f} GB", end="")
    print(f", of one layer in memory at most {8 * V * max(GEMMA_L0) * 2 / 1e9:.2f} GB (twice)")
    for name in PRESETS:
        tokens = F * L * rates[f"rows of {name}"] * (ROW["token"] + ROW["output"])
        links = F * pairs * rates[f"links of {name}"] * ROW["link"]
        print(f"tables, {name}: tokens {tokens / 1e9:.2f} GB, links {links / 1e9:.2f} GB")
    print(f"unembedding in float32: 4 V D = {V * D * 4 / 1e9:.2f} GB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = {"bundled": bundled, "cost": cost}
    for part in sys.argv[1:] or parts:
        parts[part]()
