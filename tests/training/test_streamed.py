"""Streamed losses against the direct ones over the whole score matrix: values and gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from index.errors import InputError
from training.losses import NamedLoss, make_loss
from training.streamed import STREAMED, Pairs, streamed_logsumexp, streamed_loss

SCALE = 20.0


@dataclass(frozen=True)
class Case:
    """Unit vectors in float64 and which labels are a query's positives."""

    queries: Tensor
    labels: Tensor
    positive: Tensor

    @classmethod
    def of(cls, queries: int, labels: int, share: float = 0.15, seed: int = 0) -> Case:
        random = np.random.default_rng(seed)
        vectors = [torch.from_numpy(random.standard_normal((count, 8))) for count in (queries, labels)]
        positive = torch.from_numpy(random.random((queries, labels)) < share)
        unit = [torch.nn.functional.normalize(matrix, dim=1) for matrix in vectors]
        return cls(unit[0], unit[1], positive)

    @property
    def pairs(self) -> Pairs:
        """In no order of rows or columns."""
        rows, columns = self.positive.nonzero(as_tuple=True)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        return rows[order], columns[order]


def both(loss: NamedLoss, case: Case, chunk: int, weight: Tensor | None = None) -> list[list[Tensor]]:
    """Loss, gradients of queries and labels, and of the loss' own parameters: direct, then streamed."""
    found = []
    for streamed in (False, True):
        queries, labels = (value.clone().requires_grad_() for value in (case.queries, case.labels))
        for parameter in loss.parameters():
            parameter.grad = None
        if streamed:
            value = streamed_loss(loss, queries, labels, case.pairs, SCALE, weight, chunk)
        else:
            value = loss(SCALE * queries @ labels.T, case.positive)
        value.backward()  # type: ignore[no-untyped-call]
        gradients = [leaf.grad for leaf in (queries, labels, *loss.parameters())]
        found.append([value.detach(), *(gradient.clone() for gradient in gradients if gradient is not None)])
    return found


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize(
    ("queries", "labels", "chunk"),
    [
        (6, 50, 7),
        (6, 49, 7),
        (6, 50, 64),
        (6, 50, 50),
        (6, 50, 1),
        (5, 1, 3),
        (1, 1, 1),
        (1, 20, 6),
        (0, 20, 6),
        (4, 3, 2),
    ],
)
def test_equals_the_direct_loss(name: str, queries: int, labels: int, chunk: int) -> None:
    for share in (0.0, 0.15, 1.0):
        direct, streamed = both(make_loss(name, k=3.0), Case.of(queries, labels, share), chunk)
        torch.testing.assert_close(streamed, direct, rtol=1e-6, atol=1e-9)
        assert all(torch.isfinite(value).all() for value in streamed)


@pytest.mark.parametrize("name", STREAMED)
def test_the_last_label_of_every_chunk_can_be_positive(name: str) -> None:
    case = Case.of(4, 20)
    for column in (4, 9, 19):
        case.positive[:] = False
        case.positive[2, column] = True
        direct, streamed = both(make_loss(name, k=3.0), case, chunk=5)
        torch.testing.assert_close(streamed, direct, rtol=1e-6, atol=1e-9)
        assert float(streamed[0]) > 0
        assert float(streamed[2][column].norm()) > 0


@pytest.mark.parametrize("k", [0.5, 1.0, 4.5, 30.0, 50.0, 1000.0])
def test_soft_top_k_for_every_k(k: float) -> None:
    direct, streamed = both(make_loss("soft_top_k", k=k, alpha=1.0), Case.of(6, 50), 7)
    torch.testing.assert_close(streamed, direct, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", STREAMED)
def test_frozen_labels_get_no_gradient(name: str) -> None:
    case = Case.of(6, 50)
    queries = case.queries.clone().requires_grad_()
    streamed_loss(make_loss(name), queries, case.labels, case.pairs, SCALE, chunk=7).backward()  # type: ignore[no-untyped-call]
    assert case.labels.grad is None
    assert queries.grad is not None
    torch.testing.assert_close(queries.grad, both(make_loss(name), case, 7)[0][1], rtol=1e-6, atol=1e-9)


def test_logsumexp_equals_numpy_with_weights_and_pairs_left_out() -> None:
    case = Case.of(5, 23, 0.3)
    case.positive[1] = True
    weight = torch.from_numpy(np.random.default_rng(1).standard_normal(23))
    weight[3] = -torch.inf
    scores = 3.0 * case.queries.numpy() @ case.labels.numpy().T + weight.numpy()
    scores[case.positive.numpy()] = -np.inf
    with np.errstate(divide="ignore"):
        expected = np.log(np.exp(scores).sum(axis=1))
    found = streamed_logsumexp(case.queries, case.labels, case.pairs, 3.0, weight, chunk=4)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert found[1] == -torch.inf


def test_logsumexp_gradcheck() -> None:
    case = Case.of(4, 11, 0.3)
    case.positive[1] = False
    case.positive[0, 0] = False
    leaves = [value.clone().requires_grad_() for value in (case.queries, case.labels)]
    weight = torch.linspace(-1, 1, 11, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda queries, labels: streamed_logsumexp(queries, labels, case.pairs, 3.0, weight, 4), leaves
    )


def test_log_weight_counts_in_the_denominator_only() -> None:
    """Two labels of one vector in the denominator are one label with weight log 2."""
    case = Case.of(6, 30)
    case.positive[:, 20:] = False
    double = Case(case.queries, torch.cat([case.labels, case.labels[20:]]), torch.zeros(6, 40, dtype=torch.bool))
    double.positive[:, :30] = case.positive
    weight = torch.zeros(30, dtype=torch.float64)
    weight[20:] = np.log(2)
    for name in ("decoupled_softmax", "softmax", "softmax_without_positives"):
        loss = make_loss(name)
        weighted = streamed_loss(loss, case.queries, case.labels, case.pairs, SCALE, weight, 7)
        torch.testing.assert_close(weighted, loss(SCALE * double.queries @ double.labels.T, double.positive))


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrower_types_accumulate_in_float32(name: str, dtype: torch.dtype) -> None:
    case = Case.of(6, 300, 0.02)
    narrow = Case(case.queries.to(dtype), case.labels.to(dtype), case.positive)
    loss, queries, labels = both(make_loss(name), narrow, 64)[1][:3]
    exact = both(make_loss(name), Case(narrow.queries.double(), narrow.labels.double(), case.positive), 64)[0]
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact[0]), rel=1e-5)
    assert queries.dtype == labels.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    for found, wanted in ((queries, exact[1]), (labels, exact[2])):
        assert float((found.double() - wanted).norm()) <= tolerance * float(wanted.norm())


def test_autocast_does_not_narrow_the_scores() -> None:
    case = Case.of(6, 50)
    queries, labels = case.queries.float().requires_grad_(), case.labels.float()
    loss = make_loss("decoupled_softmax")
    plain = streamed_loss(loss, queries, labels, case.pairs, SCALE, chunk=7)
    with torch.autocast("cpu", torch.bfloat16):
        assert streamed_loss(loss, queries, labels, case.pairs, SCALE, chunk=7).item() == plain.item()


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most elements of any tensor that an operation gives."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.most = max(self.most, value.numel())
        return result


@pytest.mark.parametrize("name", STREAMED)
def test_never_holds_the_scores_whole(name: str) -> None:
    case = Case.of(40, 2000, 0.002)
    queries, labels = (value.clone().requires_grad_() for value in (case.queries, case.labels))
    with Largest() as largest:  # type: ignore[no-untyped-call]
        streamed_loss(make_loss(name), queries, labels, case.pairs, SCALE, chunk=100).backward()  # type: ignore[no-untyped-call]
    assert largest.most == 2000 * 8  # the labels' gradient; the scores are 80,000


def test_overwritten_inputs_are_noticed() -> None:
    case = Case.of(4, 9)
    queries, labels = case.queries.clone().requires_grad_(), case.labels.clone()
    loss = streamed_loss(make_loss("softmax"), queries, labels, case.pairs, SCALE, chunk=4)
    labels.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def test_no_labels_at_all() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for name in STREAMED:
        queries = torch.ones(3, 8, requires_grad=True)
        loss = streamed_loss(make_loss(name), queries, torch.ones(0, 8), (none, none), SCALE)
        assert float(loss.detach()) == 0.0


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([0], [9], "label numbers must be 0 to 8, are 9 to 9"),
        ([0, 1], [-1, 2], "label numbers must be 0 to 8, are -1 to 2"),
        ([4], [0], "query numbers must be 0 to 3, are 4 to 4"),
        ([-1], [0], "query numbers must be 0 to 3, are -1 to -1"),
    ],
)
def test_pairs_out_of_range_are_refused(rows: list[int], columns: list[int], message: str) -> None:
    case = Case.of(4, 9)
    with pytest.raises(InputError, match=message):
        streamed_logsumexp(case.queries, case.labels, (torch.tensor(rows), torch.tensor(columns)), SCALE, chunk=4)


def test_what_does_not_fit_is_refused() -> None:
    case = Case.of(4, 9)
    loss = make_loss("softmax")
    with pytest.raises(InputError, match="one width"):
        streamed_loss(loss, case.queries, case.labels[:, :5], case.pairs, SCALE)
    with pytest.raises(InputError, match="one float type"):
        streamed_loss(loss, case.queries, case.labels.float(), case.pairs, SCALE)
    with pytest.raises(InputError, match="chunk: must be at least 1, is 0"):
        streamed_loss(loss, case.queries, case.labels, case.pairs, SCALE, chunk=0)
    with pytest.raises(InputError, match="one number for each of 9 labels"):
        streamed_loss(loss, case.queries, case.labels, case.pairs, SCALE, torch.zeros(8))
    with pytest.raises(InputError, match="softmax_one_positive cannot be streamed; choose one of decoupled_softmax"):
        streamed_loss(make_loss("softmax_one_positive"), case.queries, case.labels, case.pairs, SCALE)
    with pytest.raises(InputError, match="sigmoid takes no label weights"):
        streamed_loss(make_loss("sigmoid"), case.queries, case.labels, case.pairs, SCALE, torch.zeros(9))
