"""The small autoencoder: its loss, its constraints, its seeds."""

from __future__ import annotations

import math

import pytest
import torch

from circuit_toolkit.errors import InputError
from circuit_toolkit.head_codes.autoencoder import CodeAutoencoders, train_autoencoders


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(0))


def test_codes_and_reconstruction_by_hand():
    coder = CodeAutoencoders(
        encoder=torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
        bias=torch.tensor([[[0.5, -1.0]]]),
        decoder=torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]),
        centre=torch.tensor([[[1.0, 1.0]]]),
        loss=torch.zeros(1),
    )
    codes = coder.encode(torch.tensor([[[2.0, 1.5]]]))
    assert codes.tolist() == [[[1.5, 0.0]]]  # 2 - 1 + .5, and 1.5 - 1 - 1 < 0
    assert coder.decode(codes).tolist() == [[[4.0, 1.0]]]


def test_loss_is_error_of_an_element_plus_sparsity_of_a_row(rows):
    # The learning rate is so small that the loss reported after the only step is that of the
    # weights returned, to its size.
    made = train_autoencoders(rows, n_features=5, l1=0.3, steps=1, learning_rate=1e-9)
    codes = made.encode(rows)
    error = ((made.decode(codes) - rows) ** 2).mean((1, 2))
    torch.testing.assert_close(made.loss, error + 0.3 * codes.sum(2).mean(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("reference", [False, True])
def test_weights_stay_normalised(rows, reference):
    made = train_autoencoders(rows, n_features=5, steps=20, reference=reference)
    length = made.encoder.norm(dim=1)
    torch.testing.assert_close(length, torch.ones_like(length))
    length = made.decoder.norm(dim=1 if reference else 2)
    torch.testing.assert_close(length, torch.ones_like(length))


def test_untrained_autoencoders_are_as_they_are_drawn(rows):
    made = train_autoencoders(rows, n_features=5, steps=0)
    assert all(math.isnan(loss) for loss in made.loss.tolist())
    assert not made.centre.any()
    assert float(made.bias.abs().max()) <= 1 / math.sqrt(6)


def test_training_lowers_the_loss_and_recovers_planted_directions():
    rng = torch.Generator().manual_seed(1)
    directions = torch.eye(8)[:4]
    which = torch.randint(4, (1, 400), generator=rng)
    x = directions[which] * (1 + torch.rand(1, 400, 1, generator=rng))
    early = train_autoencoders(x, n_features=16, steps=1)
    made = train_autoencoders(x, n_features=16, steps=500)
    assert float(made.loss) < 0.2 * float(early.loss)
    found = (made.decode(made.encode(x)) - x).square().mean() / x.var()
    assert float(found) < 0.05


def test_every_seed_is_trained_as_if_alone(rows):
    both = train_autoencoders(rows, n_features=5, steps=30)
    again = train_autoencoders(rows, n_features=5, steps=30)
    assert torch.equal(both.encoder, again.encoder)
    other = rows.clone()
    other[1] += 1
    # Rows of the second seed do not reach the first one.
    changed = train_autoencoders(other, n_features=5, steps=30)
    torch.testing.assert_close(both.encoder[0], changed.encoder[0], atol=1e-6, rtol=0)
    assert not torch.equal(both.encoder[1], changed.encoder[1])


@pytest.mark.parametrize(
    "options", [{"n_features": 0}, {"steps": -1}, {"l1": -0.1}, {"learning_rate": 0.0}]
)
def test_settings_out_of_range_are_refused(rows, options):
    with pytest.raises(InputError):
        train_autoencoders(rows, **options)


def test_nan_is_refused(rows):
    rows[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        train_autoencoders(rows)
