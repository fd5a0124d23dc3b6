"""A model whose stream is the embedding throughout, and transcoders whose meaning is known."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.loading import bind_dictionary
from circuit_toolkit.models import Model, load_model
from circuit_toolkit.sites import Site

WIDTH, LAYERS, FEATURES = 256, 3, 300


def still_model() -> Model:
    """Attention and MLPs write nothing, so that each token's embedding is all there is."""
    tokenizer = build_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=8,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    module = GPT2LMHeadModel(config)
    with torch.no_grad():
        module.transformer.wte.weight.normal_(0, 1)
        module.transformer.wpe.weight.zero_()
        for block in module.transformer.h:
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight.zero_()
                layer.bias.zero_()
    return load_model(module.eval(), tokenizer)


def embeddings(model: Model) -> Tensor:
    return model.hf.get_input_embeddings().weight.detach()


def random_rows(seed: int, n: int = FEATURES) -> Tensor:
    """Rows (n, D) of about the length of an embedding."""
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def transcoder(
    model: Model, layer: int, encoder: Tensor, decoder: Tensor, threshold: float | Tensor = 0.0
) -> Dictionary:
    """A transcoder of given rows (F, D); a feature fires from its threshold on."""
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig

    metadata = SAEMetadata(
        model_name=model.name,
        hook_name=str(Site("mlp_in", layer)),
        hook_name_out=str(Site("mlp_out", layer)),
        prepend_bos=True,
        model_from_pretrained_kwargs={},
    )
    config = JumpReLUTranscoderConfig(
        d_in=WIDTH,
        d_out=WIDTH,
        d_sae=len(encoder),
        apply_b_dec_to_input=False,
        metadata=metadata,
    )
    sae = JumpReLUTranscoder(config)
    with torch.no_grad():
        sae.W_enc.copy_(encoder.T)
        sae.W_dec.copy_(decoder)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
        sae.threshold.copy_(torch.as_tensor(threshold))
    return bind_dictionary(model, sae.eval().requires_grad_(False), f"planted-{layer}")


def random_transcoders(model: Model, threshold: float = 0.0) -> dict[Site, Dictionary]:
    rows = [(random_rows(10 + i), random_rows(20 + i)) for i in range(LAYERS)]
    made = [transcoder(model, i, *both, threshold) for i, both in enumerate(rows)]
    return {each.site: each for each in made}


def scaled(dictionary: Dictionary, model: Model, factor: float) -> Dictionary:
    """The same transcoder with pre-activations so many times as large."""
    sae = copy.deepcopy(dictionary.sae)
    with torch.no_grad():
        for name in ("W_enc", "b_enc", "threshold"):
            getattr(sae, name).mul_(factor)
    return bind_dictionary(model, sae, dictionary.name)
