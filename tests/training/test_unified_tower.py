"""The unified tower: one step against float64 NumPy, several calls of a step as one, and state that comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index.bags import stack_bags
from tests_support import TINY
from training.config import Config, load_config
from training.unified_tower import UnifiedTower
from unified_support import bags_of, by_numpy, random_bags, randomise

TEXTS = ("apple pie", "", "bicycle repair and apple pie", "日本 料理", "apple pie", "größe " * 300)
OTHERS = ("pie", "apple", "chess opening", "bicycle")


def config(*settings: str) -> Config:
    return load_config(None, [*TINY, "training.feature_dropout=0", *settings])


def tower(*settings: str, seed: int = 0) -> UnifiedTower:
    return randomise(UnifiedTower(config(*settings), seed))


def chance() -> np.random.Generator:
    return np.random.default_rng(4)


def direction(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(8).standard_normal((count, 32)).astype(np.float32))


@pytest.mark.parametrize("hidden", [0, 32])
def test_vectors_are_those_of_float64_numpy(hidden: int) -> None:
    made = tower(f"tower.hidden={hidden}")
    bags = made.prepare(TEXTS)
    wanted = by_numpy(made, bags)
    assert np.abs(made.encode(bags).numpy() - wanted).max() < 1e-5
    assert np.abs(made.batch(bags, chance()).detach().numpy() - wanted).max() < 1e-5
    lengths = np.linalg.norm(wanted, axis=1)
    assert np.delete(lengths, 1) == pytest.approx(1.0)
    assert made.encode(bags.take(np.zeros(0, dtype=np.int64))).shape == (0, 32)
    assert made.batch(bags.take(np.zeros(0, dtype=np.int64)), chance()).shape == (0, 32)


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("calls", [2, 3])
def test_several_calls_of_a_step_equal_one_stacked_call(hidden: int, calls: int) -> None:
    settings = (f"tower.hidden={hidden}",)
    one, parts = tower(*settings), tower(*settings)
    texts = [TEXTS, OTHERS, ("chess", "apple")][:calls]
    bags = [one.prepare(part) for part in texts]
    for step in range(3):
        together = one.batch(stack_bags(*bags), chance())
        (together * direction(len(together))).sum().backward()  # type: ignore[no-untyped-call]
        apart = torch.cat([parts.batch(part, chance()) for part in bags])
        (apart * direction(len(apart))).sum().backward()  # type: ignore[no-untyped-call]
        for whole, merged in zip(one.gradients(), parts.gradients(), strict=True):
            assert torch.allclose(whole, merged, atol=1e-5)
        one.update(1.0 - step / 10)
        parts.update(1.0 - step / 10)
        assert one.gradients() == []
    for name, value in one.tensors().items():
        assert torch.allclose(value, parts.tensors()[name], atol=1e-5), name


def test_calls_without_a_gradient_have_no_part_in_the_step() -> None:
    one, other = tower(), tower()
    bags = one.prepare(TEXTS)
    for made in (one, other):
        if made is other:
            with torch.no_grad():
                made.batch(bags, chance())
            made.batch(made.prepare(OTHERS), chance())  # in the graph, and never part of a loss
        vectors = made.batch(bags, chance())
        (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
        made.update(1.0)
    assert torch.equal(one.embedding.table, other.embedding.table)


def test_a_step_touches_the_rows_of_its_texts_alone() -> None:
    made = tower()
    bags, before = made.prepare(TEXTS), made.embedding.table.clone()
    vectors = made.batch(bags, chance())
    (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
    made.update(1.0)
    changed = (made.embedding.table != before).any(dim=1).nonzero()[:, 0].tolist()
    assert set(changed) <= set(bags.rows.tolist())
    assert len(changed) > 0.9 * len(set(bags.rows.tolist()))


def test_the_same_chance_gives_the_same_vectors_and_leaves_torch_s_own_alone() -> None:
    made = UnifiedTower(load_config(None, [*TINY, "training.feature_dropout=0.5", "tower.dropout=0.5"]), 0)
    made.dense.head.narrow.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    bags, before = made.prepare(TEXTS), torch.get_rng_state()
    one, same = made.batch(bags, chance()), made.batch(bags, chance())
    other = made.batch(bags, np.random.default_rng(5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(made.encode(bags), made.encode(bags))


def step(made: UnifiedTower, times: int = 1) -> None:
    bags = made.prepare(TEXTS)
    for _ in range(times):
        vectors = made.batch(bags, chance())
        (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
        made.update(0.5)


def test_what_tensors_gives_load_takes_and_training_goes_on_alike() -> None:
    one = tower()
    step(one, 3)
    kept = {name: value.clone() for name, value in one.tensors().items()}
    other = tower(seed=77)
    other.load(kept)
    step(one)
    step(other)
    for name, value in one.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name
        assert value.device.type == "cpu"
    weights = [name for name in kept if name.startswith("weight.")]
    assert {"weight.table", "weight.gates", "weight.head.narrow.weight"} <= set(weights)


@pytest.mark.parametrize("settings", [("tower.dim=16",), ("features.rows=64",), ("tower.hidden=8",)])
def test_another_model_s_tensors_are_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        tower(*settings).load(tower().tensors())


def test_seeds_give_different_towers_and_equal_seeds_the_same() -> None:
    def table(seed: int) -> Any:
        return UnifiedTower(config(), seed).embedding.table

    assert torch.equal(table(3), table(3))
    assert not torch.equal(table(3), table(4))


def test_the_exported_graph_says_the_same(tmp_path: Path) -> None:
    from index.encoder import Encoder
    from index.features import Featurizer

    made = tower()
    made.export(tmp_path, "query")
    encoder = Encoder(tmp_path / "query.onnx", Featurizer(made.spec))
    assert np.abs(encoder.texts(TEXTS) - by_numpy(made, made.prepare(TEXTS))).max() < 1e-5


HISTORIES = 'features.fields={a={kind="history", top=3}, b={kind="history", top=50}}'
FORMS = {
    "one bag": (1, 0, ()),
    "one bag, histories": (1, 2, (HISTORIES,)),
    "separate": (3, 0, ("features.separate=true", "tower.row=8")),
    "separate, histories": (6, 2, ("features.separate=true", "tower.row=8", "features.probes=2", HISTORIES)),
    "one slot": (1, 1, ("features.separate=true", "features.pairs=false", "features.ngrams=[]",
                        'features.fields={a={kind="history"}}')),
}  # fmt: skip


@pytest.mark.parametrize("hidden", [0, 32])
@pytest.mark.parametrize("form", list(FORMS))
def test_slots_and_histories_are_those_of_float64_numpy(form: str, hidden: int, tmp_path: Path) -> None:
    slots, histories, settings = FORMS[form]
    made = tower(*settings, f"tower.hidden={hidden}")
    bags = random_bags(4096, slots, histories)
    wanted = by_numpy(made, bags)
    assert np.abs(made.encode(bags).numpy() - wanted).max() < 1e-5
    assert np.abs(made.batch(bags, chance()).detach().numpy() - wanted).max() < 1e-5
    none = bags.take(np.zeros(0, dtype=np.int64))
    assert made.encode(none).shape == made.batch(none, chance()).shape == (0, 32)


@pytest.mark.parametrize("form", ["one bag, histories", "separate, histories"])
def test_calls_of_slots_and_histories_add_up(form: str) -> None:
    slots, histories, settings = FORMS[form]
    one, parts = tower(*settings), tower(*settings)
    bags = random_bags(4096, slots, histories), random_bags(4096, slots, histories, seed=1)
    for _ in range(3):
        together = one.batch(stack_bags(*bags), chance())
        (together * direction(len(together))).sum().backward()  # type: ignore[no-untyped-call]
        apart = torch.cat([parts.batch(part, chance()) for part in bags])
        (apart * direction(len(apart))).sum().backward()  # type: ignore[no-untyped-call]
        pairs = list(zip(one.gradients(), parts.gradients(), strict=True))
        assert len(pairs) == sum(1 for _ in one.dense.parameters()) + 3
        assert all(torch.allclose(whole, merged, atol=1e-4) for whole, merged in pairs)
        one.update(0.3)
        parts.update(0.3)
        # Adagrad makes steps of what is nothing but rounding, such as the gate of a bag's only row.
        parts.load(one.tensors())


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_is_kept_and_goes_on(form: str) -> None:
    slots, histories, settings = FORMS[form]
    one, other = tower(*settings), tower(*settings, seed=5)
    bags = random_bags(4096, slots, histories)

    def train(made: UnifiedTower) -> None:
        vectors = made.batch(bags, chance())
        (vectors * direction(len(vectors))).sum().backward()  # type: ignore[no-untyped-call]
        made.update(0.5)

    train(one)
    other.load({name: value.clone() for name, value in one.tensors().items()})
    for made in (one, other):
        train(made)
    assert all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def test_known_rows_are_those_that_training_touched() -> None:
    made = tower(HISTORIES)
    assert made.known.shape == (4096,) and not made.known.any()
    bags = bags_of([[{7: 1.0}], [{3: 2.0, 4000: 1.0}]], [[11, 12], []], [[], [13]])
    vectors = made.batch(bags, chance())
    (vectors * direction(2)).sum().backward()  # type: ignore[no-untyped-call]
    made.update(1.0)
    assert np.flatnonzero(made.known).tolist() == [3, 7, 11, 12, 13, 4000]


def test_values_of_a_history_are_left_out_at_random() -> None:
    made = UnifiedTower(config("training.feature_dropout=0.5", HISTORIES), 0)
    bags = bags_of([[{}]] * 200, [[5, 9]] * 200, [[]] * 200)
    vectors = made.batch(bags, chance()).detach().numpy()
    lengths = np.linalg.norm(vectors, axis=1)
    assert 25 < (lengths == 0).sum() < 75  # both are left out of a quarter
    assert np.array_equal(vectors, made.batch(bags, chance()).detach().numpy())
    assert len(np.unique(vectors.round(5), axis=0)) > 3


def test_long_texts_begin_apart_where_each_slot_has_a_reader() -> None:
    """Their means are small at first: a bias beside them would make all texts one vector, and it stayed so."""
    config = load_config(None, ["features.separate=true", "features.rows=65536", "tower.row=32"])
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in random.integers(0, 10**6, 120)) for _ in range(20)]
    tower = UnifiedTower(config, 0)
    vectors = tower.encode(tower.prepare(texts)).double()
    cosines = (vectors @ vectors.T)[~torch.eye(20, dtype=torch.bool)]
    assert cosines.mean() < 0.6
