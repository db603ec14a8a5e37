"""The figures of the table-size benchmark against plain loops, and settings that give every method the same bytes."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from training.config import load_config
from unified_tasks import METHODS, TASKS, Task, auc, hit_rate, inline_table, method_of, task_of


def test_auc_is_the_share_of_pairs_in_order_with_ties_as_half() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 6, 60).astype(np.float32)
    positive = random.random(60) < 0.3
    pairs = [float(high > low) + 0.5 * float(high == low) for high in scores[positive] for low in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert auc(np.array([2.0, 1.0]), np.array([True, False])) == 1
    assert auc(np.zeros(5), np.array([True, False, False, True, True])) == 0.5


@pytest.mark.parametrize("depth", [1, 3, 10, 50])
def test_hit_rate_is_that_of_a_loop(depth: int) -> None:
    random = np.random.default_rng(1)
    scores = random.permutation(400).reshape(20, 20).astype(np.float32)
    relevance = csr_matrix((random.random((20, 20)) < 0.1).astype(np.float32))
    hits = 0
    for row in range(20):
        best = sorted(range(20), key=lambda column: -scores[row, column])[:depth]
        hits += any(relevance[row, column] for column in best)
    assert hit_rate(scores, relevance, depth) == pytest.approx(hits / 20)


def test_auc_of_a_task_is_of_the_difference_of_its_two_labels() -> None:
    task = task_of("adult-income")
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.4]], dtype=np.float32)
    relevance = csr_matrix(np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32))
    # Of ">50K" over "<=50K": -0.8, 0.1, -0.1; positives are the first and the last, both below the negative.
    assert task.judge(scores, relevance, ["<=50K", ">50K"]) == 0
    assert task.judge(scores[:, ::-1], relevance[:, ::-1], [">50K", "<=50K"]) == 0
    assert task.judge(-scores, relevance, ["<=50K", ">50K"]) == 100


def test_accuracy_is_the_hit_rate_of_the_first_and_hr_of_ten() -> None:
    scores = np.tile(np.arange(12, 0, -1, dtype=np.float32), (3, 1))
    relevance = csr_matrix((np.ones(3, dtype=np.float32), ([0, 1, 2], [0, 9, 10])), shape=(3, 12))
    names = [str(place) for place in range(12)]
    assert task_of("clinc150").judge(scores, relevance, names) == pytest.approx(100 / 3)
    assert task_of("movielens-latest-small").judge(scores, relevance, names) == pytest.approx(200 / 3)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_method_has_settings_that_there_are_and_the_same_bytes(task: Task) -> None:
    configs = [load_config(None, task.options(method, 1001, 2)) for method in METHODS]
    assert {config.features.rows * config.tower.row for config in configs} == {1001 * task.row}
    assert {config.features.seed for config in configs} == {config.training.seed for config in configs} == {2}
    assert all(config.features.separate for config in configs)
    looked_up = [
        config.tower.row * (2 if config.features.table.startswith("quotient") else config.features.probes)
        for config in configs
    ]
    assert set(looked_up) == {task.row}
    for method, config in zip(METHODS, configs, strict=True):
        assert config.features.table == method.table
        assert {field.name for field in config.features.fields} == set(task.fields)
        assert {field.probes for field in config.features.fields} <= {method.probes}


def test_an_inline_table_is_toml_whatever_the_names() -> None:
    fields: dict[str, dict[str, str | int]] = {
        "a b": {"kind": "numeric", "probes": 2},
        'quo"te': {"kind": "text"},
        "größe": {"tower": "query"},
    }
    assert tomllib.loads(f"value = {inline_table(fields)}")["value"] == fields
    assert inline_table({}) == "{}"


def test_names_are_found_and_differ() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert [method_of(method.name) for method in METHODS] == list(METHODS)
    assert [task_of(task.name) for task in TASKS] == list(TASKS)
