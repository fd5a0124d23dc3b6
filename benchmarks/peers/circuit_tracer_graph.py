"""The attribution graph of a prompt by circuit-tracer, in an environment of its own.

    ENVIRONMENT/bin/python benchmarks/peers/circuit_tracer_graph.py FOLDER JOB.json OUT.npz

FOLDER holds a GPT-2 and its transcoders, as `benchmarks.peers.exported` writes them. The job says
`ids`, `max_features` (null: all), `batch_size`, `update_interval` (batches between two rankings),
`thresholds` (pairs for nodes and edges), `threads` and `repeats`. What is written is read by
`benchmarks.peers.graphs`.
"""

import json
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from circuit_tracer import Graph, attribute
from circuit_tracer.graph import compute_graph_scores, prune_graph
from circuit_tracer.replacement_model.replacement_model_transformerlens import (
    TransformerLensReplacementModel,
)
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    TranscoderSet,
)
from process import timed
from safetensors.torch import load_file
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

FEATURE, ERROR, TOKEN, TARGET = range(4)


def lens_config(config: GPT2Config) -> HookedTransformerConfig:
    """Return what TransformerLens wants to know of a GPT-2."""
    return HookedTransformerConfig(
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_ctx=config.n_positions,
        n_heads=config.n_head,
        d_head=config.n_embd // config.n_head,
        d_mlp=config.n_inner or 4 * config.n_embd,
        d_vocab=config.vocab_size,
        act_fn="gelu_new",  # GPT-2's tanh approximation
        eps=config.layer_norm_epsilon,
        normalization_type="LN",
        model_name="gpt2",
        original_architecture="GPT2LMHeadModel",
        init_weights=False,
        device="cpu",
    )


def transcoders(folder: Path) -> TranscoderSet:
    """Return circuit-tracer's transcoders with the weights of a folder."""
    found = {}
    for path in folder.glob("transcoder-*.safetensors"):
        weights = load_file(path)
        n_features, width = weights["W_enc"].shape
        layer = int(path.stem.rpartition("-")[2])
        found[layer] = SingleLayerTranscoder(
            width,
            n_features,
            JumpReLU(weights["activation_function.threshold"].clone()),
            layer,
            dtype=torch.float32,
        )
        found[layer].load_state_dict(weights)
    sites = json.loads((folder / "sites.json").read_text())
    return TranscoderSet(found, sites["reads"], sites["writes"])


def replacement_model(folder: Path) -> TransformerLensReplacementModel:
    """Return the model of a folder as circuit-tracer runs it; no weights are processed."""
    config = GPT2Config.from_json_file(folder / "config.json")
    hf = GPT2LMHeadModel(config)
    missing = hf.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert set(missing.missing_keys) <= {"lm_head.weight"} and not missing.unexpected_keys
    hf.tie_weights()
    lens = lens_config(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = TransformerLensReplacementModel.from_config(lens, transcoders(folder))
    weights = {
        name.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed."): value
        for name, value in convert_gpt2_weights(hf, lens).items()
    }
    weights["unembed.old_unembed.b_U"] = torch.zeros(config.vocab_size)
    own = {name: x for name, x in model.state_dict().items() if name not in weights}
    assert all(name.startswith("transcoders.") or ".attn." in name for name in own)  # its masks
    model.load_state_dict(weights | own)
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<bos>"
    )
    return model.eval()


def keys(graph: Graph) -> np.ndarray:
    """Kind, layer, position and index of each node, in the order of the matrix, shape (n, 4)."""
    n_layers, n_tokens = graph.cfg.n_layers, len(graph.input_tokens)
    chosen = graph.active_features[graph.selected_features].numpy()
    ids = np.asarray(graph.input_tokens)
    targets = [target.vocab_idx for target in graph.logit_targets]
    return np.concatenate(
        [
            np.column_stack([np.full(len(chosen), FEATURE), chosen]),
            [[ERROR, layer, t, 0] for layer in range(n_layers) for t in range(n_tokens)],
            [[TOKEN, 0, t, token] for t, token in enumerate(ids)],
            [[TARGET, n_layers, n_tokens - 1, token] for token in targets],
        ]
    ).astype(np.int64)


def main(folder: str, job_file: str, out: str) -> None:
    """Run one job, and write the graph with what it cost."""
    job = json.loads(Path(job_file).read_text())
    torch.set_num_threads(job["threads"])
    model = replacement_model(Path(folder))
    ids = torch.tensor(job["ids"])
    graph, costs = timed(
        lambda: attribute(
            ids,
            model,
            max_feature_nodes=job["max_features"],
            batch_size=job["batch_size"],
            update_interval=job["update_interval"],
        ),
        job["repeats"],
    )
    arrays = {}
    with torch.no_grad():
        arrays["logits"] = model(ids[None])[0, -1].numpy()
        prune = {}
        for i, pair in enumerate(job["thresholds"]):
            pruned, prune[str(i)] = timed(partial(prune_graph, graph, *pair), 1)
            arrays[f"nodes_{i}"] = pruned.node_mask.numpy()
            arrays[f"edges_{i}"] = np.argwhere(pruned.edge_mask.numpy())
        scores, scoring = timed(lambda: compute_graph_scores(graph), 1)
    matrix = graph.adjacency_matrix.numpy()
    rows, columns = matrix.nonzero()
    arrays |= {
        "keys": keys(graph),
        "rows": rows,
        "columns": columns,
        "weights": matrix[rows, columns],
        "activations": graph.activation_values[graph.selected_features].detach().numpy(),
        "n_active": np.array(len(graph.active_features)),
        "probabilities": graph.logit_probabilities.detach().numpy(),
        "scores": np.array(scores),
    }
    says = {"attribute": costs, "prune": prune, "score": scoring}
    np.savez(out, costs=json.dumps(says), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
