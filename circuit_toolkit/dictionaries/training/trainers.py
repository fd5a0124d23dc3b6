"""Train sparse autoencoders (by sae_lens) and transcoders, one batch of activations at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAMPLE = 20  # batches from which the scale of activations is estimated


@dataclass(frozen=True)
class DictionaryConfig:
    """How a dictionary is trained.

    Parameters
    ----------
    n_features, k, steps, batch, learning_rate, seed
        As in `train_dictionaries`.
    """

    n_features: int = 768
    k: int = 16
    steps: int = 3000
    batch: int = 1024
    learning_rate: float = 2e-3
    seed: int = 0


class SaeTraining:
    """A top-k sparse autoencoder (Gao et al., 2024) on its way, by sae_lens's trainer."""

    def __init__(
        self, sample: Sequence[Tensor], config: DictionaryConfig, metadata: dict[str, Any]
    ):
        from sae_lens import SAETrainer, TopKTrainingSAEConfig
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.saes.sae import SAEMetadata

        from circuit_toolkit.dictionaries.training.topk import SparseTopKTrainingSAE

        width, device = sample[0].shape[1], sample[0].device
        per_head = str(metadata.get("hook_name")).endswith("hook_z")
        with torch.random.fork_rng(devices=[]):  # sae_lens draws from the global generator
            torch.default_generator.manual_seed(config.seed)
            sae = SparseTopKTrainingSAE(
                TopKTrainingSAEConfig(
                    d_in=width,
                    d_sae=config.n_features,
                    k=config.k,
                    normalize_activations="expected_average_only_in",  # folded in at the end
                    reshape_activations="hook_z" if per_head else "none",
                    metadata=SAEMetadata(**metadata),
                )
            )
        self.sae = sae.to(device)
        self.trainer = SAETrainer(
            cfg=SAETrainerConfig(
                total_training_samples=config.steps * config.batch,
                train_batch_size_samples=config.batch,
                device=str(device),
                lr=config.learning_rate,
                lr_end=config.learning_rate / 10,
                lr_warm_up_steps=config.steps // 20,
                lr_decay_steps=config.steps // 3,
                dead_feature_window=100,
                logger=LoggingConfig(log_to_wandb=False),
            ),
            sae=self.sae,
            data_provider=iter(()),  # batches come by `update`
        )
        total = sum(float(x.norm(dim=-1).sum()) for x in sample)
        mean_norm = total / sum(map(len, sample))
        self.trainer.activation_scaler.scaling_factor = width**0.5 / mean_norm

    @property
    def step(self) -> int:
        """Number of steps that were made."""
        return self.trainer.n_training_steps

    def update(self, x: Tensor) -> Tensor:
        """Make one step on activations (B, D); return the loss."""
        self.trainer.maybe_reset_sparsity()
        loss = self.trainer.step(x).loss
        self.trainer.n_training_steps += 1
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Write all that later steps depend on."""
        torch.save(self.sae.state_dict(), folder / "weights.pt")
        self.trainer.save_trainer_state(folder)

    def load(self, folder: Path) -> None:
        """Go back to where `save` was called."""
        weights = torch.load(folder / "weights.pt", weights_only=True, map_location=self.sae.device)
        self.sae.load_state_dict(weights)
        self.trainer.load_trainer_state(folder)

    def finish(self) -> Any:
        """Return the autoencoder, in the units of its inputs, as a `sae_lens.SAE`."""
        from sae_lens import SAE

        scale = self.trainer.activation_scaler.scaling_factor
        assert scale is not None
        self.sae.fold_activation_norm_scaling_factor(scale)
        self.trainer.set_final_sae_metadata()
        with tempfile.TemporaryDirectory() as folder:
            self.sae.save_inference_model(folder)
            trained = SAE.load_from_disk(folder, device=str(self.sae.device))
        return trained.eval().requires_grad_(False)


class TranscoderTraining:
    """A transcoder (Dunefsky et al., 2024) on its way: what an MLP writes, from what it reads."""

    def __init__(self, x: Tensor, y: Tensor, config: DictionaryConfig, metadata: dict[str, Any]):
        self.config, self.metadata, self.step = config, metadata, 0
        rng = self.rng = torch.Generator().manual_seed(config.seed)
        n_in, n_out, width = x.shape[1], y.shape[1], config.n_features
        decoder = torch.nn.functional.normalize(torch.randn(width, n_out, generator=rng), dim=1)
        self.scale_x = float(x.pow(2).sum(1).mean().sqrt())  # inside, both have unit norm
        self.scale_y = float((y - y.mean(0)).pow(2).sum(1).mean().sqrt())
        encoder = torch.nn.functional.normalize(torch.randn(n_in, width, generator=rng), dim=0)
        self.mean = x.mean(0) / self.scale_x
        encoder, decoder = encoder.to(x.device), decoder.to(x.device)
        weights = [encoder, -self.mean @ encoder, decoder, y.mean(0) / self.scale_y]
        self.weights = [w.clone().requires_grad_() for w in weights]  # W_enc, b_enc, W_dec, b_dec
        self.optimizer = torch.optim.Adam(self.weights, lr=config.learning_rate)
        self.silent = torch.zeros(width, device=x.device)  # steps since a feature was last active
        self.threshold = 0.0

    def update(self, x: Tensor, y: Tensor) -> Tensor:
        """Make one step on what the MLP reads (B, D) and writes (B, D_out); return the loss."""
        config, step = self.config, self.step
        W_enc, b_enc, W_dec, b_dec = self.weights
        decay = min(1.0, max(0.1, 3 * (1 - step / config.steps)))
        rate = config.learning_rate * min(decay, (step + 1) / 100)
        self.optimizer.param_groups[0]["lr"] = rate
        inputs, outputs = x / self.scale_x, y / self.scale_y
        pre = torch.relu(inputs @ W_enc + b_enc)  # (B, F)
        score = pre.detach() * W_dec.detach().norm(dim=1)
        smallest = score.flatten().topk(config.k * len(x)).values[-1]
        acts = pre * (score >= smallest)
        error = outputs - acts @ W_dec - b_dec
        loss = error.pow(2).sum(1).mean()
        self.silent = torch.where((acts.detach() > 0).any(0), 0.0, self.silent + 1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        least = float(smallest)
        if step % 200 == 199 and step < 0.75 * config.steps:
            self._resample(inputs - self.mean, error.detach(), least)
        self.threshold = least if step == 0 else 0.99 * self.threshold + 0.01 * least
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def _resample(self, centred: Tensor, error: Tensor, smallest: float) -> None:
        """Point dead features at badly reconstructed tokens, so that they are just active there."""
        dead = (self.silent >= 100).nonzero().flatten()
        if not len(dead):
            return
        W_enc, b_enc, W_dec, _ = self.weights
        badness = error.pow(2).sum(1).cpu()
        rows = torch.multinomial(badness, len(dead), replacement=True, generator=self.rng)
        towards = centred[rows] / centred[rows].pow(2).sum(1, keepdim=True)  # (dead, D)
        W_enc[:, dead] = 1.5 * smallest * towards.T
        b_enc[dead] = -self.mean @ W_enc[:, dead]
        W_dec[dead] = torch.nn.functional.normalize(error[rows], dim=1)
        for weights, index in ((W_enc, (slice(None), dead)), (b_enc, dead), (W_dec, dead)):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[weights][moment][index] = 0
        self.silent[dead] = 0

    _STATE = ("step", "scale_x", "scale_y", "mean", "silent", "threshold")

    def save(self, folder: Path) -> None:
        """Write all that later steps depend on."""
        state = {name: getattr(self, name) for name in self._STATE}
        state["weights"] = [w.detach() for w in self.weights]
        state["optimizer"] = self.optimizer.state_dict()
        state["rng"] = self.rng.get_state()
        torch.save(state, folder / "state.pt")

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go back to where `save` was called."""
        state = torch.load(folder / "state.pt", weights_only=True, map_location=self.mean.device)
        for name in self._STATE:
            setattr(self, name, state[name])
        for ours, saved in zip(self.weights, state["weights"], strict=True):
            ours.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"].cpu())

    @torch.no_grad()
    def finish(self) -> Any:
        """Return the transcoder, in the units of inputs and outputs, as a `sae_lens.SAE`."""
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig

        W_enc, b_enc, W_dec, b_dec = self.weights
        with torch.random.fork_rng(devices=[]):  # it begins with random weights
            transcoder = JumpReLUTranscoder(
                JumpReLUTranscoderConfig(
                    d_in=W_enc.shape[0],
                    d_out=W_dec.shape[1],
                    d_sae=W_enc.shape[1],
                    device=str(W_enc.device),
                    apply_b_dec_to_input=False,
                    metadata=SAEMetadata(**self.metadata),
                )
            )
        transcoder.W_enc.copy_(W_enc * self.scale_y / self.scale_x)
        transcoder.b_enc.copy_(b_enc * self.scale_y)
        transcoder.threshold.fill_(self.threshold * self.scale_y)
        transcoder.W_dec.copy_(W_dec)
        transcoder.b_dec.copy_(b_dec * self.scale_y)
        return transcoder.eval().requires_grad_(False)
