"""InterpBench's own files (Gupta et al., 2024, arXiv 2407.14494), as they lie on the hub.

A folder holds `ll_model.pth` (weights), `ll_model_cfg.pkl` (settings) and `edges.pkl` (the true
edges), and no prompts. The weights are loaded as weights only; the other two are pickles, which
could run code, so they are read by an unpickler that knows plain values and nothing else.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from circuit_toolkit.benchmark.interpbench.case_prompts import CasePrompts
from circuit_toolkit.benchmark.interpbench.cases import KnownCase, case_model
from circuit_toolkit.benchmark.interpbench.files import Edge, check_edges
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models.components import run_components
from circuit_toolkit.models.graph import EMBED, OUTPUT, Graph, graph_of

WEIGHTS, SETTINGS, EDGES = "ll_model.pth", "ll_model_cfg.pkl", "edges.pkl"
_HEAD = re.compile(
    r"blocks\.(\d+)\.(?:attn\.hook_(?:result|z|q|k|v)|hook_(?:q|k|v)_input)\[(\d+)\]"
)
_DAMAGE = (  # what reading a damaged pickle raises
    pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError, KeyError,
    MemoryError, OverflowError, TypeError, ValueError,
)  # fmt: skip
_MLP = re.compile(r"blocks\.(\d+)\.(?:hook_mlp_(?:in|out)|mlp\.hook_(?:pre|post))")


def read_interpbench(
    folder: str | Path,
    clean: np.ndarray | Sequence[Sequence[int]],
    corrupted: np.ndarray | Sequence[Sequence[int]],
    *,
    scored: tuple[int, int] | None = None,
    act_fn: str | None = None,
    causal: bool | None = None,
) -> KnownCase:
    """Read a model of InterpBench and its circuit."""
    folder = resolved(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}.")
    needs = [WEIGHTS, EDGES] + [SETTINGS] * (act_fn is None or causal is None)
    missing = [name for name in needs if not (folder / name).is_file()]
    if missing:
        raise FileFormatError(f"{str(folder)!r} is no model of InterpBench: no {missing[0]}.")
    settings = _settings(folder / SETTINGS) if SETTINGS in needs else {}
    act_fn = settings.get("act_fn") if act_fn is None else act_fn
    is_causal = settings.get("attention_dir") == "causal" if causal is None else causal
    try:
        tensors = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise FileFormatError(
            f"{str(folder / WEIGHTS)!r} is damaged, or holds more than weights, which is not "
            "loaded."
        ) from error
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise FileFormatError(f"{str(folder / WEIGHTS)!r} holds no weights by name.")
    name = "/".join(folder.resolve().parts[-2:])
    size = len(tensors["embed.W_E"]) if "embed.W_E" in tensors else 1
    model = case_model(
        tensors, name, act_fn=str(act_fn), causal=is_causal, vocabulary=range(size), bos=0
    )
    graph = graph_of(model)
    universe = [edge for edge in graph.edges if edge != (EMBED, OUTPUT)]
    true = _true_edges(_plain(folder / EDGES), graph, folder / EDGES)
    counted, true = check_edges(graph, universe, true, folder / EDGES)
    prompts = [_token_ids(ids) for ids in (clean, corrupted)]
    if prompts[0].shape != prompts[1].shape:
        raise MismatchError(
            f"clean and corrupted must be of one shape, got {prompts[0].shape} and "
            f"{prompts[1].shape}."
        )
    rows = [tuple(map(tuple, ids.tolist())) for ids in prompts]
    logits = [run_components(model, model.tokenize(row)).logits for row in rows]
    labels = [x[..., 0] if x.shape[-1] == 1 else x.argmax(-1) for x in logits]
    first, last = scored or (1, prompts[0].shape[1] - 1)
    if not 0 <= first <= last < prompts[0].shape[1]:
        raise MismatchError(f"scored = {scored} is not within {prompts[0].shape[1]} positions.")
    task = CasePrompts(name, rows[0], rows[1], labels[0], labels[1], first, last)
    return KnownCase(name, model, task, counted, true, settings)


def _token_ids(ids: Any) -> np.ndarray:
    found = np.asarray(ids)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not found.size:
        raise InputError(
            f"Prompts must be token ids of shape (n, T), got {found.dtype} of shape {found.shape}."
        )
    return found


def _settings(path: Path) -> dict[str, Any]:
    found = _plain(path)
    if not isinstance(found, dict) or not isinstance(found.get("act_fn"), str):
        raise FileFormatError(f"{str(path)!r} holds no settings. Pass act_fn= and causal=.")
    if found.get("normalization_type") not in (None, "LN"):
        raise FileFormatError(
            f"{str(path)!r}: models with norms of type {found['normalization_type']!r} are not "
            "read, only those with LayerNorm or without."
        )
    return {str(key): value for key, value in found.items()}


def _true_edges(found: Any, graph: Graph, path: Path) -> list[Edge]:
    """Merge the benchmark's hook points to components; what runs inside of one is no edge."""
    if not isinstance(found, list | set | tuple):
        raise FileFormatError(f"{str(path)!r} holds no list of edges.")
    edges = []
    for pair in found:
        if not (
            isinstance(pair, list | tuple) and len(pair) == 2 and all(type(x) is str for x in pair)
        ):
            raise FileFormatError(f"{str(path)!r}: {pair!r:.60} is no pair of names.")
        source, target = (_component(name, graph, path) for name in pair)
        if source != target:
            edges.append((source, target))
    return list(dict.fromkeys(edges))


def _component(name: str, graph: Graph, path: Path) -> str:
    head, mlp = _HEAD.fullmatch(name), _MLP.fullmatch(name)
    if head:
        return f"a{head[1]}.h{head[2]}"
    if mlp:
        return f"m{mlp[1]}"
    if name in ("hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre"):
        return EMBED
    if name in (f"blocks.{graph.n_layers - 1}.hook_resid_post", "unembed", "output"):
        return OUTPUT
    raise FileFormatError(f"{str(path)!r}: {name!r} is no component that is known here.")


class _DType:
    """Stands for a type of numbers in a pickle; keeps its name, does nothing."""

    def __init__(self, code: str = "f8", *_: Any):
        self.code = code if isinstance(code, str) else "f8"

    def __setstate__(self, state: Any) -> None:
        """Take no state."""


def _number(dtype: Any, data: Any = None) -> Any:
    """Read the bytes of one number."""
    if not isinstance(dtype, _DType) or not re.fullmatch(r"[<>=|]?[fiub]\d", dtype.code):
        raise pickle.UnpicklingError("a number of an unknown type")
    return np.frombuffer(data, np.dtype(dtype.code))[0].item()


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, texts and numbers; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """Return harmless stand-ins for what settings hold; import nothing."""
        if module == "torch" and name.startswith(("float", "bfloat", "int")):
            return name
        if module == "numpy" and name == "dtype":
            return _DType
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _number
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _plain(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except _DAMAGE as error:
        raise FileFormatError(
            f"{str(path)!r} is damaged or holds more than plain values, which is not loaded: "
            f"{error}."
        ) from error
