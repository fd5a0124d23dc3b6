"""What a model goes on with: token by token, up to the end of the text."""

from __future__ import annotations

import torch

from circuit_toolkit.models.model import Batch, Model
from circuit_toolkit.models.tracing import LOGITS, run


def continued(
    model: Model, start: Batch, max_new_tokens: int, temperature: float = 0.0, seed: int = 0
) -> torch.Tensor:
    """Let the model go on from prompts, all of them at once."""
    rng = torch.Generator().manual_seed(seed)
    ids, mask = start.ids, start.mask
    end = model.tokenizer.eos_token_id
    over = torch.zeros(len(ids), dtype=torch.bool)
    said = []
    for _ in range(min(max_new_tokens, model.context - ids.shape[1])):
        logits = run(model, Batch(ids, mask), [LOGITS], last_logits=True)[LOGITS][:, -1]
        logits = logits.float().cpu()
        if temperature:
            chances = (logits / temperature).softmax(-1)
            token = torch.multinomial(chances, 1, generator=rng)[:, 0]
        else:
            token = logits.argmax(-1)  # (B,)
        over |= token == end
        said.append(torch.where(over, -1, token))
        ids = torch.cat([ids, token[:, None].to(ids)], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    return torch.stack(said, 1)
