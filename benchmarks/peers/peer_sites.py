"""There alone: activations by interp-engine's points or nnterp's accessors.

`python peer_sites.py interp-engine|nnterp FOLDER OUT` reads `ids` (B, T) from FOLDER/ids.pt, writes
a table of tensors by our names of sites. What a peer refuses is printed with its reason.
"""

import sys
from pathlib import Path

import torch

POINTS = {  # our kind: interp-engine's points, of which the first that there is counts
    "resid_pre": ("resid_pre",),
    "attn_pattern": ("attn_probs",),
    "attn_z": ("z",),
    "attn_out": ("attn_out_post", "attn_out"),
    "resid_mid": ("resid_mid",),
    "mlp_norm": ("mlp_in",),
    "mlp_out": ("mlp_out_post", "mlp_out"),
    "resid_post": ("resid_post",),
}
ACCESSORS = {  # our kind: nnterp's, which know outputs of modules: norms behind them are not in it
    "resid_pre": "layers_input",
    "attn_pattern": "attention_probabilities",
    "attn_out": "attentions_output",
    "mlp_norm": "mlps_input",
    "mlp_out": "mlps_output",
    "resid_post": "layers_output",
}


def by_interp_engine(folder: str, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Capture each point by itself, so that one that is refused stops no other."""
    from interp_engine import Address, capture, load_model

    model = load_model(folder, backend="eager", device="cpu", dtype="float32")
    layers = model.model.config.num_hidden_layers if hasattr(model, "model") else None
    layers = layers or model.n_layers
    found = {}

    def take(name: str, points: tuple[str, ...], layer: int | None) -> None:
        reasons = []
        for point in points:
            try:
                address = Address(point, layer)
                found[name] = capture(model, ids, [address])[address].detach().clone()
                return
            except Exception as error:  # a peer may raise anything: its reason is what is asked
                reasons.append(f"{point}: {type(error).__name__} {str(error).splitlines()[0]}")
        print(f"refused {name} | {'; '.join(reasons)}")

    take("logits", ("lm_head",), None)
    for layer in range(layers):
        for kind, points in POINTS.items():
            take(f"{kind} {layer}", points, layer)
    return found


def by_nnterp(folder: str, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Trace once for each accessor."""
    from nnterp import StandardizedTransformer

    how: dict = {"device_map": "cpu", "dtype": torch.float32}
    try:
        model = StandardizedTransformer(folder, enable_attention_probs=True, **how)
    except Exception as error:  # it tries them when it loads
        print(f"refused attn_pattern | {type(error).__name__} {str(error).splitlines()[-1]}")
        model = StandardizedTransformer(folder, **how)
    found = {}
    for layer in range(model.num_layers):
        for kind, accessor in ACCESSORS.items():
            name = f"{kind} {layer}"
            try:
                with model.trace({"input_ids": ids}):
                    value = getattr(model, accessor)[layer].save()
                found[name] = value.detach().clone()
            except Exception as error:
                print(f"refused {name} | {type(error).__name__} {str(error).splitlines()[-1]}")
    with model.trace({"input_ids": ids}):
        logits = model.logits.save()
    return found | {"logits": logits.detach().clone()}


if __name__ == "__main__":
    peer, folder, out = sys.argv[1:]
    ids = torch.load(Path(folder) / "ids.pt", weights_only=True)
    tables = {"interp-engine": by_interp_engine, "nnterp": by_nnterp}
    with torch.no_grad():
        torch.save(tables[peer](folder, ids), out)
