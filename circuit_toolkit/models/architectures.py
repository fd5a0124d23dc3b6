"""Where one family of models keeps what we read and write: a table of data, no branches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from circuit_toolkit.errors import InputError


@dataclass(frozen=True)
class Architecture:
    """One family of Hugging Face models: blocks of attention and an MLP on a residual stream.

    Paths of modules are dotted; all but `blocks`, `embed` and `final_norm` start in a block.

    Parameters
    ----------
    blocks : str
        The list of blocks.
    embed : str
        Token embedding, whose output, times `embed_factor`, is what enters the stream.
    final_norm : str
        Norm in front of the unembedding.
    attention : str
        The attention module; it calls transformers' attention interface, or see `pattern`.
    attn_norm : str or None
        Norm in front of it; None where it reads the stream as it is (OLMo-2).
    queries, keys, values : str
        Linear maps that make these; one map may make all three.
    value_rows : {"own", "thirds", "interleaved"}
        Where in its outputs the values are: all of them; behind the queries and the keys of all
        heads; the last third of each head (queries and keys being the first and second).
    out_proj : str
        Linear map whose input is z of all heads.
    attn_out : str
        Module whose output joins the residual stream: `out_proj`, or a norm behind it.
    mlp_norm : str or None
        Norm in front of the MLP; None where it reads the stream as it is: then `mlp` is needed, and
        the sites `mlp_in` and `mlp_norm` are `resid_mid`, the stream that it reads.
    mlp_out : str
        Module whose output joins the residual stream: the MLP, or a norm behind it.
    mlp : str, optional
        The MLP, where there is no norm in front of it.
    layer_norm : bool
        Whether the norms are LayerNorms, which remove the mean over D; else RMSNorms.
    norm_offset : float
        What a norm adds to its weight before it multiplies by it (Gemma: 1).
    parallel : str, optional
        Entry of the configuration that is true where attention and MLP read the same stream, so
        that there is no `resid_mid`.
    bos : bool
        Whether the family was trained with a beginning-of-sequence token and fails without it.
    pattern : str, optional
        Module whose output is the attention pattern, where attention is written out (GPT-Neo).
    sinks : bool
        Whether a pattern adds up to less than 1, the rest being given to nothing (gpt-oss).
    pairs : tuple of {"blocks", "mlp_out"}
        Which of these put out a tuple, whose first is the activation.
    flat : bool
        Whether the MLP and its norm see the tokens of all prompts in one row (OPT).
    embed_factor, added_factor, logit_divisor : str, optional
        Entries of the configuration by which the embedding and what attention and MLP add to the
        stream are multiplied outside of modules, and logits divided (Granite). Sites are what
        counts: with the factor.
    needs : tuple of (str, object, str)
        Entries of the configuration, the value that they must have, and what it is else.
    """

    blocks: str
    embed: str
    final_norm: str
    attention: str
    attn_norm: str | None
    queries: str
    keys: str
    values: str
    out_proj: str
    attn_out: str
    mlp_norm: str | None
    mlp_out: str
    value_rows: Literal["own", "thirds", "interleaved"] = "own"
    layer_norm: bool = False
    norm_offset: float = 0.0
    parallel: str | None = None
    bos: bool = False
    mlp: str | None = None
    pattern: str | None = None
    sinks: bool = False
    pairs: tuple[Literal["blocks", "mlp_out"], ...] = ()
    flat: bool = False
    embed_factor: str | None = None
    added_factor: str | None = None
    logit_divisor: str | None = None
    needs: tuple[tuple[str, Any, str], ...] = ()

    def in_block(self, path: str, layer: int) -> str:
        """Return the whole path of a module in a block.

        Parameters
        ----------
        path : str
            Path inside the block; empty for the block itself.
        layer : int
            Which block.

        Returns
        -------
        str
        """
        return f"{self.blocks}.{layer}" + (f".{path}" if path else "")


_LLAMA = Architecture(
    blocks="model.layers",
    embed="model.embed_tokens",
    final_norm="model.norm",
    attention="self_attn",
    attn_norm="input_layernorm",
    queries="self_attn.q_proj",
    keys="self_attn.k_proj",
    values="self_attn.v_proj",
    out_proj="self_attn.o_proj",
    attn_out="self_attn.o_proj",
    mlp_norm="post_attention_layernorm",
    mlp_out="mlp",
)
_GEMMA = replace(
    _LLAMA,
    attn_out="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_out="post_feedforward_layernorm",
    norm_offset=1.0,
    bos=True,
)
_PICTURES = "model.language_model"  # the text model inside one that also takes pictures
ARCHITECTURES: dict[str, Architecture] = {  # by config.model_type
    "gpt2": Architecture(
        blocks="transformer.h",
        embed="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn",
        attn_norm="ln_1",
        queries="attn.c_attn",
        keys="attn.c_attn",
        values="attn.c_attn",
        value_rows="thirds",
        out_proj="attn.c_proj",
        attn_out="attn.c_proj",
        mlp_norm="ln_2",
        mlp_out="mlp",
        layer_norm=True,
    ),
    "gpt_neox": Architecture(
        blocks="gpt_neox.layers",
        embed="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        attn_norm="input_layernorm",
        queries="attention.query_key_value",
        keys="attention.query_key_value",
        values="attention.query_key_value",
        value_rows="interleaved",
        out_proj="attention.dense",
        attn_out="attention.dense",
        mlp_norm="post_attention_layernorm",
        mlp_out="mlp",
        layer_norm=True,
        parallel="use_parallel_residual",
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "ministral": _LLAMA,
    "ministral3": _LLAMA,
    "mixtral": _LLAMA,
    "smollm3": _LLAMA,
    "gpt_oss": replace(_LLAMA, pairs=("mlp_out",), sinks=True),
    "phi3": replace(
        _LLAMA,
        queries="self_attn.qkv_proj",
        keys="self_attn.qkv_proj",
        values="self_attn.qkv_proj",
        value_rows="thirds",
    ),
    "granite": replace(
        _LLAMA,
        embed_factor="embedding_multiplier",
        added_factor="residual_multiplier",
        logit_divisor="logits_scaling",
    ),
    "olmo2": replace(
        _LLAMA,
        attn_norm=None,
        attn_out="post_attention_layernorm",
        mlp="mlp",
        mlp_norm=None,
        mlp_out="post_feedforward_layernorm",
    ),
    "gpt_neo": Architecture(
        blocks="transformer.h",
        embed="transformer.wte",
        final_norm="transformer.ln_f",
        attention="attn.attention",
        attn_norm="ln_1",
        queries="attn.attention.q_proj",
        keys="attn.attention.k_proj",
        values="attn.attention.v_proj",
        out_proj="attn.attention.out_proj",
        attn_out="attn.attention.out_proj",
        mlp_norm="ln_2",
        mlp_out="mlp",
        layer_norm=True,
        pattern="attn.attention.attn_dropout",
        pairs=("blocks",),
    ),
    "opt": Architecture(
        blocks="model.decoder.layers",
        embed="model.decoder.embed_tokens",
        final_norm="model.decoder.final_layer_norm",
        attention="self_attn",
        attn_norm="self_attn_layer_norm",
        queries="self_attn.q_proj",
        keys="self_attn.k_proj",
        values="self_attn.v_proj",
        out_proj="self_attn.out_proj",
        attn_out="self_attn.out_proj",
        mlp_norm="final_layer_norm",
        mlp_out="fc2",
        layer_norm=True,
        flat=True,
        needs=(
            ("do_layer_norm_before", True, "norms stand behind attention and MLP, as in opt-350m"),
        ),
    ),
    "gemma": replace(_LLAMA, norm_offset=1.0, bos=True),
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gemma3": replace(
        _GEMMA,
        blocks=f"{_PICTURES}.layers",
        embed=f"{_PICTURES}.embed_tokens",
        final_norm=f"{_PICTURES}.norm",
    ),
}


def architecture_of(model_type: str) -> Architecture:
    """Look up the row of `ARCHITECTURES` for a model."""
    if model_type not in ARCHITECTURES:
        raise InputError(
            f"No layout is known for model type {model_type!r} (known: "
            f"{', '.join(ARCHITECTURES)}). Pass architecture=Architecture(...) to load_model."
        )
    return ARCHITECTURES[model_type]
