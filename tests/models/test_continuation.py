"""Texts that a model continues: keys and values that are kept give what whole runs give."""

import pytest
import torch

from circuit_toolkit.models import LOGITS, load_model, run
from circuit_toolkit.models.continuation import continued
from circuit_toolkit.models.model import Batch
from tests.families import CONFIGS, PROMPTS, random_model, word_tokenizer


@pytest.mark.parametrize("name", CONFIGS)
def test_kept_keys_and_values_continue_as_whole_runs_do(name):
    model = load_model(random_model(name), word_tokenizer())
    start = model.tokenize(PROMPTS)  # of different lengths; some families see four tokens back
    said = continued(model, start, 6)
    ids, mask, over = start.ids, start.mask, torch.zeros(len(PROMPTS), dtype=torch.bool)
    for step in range(said.shape[1]):
        logits = run(model, Batch(ids, mask), [LOGITS], last_logits=True)[LOGITS][:, -1]
        token = logits.argmax(-1)
        over |= token == model.tokenizer.eos_token_id
        assert torch.equal(said[:, step], torch.where(over, -1, token))
        ids = torch.cat([ids, token[:, None]], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
