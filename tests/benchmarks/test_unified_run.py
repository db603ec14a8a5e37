"""A run of the table-size benchmark on a small corpus: every method trains, and its figure is the trainer's own P@1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support import write_corpus
from unified_run import judged, load, measure, train, vocabulary
from unified_tasks import METHODS, Method, Task

TASK = Task(
    "small",
    "accuracy",
    lambda data: data,
    ("tower.dim=16", "tower.hidden=8", "training.epochs=2", "training.batch=64", "training.dev_share=0.2"),
    {},
    8,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("unified") / "corpus", train=200)


def test_the_vocabulary_is_the_rows_of_a_table_without_collisions(corpus: Path) -> None:
    counts = vocabulary(TASK, corpus)
    _, config = load(corpus, TASK.options(METHODS[0], 1, 0))
    assert len(counts) == len(config.features.namespaces) == 3
    assert sum(counts) == config.features.rows


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_within_its_bytes(method: Method, corpus: Path) -> None:
    counts = vocabulary(TASK, corpus)
    found = measure(TASK, corpus, TASK.options(method, 60, 0))
    assert found.rows * found.width == (sum(counts) if method.table == "exact" else 60) * TASK.row
    assert found.test is not None
    assert 0 <= min(found.dev, found.test) <= max(found.dev, found.test) <= 100
    assert found.queries == 60


def test_dev_is_judged_as_the_trainer_judges_it_and_test_can_stay_unread(corpus: Path) -> None:
    settings = TASK.options(METHODS[3], 500, 1)
    dataset, config = load(corpus, settings)
    trainer = train(dataset, config)
    dev, queries = judged(TASK, trainer, dataset.dev.items, dataset.dev.relevance)
    assert queries == dataset.dev.relevance.shape[0]
    assert dev == pytest.approx(trainer.dev_figures()["P@1"], abs=1e-6)
    again = measure(TASK, corpus, settings, test=False)
    assert (again.dev, again.test, again.queries) == (dev, None, 0)
