"""One training of the table-size benchmark, in this process, and what its tower gets right on dev and on test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from training.config import Config, load_config
from training.corpus import load_corpus
from training.dataset import Dataset, load_dataset, preparers
from training.tower import Items
from training.trainer import Trainer
from unified_tasks import COLLISIONLESS, METHODS, Measured, Task

_BLOCK = 2048


def load(folder: Path, settings: Sequence[str]) -> tuple[Dataset, Config]:
    """The corpus as these settings read it, and the settings with what was fitted on train in them."""
    config = load_config(None, settings)
    dataset = load_dataset(folder, config)
    return dataset, replace(config, features=dataset.features)


def vocabulary(task: Task, folder: Path, extra: Sequence[str] = ()) -> list[int]:
    """Distinct values of each feature on train, at least 1."""
    _, config = load(folder, [*task.options(COLLISIONLESS, 1, 0), *extra])
    # A table with a row for each value gives each part as many as its feature has values.
    _, config = load(folder, [*task.options(METHODS[1], config.features.rows, 0), *extra])
    return [last - first for first, last in itertools.pairwise(config.features.parts)]


def train(dataset: Dataset, config: Config) -> Trainer:
    """All epochs without checkpoints; the last one counts, for every method alike."""
    trainer = Trainer(dataset, config)
    for epoch in range(config.training.epochs):
        for batch in trainer.batches.epoch(epoch, trainer.batches.order(epoch)):
            trainer.step(batch)
    return trainer


def measure(
    task: Task, folder: Path, settings: Sequence[str], *, extra: Sequence[str] = (), test: bool = True
) -> Measured:
    """Train once and judge. extra: further settings, over the task's own. test: whether it is read at all."""
    dataset, config = load(folder, [*settings, *extra])
    began = time.perf_counter()
    trainer = train(dataset, config)
    seconds = time.perf_counter() - began
    dev, _ = judged(task, trainer, dataset.dev.items, dataset.dev.relevance)
    figure, queries = None, 0
    if test:
        split = load_corpus(folder, ["test"], config.features.fields).splits["test"]
        prepare, _ = preparers(config, dataset.lexicon)
        figure, queries = judged(task, trainer, prepare(split.texts, split.fields), split.relevance)
    return Measured(config.features.rows, config.tower.row, dev, figure, queries, seconds)


def judged(task: Task, trainer: Trainer, items: Items, relevance: csr_matrix) -> tuple[float, int]:
    """The task's figure in percent, by exact search of the tower alone, over the queries that have labels; how many."""
    rows = np.flatnonzero(np.diff(relevance.indptr))
    labels = trainer.label_vectors()
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    scores = [(trainer.model.queries.encode(items.take(block)) @ labels.T).numpy() for block in blocks]
    return task.judge(np.concatenate(scores), relevance[rows], trainer.dataset.label_ids), len(rows)
