"""Runs of towers with histories and a bag for each feature: they learn, resume exactly, and go in chunks."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests_support import write_lines
from trainer_support import check_resuming, trainer_of
from training.config import load_config
from training.dataset import Dataset, load_dataset

HISTORY = 'features.fields={seen={kind="history", top=4, tower="query"}}'
FORMS = {
    "one bag": (HISTORY, "training.epochs=2"),
    "separate": (HISTORY, "training.epochs=2", "features.separate=true", "tower.row=8", "tower.dropout=0.1"),
    "apart, in chunks": (HISTORY, "training.epochs=2", "tower.shared=false", "training.chunk=7", "training.clip=1"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine in ten records have seen up to 40 things, and want the one after the last of these; some have seen none."""
    folder, chooser = tmp_path_factory.mktemp("histories") / "corpus", random.Random(3)
    folder.mkdir()
    write_lines(folder / "labels.jsonl", [{"id": str(place), "text": f"thing {place}"} for place in range(12)])
    rows: list[dict[str, object]] = []
    for number in range(240):
        seen = [chooser.randrange(12) for _ in range(chooser.randrange(1, 40))] if number % 10 else []
        wanted = (seen[-1] + 1) % 12 if seen else 0
        record: dict[str, object] = {"id": str(number), "text": "next", "labels": [str(wanted)]}
        rows.append({**record, "fields": {"seen": [str(one) for one in seen]}} if seen else record)
    write_lines(folder / "train.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def dataset_of(corpus: Path) -> Callable[..., Dataset]:
    from trainer_support import SHORT

    return lambda *settings: load_dataset(corpus, load_config(None, [*SHORT, *settings]))


@pytest.mark.parametrize("form", ["one bag", "separate"])
def test_what_was_seen_last_is_learned(form: str, dataset_of: Callable[..., Dataset], tmp_path: Path) -> None:
    settings = (*FORMS[form], "training.epochs=30", "training.feature_dropout=0", "tower.dropout=0")
    trainer = trainer_of(dataset_of(*settings), *settings)
    trainer.train(tmp_path)
    best = max(point.dev["P@1"] for point in trainer.position.curve)
    assert best > 70  # one label in twelve by chance


@pytest.mark.parametrize("form", list(FORMS))
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    form: str, dataset_of: Callable[..., Dataset], corpus: Path, tmp_path: Path
) -> None:
    settings = FORMS[form]
    dataset = dataset_of(*settings)
    check_resuming((1, trainer_of(dataset, *settings).per_epoch + 2), dataset, settings, corpus, tmp_path)


@pytest.mark.parametrize("form", ["one bag", "separate"])
def test_in_chunks_a_step_is_the_same(form: str, dataset_of: Callable[..., Dataset]) -> None:
    settings = (*FORMS[form], "training.feature_dropout=0", "tower.dropout=0")
    dataset = dataset_of(*settings)
    whole, parts = trainer_of(dataset, *settings), trainer_of(dataset, *settings, "training.chunk=5")
    for made in (whole, parts):
        made.step(next(iter(made.batches.epoch(0, made.batches.order(0)))))
    for name, value in whole.model.tensors().items():
        if name.startswith("tower.adagrad"):  # sums of squares: no small difference is blown up
            assert torch.allclose(value, parts.model.tensors()[name], atol=1e-6), name
