"""The reader and the pooling of slots against float64 NumPy."""

from __future__ import annotations

import numpy as np
import torch

from training.reader import Reader, slot_means


def test_every_slot_is_read_by_columns_of_its_own() -> None:
    reader = Reader(3, 4, 5, 0.5).eval()
    slots = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    weight = reader.linear.weight.detach().double().numpy()
    wanted = reader.linear.bias.detach().double().numpy() + sum(
        slots[:, slot].double().numpy() @ weight[:, slot * 4 : (slot + 1) * 4].T for slot in range(3)
    )
    assert np.abs(reader(slots).detach().numpy() - wanted).max() < 1e-6
    assert reader(torch.zeros(0, 3, 4)).shape == (0, 5)


def test_dropout_is_of_the_pooled_numbers() -> None:
    reader = Reader(2, 50, 1, 0.5).train()
    torch.nn.init.ones_(reader.linear.weight)
    torch.nn.init.zeros_(reader.linear.bias)
    torch.manual_seed(0)
    found = reader(torch.ones(200, 2, 50)).detach()
    assert 95 < float(found.mean()) < 105  # what is kept counts double
    assert float(found.std()) > 5


def test_the_mean_of_an_empty_slot_is_zero() -> None:
    sums = torch.arange(12.0).reshape(2, 2, 3)
    found = slot_means(sums, torch.tensor([[2.0, 0.0], [4.0, 0.5]]))
    assert found.tolist() == [[[0.0, 0.5, 1.0], [3.0, 4.0, 5.0]], [[1.5, 1.75, 2.0], [18.0, 20.0, 22.0]]]
