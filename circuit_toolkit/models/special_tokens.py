"""Special tokens: no description names them, but for the end of a text among what is said.

Padding and the like are no text, and stand out because they were hardly trained. The end of a text
is said by the model, so a feature may well promote it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from circuit_toolkit.models import Model


def is_read(model: Model) -> np.ndarray:
    """Return which tokens may be told of as inputs: all but special ones."""
    ids = np.arange(model.d_vocab)
    return ~np.isin(ids, model.tokenizer.all_special_ids)


def is_said(model: Model) -> np.ndarray:
    """Return which tokens may be told of as outputs: those that are read, and the end of a text."""
    end: Any = model.tokenizer.eos_token_id
    found = is_read(model)
    if end is not None:
        found[end] = True
    return found
