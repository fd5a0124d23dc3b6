"""Scores of heads that need no autoencoder, no gradient and no intervention."""

from __future__ import annotations

import numpy as np
import torch

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.weights import norm_weight
from circuit_toolkit.tasks import Task


def head_outputs(acts: Activations, n_heads: int) -> np.ndarray:
    """Return what heads write, as a LayerNorm sees it."""
    layers = [x.toarray() for x in acts.features.values()]
    outputs = np.stack([x.reshape(len(x), n_heads, -1) for x in layers], 1)
    return outputs - outputs.mean(3, keepdims=True)


def differences(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far heads are apart on prompts and on corrupted prompts."""
    b = len(outputs) // 2
    moved = outputs[:b] - outputs[b:]
    return np.linalg.norm(moved.mean(0), axis=2), np.linalg.norm(moved, axis=3).mean(0)


def towards_answer(model: Model, task: Task, outputs: np.ndarray) -> np.ndarray | None:
    """Return what share of a head's output is a change towards the answer."""
    head = model.hf.get_output_embeddings()
    rows = getattr(head, "weight", None)
    if task.metric is None or rows is None or rows.shape[1] != outputs.shape[3]:
        return None
    norm = model.hf.get_submodule(model.architecture.final_norm)
    with torch.no_grad():
        scale = norm_weight(norm, model.architecture)[0] if hasattr(norm, "weight") else 1.0
        read = (rows * scale).float().cpu().numpy()  # (V, D)
    b = len(task)
    direction = np.stack(
        [
            read[list(right)].mean(0) - read[list(wrong)].mean(0)
            for right, wrong in zip(task.answers, task.wrong, strict=True)
        ]
    )
    along = np.einsum("blhd,bd->lh", outputs[:b] - outputs[b:], direction) / b
    size = np.linalg.norm(outputs, axis=3).mean(0)
    return np.divide(np.abs(along), size, out=np.zeros_like(along), where=size > 0)
