"""GIM: attribution patching by gradients that see through attention's self-repair.

Edin et al., 2025, "GIM: Improved interpretability for large language models", arXiv 2505.17630. A
forward run is the plain one; going backwards, softmax is that of a higher temperature, norms have
constant factors, and what two inputs multiply into is shared out between them.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from circuit_toolkit.attribution.edges import edge_attributions
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.components import Average
from circuit_toolkit.errors import InputError
from circuit_toolkit.models.architectures import Architecture
from circuit_toolkit.models.model import Model
from circuit_toolkit.models.ports import ONE_RUN
from circuit_toolkit.models.weights import frozen_norm, in_block
from circuit_toolkit.patching.effects import circuit_of_effects
from circuit_toolkit.tasks.prompt_pairs import PromptPairs

# As in the authors' package (gim-explain 0.1.4).
TEMPERATURE = 2.0
QUERIES = KEYS = 0.25  # half for queries times keys, and half for pattern times values
VALUES = 0.5
_NAME = "circuit_toolkit_gim"


def gim(
    model: Model,
    task: PromptPairs,
    *,
    n_prompts: int | None = None,
    batch_size: int | None = None,
    average: Average = "absolute mean",
    seed: int = 0,
    progress: bool = True,
) -> Circuit:
    """Score edges by attribution patching with gradient interaction modifications (GIM).

    Parameters
    ----------
    model, task, n_prompts, batch_size, average, seed, progress
        As for `eap`.

    Returns
    -------
    Circuit
        Over components; the weight of an edge is its mean score, in units of the metric.

    Raises
    ------
    InputError
        If there are no corrupted prompts of equal length, an option is unknown, or attention of the
        model is not transformers' plain one (GPT-Neo, gpt-oss, known circuits).

    Notes
    -----
    As published (Edin et al., 2025, arXiv 2505.17630): softmax of attention at temperature 2 going
    backwards, the factors of all norms constant, gradients of queries and keys divided by 4 and
    those of values by 2. The score is that of `eap` with these gradients. Constants are those of
    the authors' package, which leaves the gates of MLPs alone and does not divide by the
    temperature; so do we. Ours is that norms of queries and keys count as norms, and that a head's
    query, key and value are one reader.
    """
    sizes: dict[str, Any] = {"n_prompts": n_prompts, "batch_size": batch_size, "progress": progress}

    def effects(_: object) -> Tensor:
        norm = partial(frozen_norm, row=model.architecture)
        with modified_gradients(model):
            return edge_attributions(model, task, norm=norm, **sizes).cpu()

    return circuit_of_effects("GIM", model, task, effects, average, {})


@contextmanager
def modified_gradients(model: Model) -> Iterator[None]:
    """Let runs of a model be as they are and gradients be those of GIM."""
    from transformers.masking_utils import AttentionMaskInterface, eager_mask
    from transformers.modeling_utils import AttentionInterface

    if not _attends_plainly(model):
        raise InputError(
            f"Attention of {model.name} is not transformers' plain one (it is written out, or has "
            "sinks), so its gradients cannot be replaced by GIM's. Use eap or eap_ig."
        )
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, eager_mask)
    with ONE_RUN, ExitStack() as stack:
        before: Any = model.hf.config._attn_implementation
        stack.callback(model.hf.set_attn_implementation, before)
        model.hf.set_attn_implementation(_NAME)
        for norm in _norms_within(model):
            hook = partial(_freezing, model.architecture)
            stack.callback(norm.register_forward_hook(hook).remove)
        yield


def _attends_plainly(model: Model) -> bool:
    """Whether attention calls the function that transformers looks up, and adds nothing to it."""
    row = model.architecture
    written = inspect.getsource(type(in_block(model, row.attention, 0)).forward)
    return row.pattern is None and not row.sinks and "attention_interface" in written


def _norms_within(model: Model) -> list[nn.Module]:
    """Return norms but those in front of components: of queries and keys, behind a component.

    A norm has a weight for each coordinate and nothing inside.
    """
    row, found = model.architecture, []
    for layer in range(model.n_layers):
        block = model.hf.get_submodule(row.in_block("", layer))
        for path, each in block.named_modules():
            weight = getattr(each, "weight", None)
            one = isinstance(weight, Tensor) and weight.ndim == 1 and not [*each.children()]
            if one and path not in (row.attn_norm, row.mlp_norm):
                found.append(each)
    return found


def _freezing(row: Architecture, norm: nn.Module, args: tuple[Tensor], _: Tensor) -> Tensor:
    return frozen_norm(args[0], norm, row)


def _with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    return value.detach() + (other - other.detach())


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend as transformers' eager attention does, with GIM's gradients."""
    query = _with_gradient_of(query, QUERIES * query)
    key, value = _with_gradient_of(key, KEYS * key), _with_gradient_of(value, VALUES * value)
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if attention_mask is not None:
        scores = scores + attention_mask
    scores = scores.float()
    softer = TEMPERATURE * (scores / TEMPERATURE).softmax(-1)
    pattern = _with_gradient_of(scores.softmax(-1), softer).to(query.dtype)
    return (pattern @ value).transpose(1, 2).contiguous(), pattern
