"""What a model goes on with: token by token, up to the end of the text."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch

from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.ports import alone
from circuit_toolkit.models.tracing import LOGITS, run
from circuit_toolkit.models.weights import expect_weights
from circuit_toolkit.progress import Bar


def continued(
    model: Model,
    start: Batch,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    *,
    progress: bool = False,
) -> torch.Tensor:
    """Let the model go on from prompts, all at once: token ids, and -1 once a text has ended.

    A model without interventions keeps keys and values; one with some runs the whole text anew,
    since what is done to its last token is not done to that token later on.
    """
    expect_weights(model)
    rng = torch.Generator().manual_seed(seed)
    ids, mask = start.ids, start.mask
    over = torch.zeros(len(ids), dtype=torch.bool)
    kept: dict[str, Any] = {}
    takes = signature(model.hf.forward).parameters
    said = [ids.new_empty(len(ids), 0).cpu()]
    steps = range(min(max_new_tokens, model.context - ids.shape[1]))
    for _ in Bar(steps, "generate", shown=progress):
        if model.edits:
            logits = run(model, Batch(ids, mask), [LOGITS], last_logits=True)[LOGITS][:, -1]
        else:
            new = ids[:, -1:] if kept else ids
            if "position_ids" in takes:  # else the family makes them of the mask itself
                kept["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
            with alone(model), torch.no_grad():
                found = model.hf(input_ids=new, attention_mask=mask, use_cache=True, **kept)
            kept, logits = {"past_key_values": found.past_key_values}, found.logits[:, -1]
        logits = logits.float().cpu()
        if temperature:
            chances = (logits / temperature).softmax(-1)
            token = torch.multinomial(chances, 1, generator=rng)  # (B, 1)
        else:
            token = logits.argmax(-1, keepdim=True)
        over |= token[:, 0] == model.tokenizer.eos_token_id
        said.append(torch.where(over[:, None], -1, token))
        if over.all():
            break
        ids = torch.cat([ids, token.to(ids)], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return torch.cat(said, 1)
