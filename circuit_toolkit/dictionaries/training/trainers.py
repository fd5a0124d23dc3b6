"""Train sparse autoencoders (by sae_lens) and transcoders, one batch of activations at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_toolkit.dictionaries.fidelity import OUTLYING
from circuit_toolkit.dictionaries.training.states import adam_like, check_state, load_state

SAMPLE = 20  # batches from which the scale of activations is estimated
_EXACT = 2**18  # features of a batch among which the largest are looked for


@dataclass(frozen=True)
class DictionaryConfig:
    """How a dictionary is trained.

    Parameters
    ----------
    n_features, k, steps, batch, learning_rate, seed, rule, precision
        As in `train_dictionaries`.
    """

    n_features: int = 768
    k: int = 16
    steps: int = 3000
    batch: int = 1024
    learning_rate: float = 2e-3
    seed: int = 0
    rule: str = "topk"
    precision: str = "float32"


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
        seen = torch.cat(list(sample))
        self.limit = largest_norm(seen)
        mean_norm = float(inlying([self.limit], seen)[0].norm(dim=1).mean())
        self.trainer.activation_scaler.scaling_factor = width**0.5 / mean_norm

    @property
    def step(self) -> int:
        """Number of steps that were made."""
        return self.trainer.n_training_steps

    @property
    def weights(self) -> list[Tensor]:
        """What is trained."""
        return [*self.sae.parameters()]

    def update(self, x: Tensor) -> Tensor:
        """Make one step on activations (B, D); return the loss."""
        self.trainer.maybe_reset_sparsity()
        loss = self.trainer.step(*inlying([self.limit], x)).loss
        self.trainer.n_training_steps += 1
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Write all that later steps depend on."""
        torch.save({**self.sae.state_dict(), "limit": self.limit}, folder / "weights.pt")
        self.trainer.save_trainer_state(folder)

    def load(self, folder: Path) -> None:
        """Go back to where `save` was called."""
        trainer, device = self.trainer, self.sae.device
        like = {**self.sae.state_dict(), "limit": self.limit}
        weights = load_state(folder / "weights.pt", device, like)
        like = {
            "optimizer": adam_like(trainer.optimizer),
            "lr_scheduler": trainer.lr_scheduler.state_dict(),
            "n_training_samples": 0,
            "n_training_steps": 0,
            "act_freq_scores": trainer.act_freq_scores,
            "n_forward_passes_since_fired": trainer.n_forward_passes_since_fired,
            "n_frac_active_samples": 0,
            "started_fine_tuning": False,
            "coefficient_schedulers": {},
        }
        load_state(folder / "trainer_state.pt", device, like)
        self.limit = weights.pop("limit")
        self.sae.load_state_dict(weights)
        trainer.load_trainer_state(folder)
        check_state(trainer.activation_scaler.scaling_factor, 1.0, "activation_scaler.json")

    def finish(self) -> Any:
        """Return the autoencoder, in the units of its inputs, as a `sae_lens.SAE`."""
        from sae_lens import SAE

        scale = self.trainer.activation_scaler.scaling_factor
        assert scale is not None
        self.sae.fold_activation_norm_scaling_factor(scale)
        self.trainer.set_final_sae_metadata()
        weights = {name: each.clone() for name, each in self.sae.state_dict().items()}
        self.sae.process_state_dict_for_saving_inference(weights)
        about = json.loads(json.dumps(self.sae.cfg.get_inference_sae_cfg_dict()))
        about["device"] = str(self.sae.device)
        trained = SAE.load_from_disk("", converter=lambda *_, **__: (about, weights))  # no disk
        return trained.eval().requires_grad_(False)


class BatchTopKTraining:
    """A batch-top-k dictionary (Bussmann et al., 2024) on its way: y from x, which may be the same.

    The k B largest of all features of a batch of B tokens are kept; what they have to exceed is
    averaged, and is the threshold of the jump-ReLU dictionary that is returned. Inside, inputs and
    outputs are centred, and scaled so that a typical token has norm 1.
    """

    def __init__(self, x: Tensor, y: Tensor, config: DictionaryConfig, metadata: dict[str, Any]):
        self.config, self.metadata, self.step = config, metadata, 0
        self.limits = largest_norm(x), largest_norm(y)
        x, y = inlying(self.limits, x, y)
        rng = self.rng = torch.Generator().manual_seed(config.seed)
        n_in, n_out, width = x.shape[1], y.shape[1], config.n_features
        decoder = torch.nn.functional.normalize(torch.randn(width, n_out, generator=rng), dim=1)
        encoder = decoder.T.contiguous()  # as its gradient is: fused steps go by memory
        if x is not y and not torch.equal(x, y):
            encoder = torch.randn(n_in, width, generator=rng)
            encoder = torch.nn.functional.normalize(encoder, dim=0)
        self.mean_x, self.mean_y = x.mean(0), y.mean(0)
        self.scale_x = float((x - self.mean_x).norm(dim=1).median())
        self.scale_y = float((y - self.mean_y).norm(dim=1).median())
        zeros = torch.zeros(width), torch.zeros(n_out)
        weights = [encoder, zeros[0], decoder, zeros[1]]  # W_enc, b_enc, W_dec, b_dec
        self.weights = [w.to(x.device).requires_grad_() for w in weights]
        self.optimizer = torch.optim.Adam(self.weights, lr=config.learning_rate, fused=True)
        self.silent = torch.zeros(width, device=x.device)  # steps since a feature was last active
        self.threshold = 0.0

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Make one step on inputs (B, D) and outputs (B, D_out); return the loss."""
        config, step = self.config, self.step
        x, y = inlying(self.limits, x, x if y is None else y)
        W_enc, b_enc, W_dec, b_dec = self.weights
        decay = min(1.0, max(0.1, 3 * (1 - step / config.steps)))
        rate = config.learning_rate * min(decay, (step + 1) / 100)
        self.optimizer.param_groups[0]["lr"] = rate
        inputs = (x - self.mean_x) / self.scale_x
        outputs = (y - self.mean_y) / self.scale_y
        product = torch.matmul if config.precision == "float32" else _in_half
        acts = product(inputs, W_enc).add_(b_enc).relu_()  # (B, F)
        smallest = _least_kept(acts, config.k)
        acts.mul_(acts >= smallest)
        error = (outputs - b_dec).sub_(product(acts, W_dec))
        loss = error.pow(2).sum(1).mean()
        # Gradients by hand: with autograd this takes twice the time.
        pull = error.mul(-2 / len(x))  # of the loss, at the reconstruction
        at_acts = product(pull, W_dec.T).mul_(acts > 0)  # (B, F)
        W_enc.grad, b_enc.grad = product(inputs.T, at_acts), at_acts.sum(0)
        W_dec.grad, b_dec.grad = product(acts.T, pull), pull.sum(0)
        self.silent = torch.where(acts.amax(0) > 0, 0.0, self.silent + 1)
        self.optimizer.step()
        W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        least = float(smallest)
        if step % 200 == 199 and step < 0.75 * config.steps:
            self._resample(inputs, error, least)
        self.threshold = least if step == 0 else 0.99 * self.threshold + 0.01 * least
        self.step += 1
        return loss

    def _resample(self, inputs: Tensor, error: Tensor, smallest: float) -> None:
        """Point dead features at badly reconstructed tokens, so that they are just active there."""
        dead = (self.silent >= 100).nonzero().flatten()
        if not len(dead):
            return
        W_enc, b_enc, W_dec, _ = self.weights
        badness = error.pow(2).sum(1).cpu()
        rows = torch.multinomial(badness, len(dead), replacement=True, generator=self.rng)
        towards = inputs[rows] / inputs[rows].pow(2).sum(1, keepdim=True)  # (dead, D)
        W_enc[:, dead] = 1.5 * smallest * towards.T
        b_enc[dead] = 0
        W_dec[dead] = torch.nn.functional.normalize(error[rows], dim=1)
        for weights, index in ((W_enc, (slice(None), dead)), (b_enc, dead), (W_dec, dead)):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimizer.state[weights][moment][index] = 0
        self.silent[dead] = 0

    _STATE = ("step", "limits", "scale_x", "scale_y", "mean_x", "mean_y", "silent", "threshold")

    def save(self, folder: Path) -> None:
        """Write all that later steps depend on."""
        torch.save(self._state(torch.optim.Adam.state_dict), folder / "state.pt")

    def _state(self, of_optimizer: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in self._STATE},
            "weights": [w.detach() for w in self.weights],
            "optimizer": of_optimizer(self.optimizer),
            "rng": self.rng.get_state(),
        }

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Go back to where `save` was called."""
        state = load_state(folder / "state.pt", self.mean_x.device, self._state(adam_like))
        for name in self._STATE:
            setattr(self, name, state[name])
        for ours, saved in zip(self.weights, state["weights"], strict=True):
            ours.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(state["rng"].cpu())

    @torch.no_grad()
    def finish(self) -> Any:
        """Return the dictionary, in the units of inputs and outputs, as a `sae_lens.SAE`."""
        from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.saes.transcoder import JumpReLUTranscoder, JumpReLUTranscoderConfig

        W_enc, b_enc, W_dec, b_dec = self.weights
        same = self.metadata.get("hook_name") == self.metadata.get("hook_name_out")
        common = {
            "d_in": W_enc.shape[0],
            "d_sae": W_enc.shape[1],
            "device": str(W_enc.device),
            "apply_b_dec_to_input": False,
            "metadata": SAEMetadata(**self.metadata),
        }
        with torch.random.fork_rng(devices=[]):  # it begins with random weights
            if same:
                per_head = str(self.metadata.get("hook_name")).endswith("hook_z")
                shapes = "hook_z" if per_head else "none"
                found = JumpReLUSAE(JumpReLUSAEConfig(**common, reshape_activations=shapes))
            else:
                config = JumpReLUTranscoderConfig(**common, d_out=W_dec.shape[1])
                found = JumpReLUTranscoder(config)
        encoder = W_enc * (self.scale_y / self.scale_x)
        found.W_enc.copy_(encoder)
        found.b_enc.copy_(b_enc * self.scale_y - self.mean_x @ encoder)
        found.threshold.fill_(self.threshold * self.scale_y)
        found.W_dec.copy_(W_dec)
        found.b_dec.copy_(b_dec * self.scale_y + self.mean_y)
        return found.eval().requires_grad_(False)


def largest_norm(x: Tensor) -> float:
    """Return the norm beyond which a token is outlying: so many times the median."""
    return OUTLYING * float(x.float().norm(dim=1).median())


def inlying(limits: Sequence[float], *values: Tensor) -> tuple[Tensor, ...]:
    """Leave out the tokens whose activations have an outlying norm, such as attention sinks."""
    values = tuple(each.float() for each in values)
    keep = torch.ones(len(values[0]), dtype=torch.bool, device=values[0].device)
    for limit, each in zip(limits, values, strict=False):
        keep &= each.norm(dim=1) <= limit
    return values if bool(keep.all()) else tuple(each[keep] for each in values)


def _least_kept(acts: Tensor, k: int) -> Tensor:
    """Return the smallest of the k B largest of (B, F), from every so many rows of large ones."""
    rows = acts[:: max(1, acts.numel() // _EXACT)]
    return rows.flatten().kthvalue(rows.numel() - k * len(rows) + 1).values


def _in_half(x: Tensor, y: Tensor) -> Tensor:
    """Multiply in bfloat16: several times faster where a processor has instructions for it."""
    return (x.bfloat16() @ y.bfloat16()).float()
