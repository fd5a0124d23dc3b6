"""What the arguments of a command name: the model, on its device and in its precision."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_toolkit.models import Model

DTYPES = ("float32", "bfloat16", "float16")


def asked_model(args: argparse.Namespace) -> Model:
    """Load the model that a command is asked about."""
    import torch

    from circuit_toolkit.models import load_model

    return load_model(args.model, device=args.device, dtype=getattr(torch, args.dtype))
