"""Time and most memory of each step on a real model, and what `estimate_capture` says of it.

`python -m benchmarks.real_steps [MODEL] [STEP ...]`: every step in a process of its own, on IOI;
needs the package of the model, and for features its dictionaries (`make real`). Prints rows for
RESULTS.md. Memory is that of the whole process, with the libraries and the model.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

import circuit_toolkit as ct

PROMPTS = 64
QUIET = {"progress": False}


def load(model) -> str:
    """Do nothing more than load the model."""
    return f"{model.n_layers} layers"


def capture(model, kind="sae", batch_size=32) -> str:
    """Capture features of six sites, then estimate that; two prompts before, to warm up."""
    saes = ct.load_dictionaries(model, kind=kind)
    task = ct.tasks.ioi(model, n=4 * batch_size, seed=0)
    ct.capture(model, saes, task.subset(2), **QUIET)
    Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is that of now
    before, began, used = held("VmRSS"), time.perf_counter(), time.process_time()
    acts = ct.capture(model, saes, task, batch_size=batch_size, **QUIET)
    took, used = time.perf_counter() - began, time.process_time() - used
    more = held("VmHWM") - before
    said = ct.estimate_capture(model, saes, task, batch_size=batch_size, **QUIET)
    return (
        f"{len(acts.prompt)} rows of {len(saes)} sites; took {took:.1f} s ({used:.1f} of the CPU) "
        f"and {more:.3f} GiB, estimated {said.seconds:.1f} s and {said.memory / 2**30:.3f} GiB"
    )


def capture_many(model) -> str:
    """Capture with 128 prompts in a batch."""
    return capture(model, batch_size=128)


def capture_mlps(model) -> str:
    """Capture features of six MLPs."""
    return capture(model, "transcoder", batch_size=64)


def find_circuit(model) -> str:
    """Find and test the default circuit of features."""
    saes = ct.load_dictionaries(model)
    task, held_out = (ct.tasks.ioi(model, n=PROMPTS, seed=i, test=bool(i)) for i in (0, 1))
    return repr(ct.find_circuit(model, saes, task, held_out, **QUIET))


def lasso(model) -> str:
    """Fit CircuitLasso on random ablations of features at two sites."""
    saes = ct.load_dictionaries(model, sites=["resid_post 18", "resid_post 20"])
    task = ct.tasks.ioi(model, n=PROMPTS, seed=0)
    acts = ct.capture(model, saes, task, "last", **QUIET)
    return repr(ct.CircuitLasso().fit(acts, task, model=model, dictionaries=saes, **QUIET))


def feature_attribution(model) -> str:
    """Learn a circuit over the features of six sites from gradients."""
    saes, task = ct.load_dictionaries(model), ct.tasks.ioi(model, n=PROMPTS, seed=0)
    return repr(ct.feature_attribution(model, saes, task, **QUIET))


def find_heads(model) -> str:
    """Find and test a circuit of heads on 8 prompts."""
    task = ct.tasks.ioi(model, n=8, seed=0)
    return repr(ct.find_heads(model, task, max_heads=24, **QUIET))


def edge_attribution(model) -> str:
    """Score all edges by gradients on 32 prompts: EAP."""
    return repr(ct.eap(model, ct.tasks.ioi(model, n=32, seed=0), **QUIET))


def edge_attribution_ig(model) -> str:
    """Score all edges by integrated gradients on 32 prompts: EAP-IG, 5 steps."""
    return repr(ct.eap_ig(model, ct.tasks.ioi(model, n=32, seed=0), **QUIET))


def gim(model) -> str:
    """Score all edges by GIM on 32 prompts."""
    from circuit_toolkit.attribution.gradient_interactions import gim

    return repr(gim(model, ct.tasks.ioi(model, n=32, seed=0), **QUIET))


def graph(model) -> str:
    """Draw the attribution graph of one prompt."""
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    prompt = ct.tasks.ioi(model, n=1, seed=0)
    return repr(ct.attribution_graph(model, transcoders, prompt, **QUIET))


def describe(model) -> str:
    """Describe the features of all transcoders by weights alone."""
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    return repr(ct.WeightLens("paper").describe(model, transcoders, **QUIET))


STEPS = {
    each.__name__: each
    for each in (
        *(
            load,
            capture,
            capture_many,
            capture_mlps,
            find_circuit,
            lasso,
            feature_attribution,
            find_heads,
        ),
        *(edge_attribution, edge_attribution_ig, gim, graph, describe),
    )
}


def held(field: str) -> float:
    """Return memory of this process (VmRSS) or the most since it was last set (VmHWM), in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def peak() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print a row for each step; with one step of `--in-here`, run it in this process."""
    if sys.argv[1:2] == ["--in-here"]:
        name, step = sys.argv[2:]
        torch.set_num_threads(1)
        model = ct.load_model(name)
        began, used = time.perf_counter(), time.process_time()
        said = STEPS[step](model)
        took, used = time.perf_counter() - began, time.process_time() - used
        said = " ".join(said.split()).replace("|", "/")
        print(f"| {step} | {took:.1f} | {used:.1f} | {peak():.1f} | {said} |", flush=True)
        return
    name, *steps = sys.argv[1:] or ["smollm2"]
    print("| step | s | CPU s | GiB at most | what it gave |\n|---|---|---|---|---|", flush=True)
    for step in steps or STEPS:
        here = [sys.executable, "-m", "benchmarks.real_steps", "--in-here", name, step]
        subprocess.run(here, check=False)


if __name__ == "__main__":
    main()
