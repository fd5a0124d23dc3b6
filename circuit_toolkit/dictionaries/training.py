"""Train sparse autoencoders (by sae_lens) and transcoders on activations in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.errors import InputError


@dataclass(frozen=True)
class DictionaryConfig:
    """How a dictionary is trained.

    Parameters
    ----------
    n_features : int
        Width of the dictionary.
    k : int
        Features active per token: exactly for an autoencoder, on average for a transcoder.
    steps, batch : int
        Number of steps, and tokens in each.
    learning_rate : float
        Peak of Adam's rate; it falls to a tenth over the last third.
    seed : int
        Seed of the weights and of the order of the tokens.
    """

    n_features: int = 768
    k: int = 16
    steps: int = 3000
    batch: int = 1024
    learning_rate: float = 2e-3
    seed: int = 0


def _batches(n: int, config: DictionaryConfig) -> Iterator[Tensor]:
    """Endless shuffled row numbers, `batch` at a time."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from (part for part in order.split(config.batch) if len(part) == config.batch)


def _check(x: Tensor, config: DictionaryConfig) -> None:
    if x.ndim != 2 or len(x) < config.batch:
        raise InputError(
            f"Activations must have shape (n, D) with n >= batch = {config.batch}, got "
            f"{tuple(x.shape)}. Capture more tokens, or lower the batch."
        )


def train_sae(x: Tensor, config: DictionaryConfig, metadata: dict[str, Any]):
    """Train a top-k sparse autoencoder (Gao et al., 2024) with sae_lens's trainer.

    Parameters
    ----------
    x : Tensor, shape (n, D)
        Activations at one site, a row a token.
    config : DictionaryConfig
        Size and schedule.
    metadata : dict
        Goes into its `cfg.json`: `model_name`, `hook_name`, ...

    Returns
    -------
    sae_lens.SAE
        Ready for use and for `save_model`.

    Raises
    ------
    InputError
        If there are fewer tokens than one batch.
    """
    from sae_lens import SAE, SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata

    _check(x, config)
    torch.manual_seed(config.seed)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=x.shape[1],
            d_sae=config.n_features,
            k=config.k,
            normalize_activations="expected_average_only_in",  # folded into the weights at the end
            metadata=SAEMetadata(**metadata),
        )
    )
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=config.steps * config.batch,
            train_batch_size_samples=config.batch,
            lr=config.learning_rate,
            lr_end=config.learning_rate / 10,
            lr_warm_up_steps=config.steps // 20,
            lr_decay_steps=config.steps // 3,
            dead_feature_window=100,
            n_batches_for_norm_estimate=20,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae=sae,
        data_provider=(x[rows] for rows in _batches(len(x), config)),
    )
    trainer.fit()
    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        return SAE.load_from_disk(folder).eval().requires_grad_(False)


def train_transcoder(x: Tensor, y: Tensor, config: DictionaryConfig, metadata: dict[str, Any]):
    """Train a transcoder (Dunefsky et al., 2024): what an MLP writes, from what it reads.

    Sparsity by batch-top-k (Bussmann et al., 2024): of all features on all tokens of a batch the
    `k * batch` largest stay. What is saved is the jump-ReLU transcoder that this converges to,
    its threshold the mean of the smallest activation that stayed. Features that fall silent begin
    anew on tokens that are reconstructed badly (Bricken et al., 2023). sae_lens has no training
    class for transcoders.

    Parameters
    ----------
    x, y : Tensor, shape (n, D)
        What the MLP reads and what it writes, a row a token.
    config : DictionaryConfig
        Size and schedule.
    metadata : dict
        Goes into its `cfg.json`: `model_name`, `hook_name`, `hook_name_out`, ...

    Returns
    -------
    sae_lens.SAE
        A `JumpReLUTranscoder`, ready for use and for `save_model`.

    Raises
    ------
    InputError
        If there are fewer tokens than one batch, or `x` and `y` differ in shape.
    """
    _check(x, config)
    if x.shape != y.shape:
        raise InputError(f"x and y must agree in shape, got {tuple(x.shape)}, {tuple(y.shape)}.")
    torch.manual_seed(config.seed)
    n_in, n_out, width = x.shape[1], y.shape[1], config.n_features
    decoder = torch.nn.functional.normalize(torch.randn(width, n_out), dim=1)
    scale_x = x.pow(2).sum(1).mean().sqrt()  # the loop sees inputs and outputs of unit norm
    scale_y = (y - y.mean(0)).pow(2).sum(1).mean().sqrt()
    encoder = torch.nn.functional.normalize(torch.randn(n_in, width), dim=0)
    mean = x.mean(0) / scale_x
    weights = [encoder, -mean @ encoder, decoder, y.mean(0) / scale_y]
    W_enc, b_enc, W_dec, b_dec = (w.clone().requires_grad_() for w in weights)
    optimizer = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=config.learning_rate)
    silent = torch.zeros(width)  # steps since a feature last fired
    threshold = 0.0
    batches = _batches(len(x), config)
    for step in range(config.steps):
        decay = min(1.0, max(0.1, 3 * (1 - step / config.steps)))
        optimizer.param_groups[0]["lr"] = config.learning_rate * min(decay, (step + 1) / 100)
        rows = next(batches)
        inputs, outputs = x[rows] / scale_x, y[rows] / scale_y  # (B, D)
        pre = torch.relu(inputs @ W_enc + b_enc)  # (B, F)
        score = pre.detach() * W_dec.detach().norm(dim=1)
        smallest = score.flatten().topk(config.k * len(rows)).values[-1]
        acts = pre * (score >= smallest)
        error = outputs - acts @ W_dec - b_dec
        loss = error.pow(2).sum(1).mean()
        silent = torch.where((acts.detach() > 0).any(0), 0.0, silent + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        if step % 200 == 199 and step < 0.75 * config.steps:
            dead = (silent >= 100).nonzero().flatten()
            _resample(optimizer, dead, inputs - mean, error.detach(), mean, float(smallest))
            silent[dead] = 0
        threshold = float(smallest) if step == 0 else 0.99 * threshold + 0.01 * float(smallest)
    scales = float(scale_x), float(scale_y)
    return _as_transcoder([W_enc, b_enc, W_dec, b_dec], threshold, scales, metadata)


@torch.no_grad()
def _as_transcoder(
    weights: list[Tensor], threshold: float, scales: tuple[float, float], metadata: dict[str, Any]
):
    """Make sae_lens's object, back in the units of inputs and outputs."""
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig

    W_enc, b_enc, W_dec, b_dec = weights
    scale_x, scale_y = scales
    transcoder = JumpReLUTranscoder(
        JumpReLUTranscoderConfig(
            d_in=W_enc.shape[0],
            d_out=W_dec.shape[1],
            d_sae=W_enc.shape[1],
            apply_b_dec_to_input=False,
            metadata=SAEMetadata(**metadata),
        )
    )
    transcoder.W_enc.copy_(W_enc * scale_y / scale_x)
    transcoder.b_enc.copy_(b_enc * scale_y)
    transcoder.threshold.fill_(threshold * scale_y)
    transcoder.W_dec.copy_(W_dec)
    transcoder.b_dec.copy_(b_dec * scale_y)
    return transcoder.eval().requires_grad_(False)


@torch.no_grad()
def _resample(
    optimizer: torch.optim.Adam,
    dead: Tensor,
    centred: Tensor,
    error: Tensor,
    mean: Tensor,
    smallest: float,
) -> None:
    """Point dead features at badly reconstructed tokens, so that they just fire there.

    `centred` (B, D) are inputs less their `mean`, `error` (B, D) what is left of the outputs, and
    `smallest` the least activation that stays.
    """
    if not len(dead):
        return
    W_enc, b_enc, W_dec, _ = optimizer.param_groups[0]["params"]
    rows = torch.multinomial(error.pow(2).sum(1), len(dead), replacement=True)
    towards = centred[rows] / centred[rows].pow(2).sum(1, keepdim=True)  # (dead, D)
    W_enc[:, dead] = 1.5 * smallest * towards.T
    b_enc[dead] = -mean @ W_enc[:, dead]
    W_dec[dead] = torch.nn.functional.normalize(error[rows], dim=1)
    for weights, index in ((W_enc, (slice(None), dead)), (b_enc, dead), (W_dec, dead)):
        for moment in ("exp_avg", "exp_avg_sq"):
            optimizer.state[weights][moment][index] = 0
