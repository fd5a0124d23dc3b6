"""A small random model of every family, and the same model as TransformerLens builds it.

Structure and weights of the TransformerLens side come from TransformerLens's own conversions, so
what is compared with it is not our reading of a family.
"""

from __future__ import annotations

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from circuit_toolkit.sites import KINDS, Site

Edit = Callable[[Tensor], Tensor]
WORDS = (
    *("the", "a", "cat", "dog", "bird", "sat", "sang", "near", "by", "tree", "when", "she"),
    *("they", "saw", "old", "red", "big", "door", "softly", ".", ","),
)
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
PROMPTS = (  # 12, 6 and 8 tokens with the beginning of the sequence
    "when the old cat sat by the red door , she",
    "a bird sang softly .",
    "they saw the big dog near the",
)
WINDOW = 4  # tokens that local attention sees: fewer than a prompt has
PLAIN = {"fold_ln": False, "center_writing_weights": False} | {
    "center_unembed": False,
    "fold_value_biases": False,
}
PROCESSINGS: dict[str, dict[str, bool]] = {
    "unprocessed": PLAIN,
    **{flag: PLAIN | {flag: True} for flag in PLAIN},
    "all": dict.fromkeys(PLAIN, True),
}


def word_tokenizer(bos: bool = True) -> hf.PreTrainedTokenizerFast:
    """One token a word; `<bos>` comes first if `bos`, as the Llama family's tokenizers do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    ids = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", ids["<bos>"])]
        )
    names = {f"{kind}_token": f"<{kind}>" for kind in ("pad", "bos", "eos", "unk")}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", add_bos_token=bos, **names
    )


SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
COMMON = SIZE | {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 64,
}
NEOX = COMMON | {"intermediate_size": 64, "rope_parameters": {"partial_rotary_factor": 0.25}}
GROUPED = COMMON | {"num_key_value_heads": 2, "intermediate_size": 48}
GEMMA = GROUPED | {
    "head_dim": 12,  # not width / heads
    "query_pre_attn_scalar": 20,  # nor is this head_dim
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
LOCAL_AND_GLOBAL = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
FAR = ROPE | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": WINDOW}
GRANITE = {  # factors outside of modules
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "logits_scaling": 2.5,
}
CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "gpt2": lambda: hf.GPT2Config(**COMMON),
    "pythia": lambda: hf.GPTNeoXConfig(**NEOX),
    "neox-sequential": lambda: hf.GPTNeoXConfig(**NEOX, use_parallel_residual=False),
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**GROUPED),
    "qwen3": lambda: hf.Qwen3Config(**GROUPED, head_dim=12),
    "phi3": lambda: hf.Phi3Config(**GROUPED),
    "mixtral": lambda: hf.MixtralConfig(**GROUPED, num_local_experts=4),
    "gpt-neo": lambda: hf.GPTNeoConfig(
        **(COMMON | {"num_layers": 3, "num_heads": 4}),
        attention_types=[[["local", "global", "local"], 1]],
        window_size=WINDOW,
    ),
    "opt": lambda: hf.OPTConfig(**COMMON, ffn_dim=48, word_embed_proj_dim=32),
    "gemma": lambda: hf.GemmaConfig(**GROUPED, head_dim=12),
    "gemma2": lambda: hf.Gemma2Config(
        **GEMMA, attn_logit_softcapping=3.0, final_logit_softcapping=5.0
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(**GEMMA, rope_parameters=LOCAL_AND_GLOBAL),
}
# Families that TransformerLens converts no model of, or wants more of than a random one has.
UNCONVERTED: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "smollm3": lambda: hf.SmolLM3Config(**GROUPED, no_rope_layers=[1, 0, 1]),
    "granite": lambda: hf.GraniteConfig(**GROUPED, **GRANITE),
    "olmo2": lambda: hf.Olmo2Config(**GROUPED),
    "ministral": lambda: hf.MinistralConfig(
        **GROUPED, sliding_window=WINDOW, layer_types=GEMMA["layer_types"], head_dim=12
    ),
    "ministral3": lambda: hf.Ministral3Config(**GROUPED, head_dim=12, rope_parameters=FAR),
    "qwen3-moe": lambda: hf.Qwen3MoeConfig(
        **GROUPED, head_dim=12, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2
    ),
    "gpt-oss": lambda: hf.GptOssConfig(
        **GROUPED,
        head_dim=12,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=WINDOW,
        layer_types=GEMMA["layer_types"],
        rope_parameters=ROPE,
    ),
}
REAL = {"stories260k": "models/stories260k", "gpt-nano-sort": "models/gpt-nano-sort"}
# TransformerLens reads no configuration of Gemma's: a table in its source describes named models.
TABLES = {
    "gemma": "google/gemma-2b",
    "gemma2": "google/gemma-2-2b",
    "gemma3_text": "google/gemma-3-1b-pt",
}
CONVERSIONS = {  # config.model_type -> function in transformer_lens.pretrained.weight_conversions
    "gpt2": "gpt2",
    "gpt_neox": "neox",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "mixtral": "mixtral",
    "gpt_neo": "neo",
    "opt": "opt",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
}


def random_model(family: str) -> hf.PreTrainedModel:
    """Build a model of `CONFIGS` with weights under which every layer matters."""
    torch.manual_seed(0)
    module = hf.AutoModelForCausalLM.from_config((CONFIGS | UNCONVERTED)[family]())
    module.config.architectures = [type(module).__name__]  # as a published model has it
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            owner = type(module.get_submodule(path.rpartition(".")[0])).__name__
            if path.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif parameter.ndim == 1:  # norms; those of Gemma multiply by 1 + weight
                low, high = (-0.5, 0.5) if owner.startswith("Gemma") else (0.5, 1.5)
                parameter.uniform_(low, high)
            elif "Embedding" in owner:
                scale = parameter.shape[1] ** 0.5 if "Scaled" in owner else 1
                parameter.normal_(0.1 / scale, 0.7 / scale)  # has a mean, for centring to remove
            else:
                fan_in = parameter.shape[0 if owner == "Conv1D" else 1]
                parameter.normal_(0.2 * fan_in**-0.5, fan_in**-0.5)
    return module.eval().requires_grad_(False)


def real_model(name: str, data: Path) -> hf.PreTrainedModel:
    """Load one of `REAL` from the folder of shared data."""
    module = hf.AutoModelForCausalLM.from_pretrained(data / REAL[name], dtype=torch.float32)
    return module.eval().requires_grad_(False)


def letter_tokenizer() -> hf.PreTrainedTokenizerFast:
    """The three letters that gpt-nano-sort sorts."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"A": 0, "B": 1, "C": 2}, unk_token="A"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="A", pad_token="A")


def describe(module: hf.PreTrainedModel) -> dict[str, Any]:
    """TransformerLens's configuration of a model, as a dictionary."""
    from transformer_lens.loading_from_pretrained import convert_hf_model_config

    config = module.config
    if config.model_type not in TABLES:
        config = copy.deepcopy(config)
        config.n_ctx = config.max_position_embeddings  # the published gpt2 still has this name
        with tempfile.TemporaryDirectory(prefix="config-") as folder:
            config.save_pretrained(folder)
            return convert_hf_model_config(folder)
    ours = {
        "d_model": config.hidden_size,
        "d_head": config.head_dim,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "eps": config.rms_norm_eps,
    }
    if config.model_type == "gemma":
        # The table has the exact GELU, Hugging Face its tanh: 1e-3 at `mlp_out`.
        ours |= {"rotary_dim": config.head_dim, "act_fn": config.hidden_act}
        return convert_hf_model_config(TABLES[config.model_type]) | ours
    ours |= {
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "window_size": config.sliding_window,
        "attn_types": [
            "local" if kind == "sliding_attention" else "global" for kind in config.layer_types
        ],
    }
    if config.model_type == "gemma2":
        ours["attn_scores_soft_cap"] = config.attn_logit_softcapping
        ours["output_logits_soft_cap"] = config.final_logit_softcapping
    else:
        ours["rotary_scaling_factor"] = config.rope_parameters["full_attention"]["factor"]
    return convert_hf_model_config(TABLES[config.model_type]) | ours


def lens_model(
    module: hf.PreTrainedModel, flags: dict[str, bool], dtype: torch.dtype = torch.float32
) -> Any:
    """The HookedTransformer that `from_pretrained` makes of a model with these flags."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.utilities import softcap_enabled

    given = describe(module)
    given |= {"tokenizer_name": None, "init_weights": False, "device": "cpu"}
    config = HookedTransformerConfig.from_dict(given | {"dtype": dtype})
    name = CONVERSIONS[module.config.model_type]
    package = importlib.import_module(f"transformer_lens.pretrained.weight_conversions.{name}")
    weights = getattr(package, f"convert_{name}_weights")(module, config)
    weights = {key: value.to(dtype, copy=True) for key, value in weights.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # HookedTransformer, until its 4.0
        model = HookedTransformer(config)
    # as from_pretrained does: a soft cap is not invariant to a constant
    capped = softcap_enabled(config.output_logits_soft_cap)
    model.load_and_process_state_dict(
        weights, **flags | {"center_unembed": flags["center_unembed"] and not capped}
    )
    torch.nn.Module.to(model, dtype)  # experts are float32 whatever the configuration says
    model.set_use_attn_result(True)
    return model.eval().requires_grad_(False)


def sites_of(lens: Any) -> list[Site]:
    """Every site that a HookedTransformer has, in order of computation."""
    blocks = [Site(kind, i) for i in range(lens.cfg.n_layers) for kind in KINDS[1:-1]]
    has = [site for site in blocks if site.kind == "mlp_norm" or str(site) in lens.hook_dict]
    return [Site("embed"), *has, Site("logits")]


@torch.no_grad()
def lens_run(
    lens: Any, ids: Tensor, edits: Mapping[Site, Edit] | None = None
) -> dict[Site, Tensor]:
    """Every site as a HookedTransformer computes it, some of them edited, by its own hooks."""
    seen, edits = {}, edits or {}

    def at(site: Site, value: Tensor) -> Tensor:
        seen[site] = edits[site](value) if site in edits else value
        return seen[site]

    sites = sites_of(lens)
    # TransformerLens 3.9 has no hook on what the MLP reads: it is the output of the module ln2
    norms = [site for site in sites if site.kind == "mlp_norm"]
    handles = [
        lens.blocks[site.layer].ln2.register_forward_hook(lambda _, __, y, site=site: at(site, y))
        for site in norms
    ]
    hooks = [
        (str(site), lambda y, hook, site=site: at(site, y))
        for site in sites[:-1]
        if site not in norms
    ]
    at(sites[-1], lens.run_with_hooks(ids, fwd_hooks=hooks))
    for handle in handles:
        handle.remove()
    return seen
