"""A small real corpus, a run trained on it and a collection exported from that run, shared by all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_support import TINY, write_corpus, write_field_corpus


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "tiny")


@pytest.fixture(scope="session")
def tiny_run(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run; not to be changed."""
    from training.config import load_config
    from training.dataset import load_dataset
    from training.run import start_run
    from training.trainer import Trainer

    run = tmp_path_factory.mktemp("run") / "tiny"
    config = load_config(None, TINY)
    dataset = load_dataset(tiny_corpus, config)
    start_run(run, tiny_corpus, dataset, config)
    Trainer(dataset, config).train(run)
    return run


@pytest.fixture(scope="session")
def tiny_collection(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported collection; copy it (fixture `collection`) before writing to it."""
    from training.export import export_run

    collection = tmp_path_factory.mktemp("collection") / "tiny"
    export_run(tiny_run, collection, report=lambda line: None)
    return collection


@pytest.fixture(scope="session")
def field_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_field_corpus(tmp_path_factory.mktemp("fields") / "corpus")


@pytest.fixture(scope="session")
def field_collection(field_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported collection whose model reads the fields "type" and "lang"; not to be written to."""
    from training.config import load_config
    from training.dataset import load_dataset
    from training.export import export_run
    from training.run import start_run
    from training.trainer import Trainer

    folder = tmp_path_factory.mktemp("fields")
    config = load_config(None, [*TINY, 'features.fields=["type", "lang"]'])
    dataset = load_dataset(field_corpus, config)
    start_run(folder / "run", field_corpus, dataset, config)
    Trainer(dataset, config).train(folder / "run")
    export_run(folder / "run", folder / "collection", report=lambda line: None)
    return folder / "collection"


@pytest.fixture(scope="session")
def voting_collection(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection whose examples vote; not to be written to."""
    from reindex_support import with_votes

    return with_votes(tiny_run, tmp_path_factory.mktemp("voting") / "collection")


@pytest.fixture
def voting(voting_collection: Path, tmp_path: Path) -> Path:
    """The same, of one's own to write to."""
    return Path(shutil.copytree(voting_collection, tmp_path / "voting"))


@pytest.fixture
def collection(tiny_collection: Path, tmp_path: Path) -> Path:
    """A collection of one's own to write to."""
    return Path(shutil.copytree(tiny_collection, tmp_path / "collection"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL server that runs as long as the tests."""
    from postgres_support import postgres

    with postgres() as url:
        yield url
