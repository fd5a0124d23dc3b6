"""What steps cost on models of four sizes: CPU seconds a token beside the parameters of the blocks.

`OMP_NUM_THREADS=1 python -m benchmarks.model_sizes`: SmolLM2-135M and Gemma-3-270M with their
weights, and models of the forms of SmolLM2-360M and Llama-3.2-1B with random ones, which cost the
same. IOI prompts; dictionaries are random, with eight times the width in features, 32 of them
active, at four sites. An exponent is fitted on the three smaller models; the largest says how far
off it is. The packages of the two models must be installed (`make real`). Prints tables for
RESULTS.md, from which `docs/scaling.md` estimates larger models.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import bind_dictionary
from circuit_toolkit.models import LOGITS, run

PROMPTS, TURNS, SITES, WIDER, ACTIVE = 16, 2, 4, 8, 32
QUIET = {"progress": False}
FORMS = {  # from the configurations that are published with the models
    "form of SmolLM2-360M": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
    "form of Llama-3.2-1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}


def random_model(form: dict[str, int], like: ct.Model) -> ct.Model:
    """Make a random model of a form, with the tokenizer of another one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **form, vocab_size=like.config.vocab_size, tie_word_embeddings=True, use_cache=False
    )
    return ct.load_model(LlamaForCausalLM(config).eval(), like.tokenizer)


def dictionaries(model: ct.Model) -> dict[ct.Site, Any]:
    """Make random top-k autoencoders at four sites."""
    from sae_lens import TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    found = {}
    for layer in np.linspace(1, model.n_layers - 2, SITES).astype(int).tolist():
        site = ct.Site("resid_post", layer)
        about = SAEMetadata(hook_name=str(site), model_from_pretrained_kwargs={}, prepend_bos=False)
        n = WIDER * model.width
        config = TopKSAEConfig(d_in=model.width, d_sae=n, k=ACTIVE, metadata=about)
        found[site] = bind_dictionary(model, TopKSAE(config), check_model=False)
    return found


def block_parameters(model: ct.Model) -> int:
    """Count the parameters that each token passes through: not the embeddings."""
    embedding = model.hf.get_input_embeddings().weight
    head = model.hf.get_output_embeddings().weight
    tables = {id(each): each.numel() for each in (embedding, head)}
    return sum(each.numel() for each in model.hf.parameters()) - sum(tables.values())


def steps(model: ct.Model) -> tuple[int, dict[str, Callable[[], Any]]]:
    """Count the tokens, and name the steps."""
    task, saes = ct.tasks.ioi(model, n=PROMPTS, seed=0), dictionaries(model)
    batch = model.tokenize(task.clean)
    few = {"n_prompts": PROMPTS, **QUIET}
    return int(batch.mask.sum()), {
        "forward": lambda: run(model, batch, [LOGITS], last_logits=True),
        "`capture`, four sites": lambda: ct.capture(model, saes, task.clean, **QUIET),
        "`eap`": lambda: ct.eap(model, task, **few),
    }


def measured(call: Callable[[], Any]) -> float:
    """CPU seconds, the median of some turns after one to warm up."""
    call()
    found = []
    for _ in range(TURNS):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return statistics.median(found)


def main() -> int:
    """Measure and print."""
    small = ct.load_model("smollm2")
    models: dict[str, Callable[[], ct.Model]] = {
        "SmolLM2-135M": lambda: small,
        "Gemma-3-270M": lambda: ct.load_model("gemma3-270m"),
        **{name: lambda form=form: random_model(form, small) for name, form in FORMS.items()},
    }
    sizes, seconds = [], {}
    for name, load in models.items():
        model = load()
        n, calls = steps(model)
        sizes.append(block_parameters(model))
        for step, call in calls.items():
            seconds.setdefault(step, []).append(1000 * measured(call) / n)
            print(f"{name}, {step}: {seconds[step][-1]:.1f}", file=sys.stderr, flush=True)
        del model, calls

    print("| CPU s for 1,000 tokens | " + " | ".join(models) + " | exponent | said of the last |")
    print("|---|" + "---:|" * (len(models) + 2))
    print("| parameters in blocks, M | " + " | ".join(f"{n / 1e6:.0f}" for n in sizes) + " | | |")
    for step, found in seconds.items():
        slope, level = np.polyfit(np.log(sizes[:-1]), np.log(found[:-1]), 1)
        said = float(np.exp(level + slope * np.log(sizes[-1])))
        row = [*(f"{each:.1f}" for each in found), f"{slope:.2f}", f"{said / found[-1]:.2f}"]
        print(f"| {step} | " + " | ".join(row) + " |")
    speed = [2 * n * 1000 / each / 1e9 for n, each in zip(sizes, seconds["forward"], strict=True)]
    print("| GFLOP/s of forward | " + " | ".join(f"{each:.0f}" for each in speed) + " | | |")
    print(f"\n{torch.get_num_threads()} thread, torch {torch.__version__}, float32")
    return 0


if __name__ == "__main__":
    sys.exit(main())
