"""What the tests of the trainer share: a small corpus, and its dataset under any settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests_support import write_corpus
from trainer_support import SHORT
from training.config import load_config
from training.dataset import Dataset, load_dataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("short") / "corpus", train=80, test=5)


@pytest.fixture(scope="module")
def datasets(corpus: Path) -> Callable[..., Dataset]:
    def load(*settings: str) -> Dataset:
        return load_dataset(corpus, load_config(None, [*SHORT, *settings]))

    return load
