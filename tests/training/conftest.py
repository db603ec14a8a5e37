"""What the tests of the trainer share: a small corpus, and its dataset under any settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from index.bundle import Bundle
from index.bundles import current_bundle
from tests_support import write_corpus
from trainer_support import SHORT
from training.config import load_config
from training.dataset import Dataset, load_dataset
from training.published import Published


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("short") / "corpus", train=80, test=5)


@pytest.fixture(scope="module")
def datasets(corpus: Path) -> Callable[..., Dataset]:
    def load(*settings: str) -> Dataset:
        return load_dataset(corpus, load_config(None, [*SHORT, *settings]))

    return load


@pytest.fixture(scope="session")
def published(tiny_collection: Path) -> Published:
    """What a run against the tiny collection is trained against."""
    return Published.current(tiny_collection)


@pytest.fixture(scope="session")
def old(tiny_collection: Path) -> Bundle:
    """The bundle that `published` is of."""
    return Bundle.open(current_bundle(tiny_collection))
