"""A tiny random model of the bundled language, and random dictionaries for it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.dictionaries import save_dictionary
from circuit_toolkit.models import Model, load_model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

WIDTH, LAYERS, FEATURES, K = 32, 3, 80, 6
TEXTS = (
    "when Mary and John went to the store, John gave a drink to",
    "the boys near the cabinet",
    "the war lasted from the year 1732 to the year 17",
    "Anna",
)


def tiny_hf(seed: int = 0, layers: int = LAYERS) -> GPT2LMHeadModel:
    """A GPT-2 with random weights large enough that every layer matters."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=64,
            n_embd=WIDTH,
            n_layer=layers,
            n_head=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.uniform_(0.5, 1.5)  # the weights of the norms
    return module.eval()


def tiny_model(seed: int = 0) -> Model:
    return load_model(tiny_hf(seed), build_tokenizer())


def residual_sites(layers: int = LAYERS) -> list[Site]:
    return [Site("resid_pre", 0), *(Site("resid_post", layer) for layer in range(layers))]


def random_sae(model_name: str, site: Site, width: int = WIDTH, seed: int = 0):
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    metadata = SAEMetadata(
        model_name=model_name,
        hook_name=str(site),
        hook_name_out=str(site),
        prepend_bos=True,
        model_from_pretrained_kwargs={},
    )
    sae = TopKSAE(TopKSAEConfig(d_in=width, d_sae=FEATURES, k=K, metadata=metadata))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(FEATURES, width, generator=rng), dim=1)
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
        sae.b_enc.copy_(0.1 * torch.randn(FEATURES, generator=rng))
        sae.b_dec.copy_(0.1 * torch.randn(width, generator=rng))
    return sae.eval().requires_grad_(False)


def random_transcoder(model_name: str, layer: int, d_out: int = WIDTH, seed: int = 0):
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig

    metadata = SAEMetadata(
        model_name=model_name,
        hook_name=str(Site("mlp_in", layer)),
        hook_name_out=str(Site("mlp_out", layer)),
        prepend_bos=True,
        model_from_pretrained_kwargs={},
    )
    transcoder = JumpReLUTranscoder(
        JumpReLUTranscoderConfig(
            d_in=WIDTH, d_out=d_out, d_sae=FEATURES, apply_b_dec_to_input=False, metadata=metadata
        )
    )
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        transcoder.W_enc.copy_(torch.randn(WIDTH, FEATURES, generator=rng) / WIDTH**0.5)
        transcoder.b_enc.copy_(0.1 * torch.randn(FEATURES, generator=rng))
        transcoder.W_dec.copy_(torch.randn(FEATURES, d_out, generator=rng))
        transcoder.b_dec.copy_(torch.randn(d_out, generator=rng))
        transcoder.threshold.fill_(0.8)
    return transcoder.eval().requires_grad_(False)


def write_dictionaries(model: Model, folder: Path) -> Path:
    for i, site in enumerate(residual_sites(model.n_layers)):
        save_dictionary(random_sae(model.name, site, seed=i), folder / f"sae-{i}")
    for layer in range(model.n_layers):
        save_dictionary(random_transcoder(model.name, layer, seed=layer), folder / f"tc-{layer}")
    return folder


def last_logits(module: GPT2LMHeadModel, text: str) -> torch.Tensor:
    """Logits (V,) after a text, by Hugging Face alone."""
    ids = build_tokenizer()([text], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return module(ids).logits[0, -1]


def task_it_does(texts: list[str], twins: list[str] | None = None) -> Task:
    """A task that the tiny model does: right is what it says, wrong what it would never say."""
    logits = torch.stack([last_logits(tiny_hf(), text) for text in texts])
    right, wrong = logits.argmax(1).tolist(), logits.argmin(1).tolist()
    return Task(
        "easy",
        tuple(texts),
        tuple(twins or ()),
        tuple((token,) for token in right),
        tuple((token,) for token in wrong),
    )
