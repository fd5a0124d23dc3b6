"""Where one family of models keeps what we read and write: a table of data, no branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circuit_toolkit.errors import InputError

Place = tuple[str, str]  # path of a module, `{}` standing for the layer; "input" or "output"


@dataclass(frozen=True)
class Architecture:
    """One family of Hugging Face models.

    Parameters
    ----------
    final_norm : str
        Path of the norm in front of the unembedding.
    places : mapping of str to (str, str)
        Kind of site -> path of the module that holds it, and whether it is its input or output.
    writable : frozenset of str
        Kinds of site at which a written value reaches everything that reads the site. A GPT-2
        block adds `resid_mid` to its result before the norm reads it, so writing the norm's
        input would leave the residual stream as it was.
    """

    final_norm: str
    places: Mapping[str, Place]
    writable: frozenset[str]


ARCHITECTURES: dict[str, Architecture] = {  # by config.model_type
    "gpt2": Architecture(
        final_norm="transformer.ln_f",
        places={
            "embed": ("transformer.wte", "output"),
            "resid_pre": ("transformer.h.{}", "input"),
            "attn_z": ("transformer.h.{}.attn.c_proj", "input"),
            "attn_out": ("transformer.h.{}.attn.c_proj", "output"),
            "resid_mid": ("transformer.h.{}.ln_2", "input"),
            "mlp_in": ("transformer.h.{}.ln_2", "output"),
            "mlp_out": ("transformer.h.{}.mlp", "output"),
            "resid_post": ("transformer.h.{}", "output"),
            "logits": ("lm_head", "output"),
        },
        writable=frozenset(
            {"embed", "resid_pre", "attn_z", "attn_out", "mlp_in", "mlp_out", "resid_post"}
        ),
    ),
}


def architecture_of(model_type: str) -> Architecture:
    """Look up the row of `ARCHITECTURES` for a model.

    Parameters
    ----------
    model_type : str
        `config.model_type` of the Hugging Face model.

    Returns
    -------
    Architecture

    Raises
    ------
    InputError
        If the family is not in the table.
    """
    if model_type not in ARCHITECTURES:
        raise InputError(
            f"No layout is known for model type {model_type!r} (known: "
            f"{', '.join(ARCHITECTURES)}). Pass architecture=Architecture(...) to load_model."
        )
    return ARCHITECTURES[model_type]
