"""Runs of one seed or several: the same as each alone, gone on with, and never mixed up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from index.errors import BundleError, InputError
from tests_support import TINY, write_corpus
from training.checkpoint import CHECKPOINT, load_checkpoint
from training.config import Config, load_config
from training.dataset import Dataset, load_dataset
from training.run import CONFIG, check_same_settings, corpus_of, saved_config, start_run
from training.runs import RunOptions, train_runs
from training.trainer import Trainer

CONFIG_OF_ALL = load_config(None, [*TINY, "training.epochs=1", "training.seed=3"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("runs") / "corpus", train=40, test=1)


@pytest.fixture(scope="module")
def dataset(corpus: Path) -> Dataset:
    return load_dataset(corpus, CONFIG_OF_ALL)


def train(run: Path, corpus: Path, dataset: Dataset, config: Config = CONFIG_OF_ALL, **options: object) -> int:
    return train_runs(run, corpus, dataset, config, RunOptions(**options))[0]  # type: ignore[arg-type]


def test_one_seed_is_one_run_in_the_folder_itself(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert train(tmp_path / "run", corpus, dataset) == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {CONFIG, CHECKPOINT, "corpus.json"}
    assert load_config(tmp_path / "run" / CONFIG) == CONFIG_OF_ALL
    assert corpus_of(tmp_path / "run") == corpus.resolve()
    assert train(tmp_path / "run", corpus, dataset, resume=True) == 1


def test_several_seeds_are_the_runs_that_each_would_be_alone(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, corpus, dataset, seeds=2)
    assert sorted(path.name for path in run.iterdir()) == ["seed-0", "seed-1"]
    for place in range(2):
        seeded = replace(CONFIG_OF_ALL, training=replace(CONFIG_OF_ALL.training, seed=3 + place))
        assert load_config(run / f"seed-{place}" / CONFIG) == seeded
        alone = Trainer(load_dataset(corpus, seeded), seeded)
        alone.train(tmp_path / f"alone{place}")
        kept, same = load_checkpoint(run / f"seed-{place}")[0], load_checkpoint(tmp_path / f"alone{place}")[0]
        for name, value in kept.items():
            assert torch.equal(value, same[name]), name


def test_dev_is_the_same_whatever_the_seed(corpus: Path) -> None:
    one, other = (load_dataset(corpus, load_config(None, [*TINY, f"training.seed={seed}"])) for seed in (0, 9))
    assert (one.relevance != other.relevance).nnz == 0
    assert (one.dev.relevance != other.dev.relevance).nnz == 0


def test_more_seeds_can_be_added_and_fewer_are_refused(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, corpus, dataset, seeds=2)
    before = (run / "seed-0" / CHECKPOINT).read_bytes()
    train(run, corpus, dataset, seeds=3, resume=True)
    assert sorted(path.name for path in run.iterdir()) == ["seed-0", "seed-1", "seed-2"]
    train(run, corpus, dataset, resume=True)
    kept = load_checkpoint(run / "seed-0")[0]
    (tmp_path / CHECKPOINT).write_bytes(before)
    for name, value in load_checkpoint(tmp_path)[0].items():
        assert torch.equal(value, kept[name]), name
    with pytest.raises(InputError, match="holds runs of 3 seeds; go on with --resume and --seeds 3 or more"):
        train(run, corpus, dataset, seeds=2, resume=True)
    for seeds in (None, 1, 3):
        with pytest.raises(InputError, match="holds runs of 3 seeds"):
            train(run, corpus, dataset, seeds=seeds)


def test_a_run_is_never_overwritten_or_mixed_up(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"no run is here .* `labelspace train` makes one"):
        train(run, corpus, dataset, resume=True)
    assert not run.exists()
    train(run, corpus, dataset)
    with pytest.raises(InputError, match="a run is there already; go on with --resume, or choose another folder"):
        train(run, corpus, dataset)
    for resume in (False, True):
        with pytest.raises(InputError, match="holds a run of one seed; choose another folder with --out for --seeds 2"):
            train(run, corpus, dataset, seeds=2, resume=resume)
    other = replace(CONFIG_OF_ALL, loss=replace(CONFIG_OF_ALL.loss, mixup=0.5, prefixes=(4,)))
    with pytest.raises(InputError, match=r"started with other values of loss\.prefixes, loss\.mixup; resume with"):
        train(run, corpus, dataset, other, resume=True)
    with pytest.raises(InputError, match="loss: there is no 'hinge'; choose one of"):
        train(tmp_path / "new", corpus, dataset, replace(other, loss=replace(other.loss, name="hinge")))
    assert not (tmp_path / "new").exists()


def test_another_corpus_is_refused(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    train(tmp_path / "run", corpus, dataset)
    other = load_dataset(write_corpus(tmp_path / "other", train=41, test=1), CONFIG_OF_ALL)
    with pytest.raises(InputError, match="was trained on another corpus, or the corpus has changed since"):
        train(tmp_path / "run", tmp_path / "other", other, resume=True)


def test_a_place_that_cannot_be_written_is_named(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be made"):
        train(tmp_path / "file", corpus, dataset)


def test_the_time_is_shared_by_the_seeds(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    long = replace(CONFIG_OF_ALL, training=replace(CONFIG_OF_ALL.training, epochs=100_000))
    _, seconds = train_runs(tmp_path / "run", corpus, dataset, long, RunOptions(seeds=2, time_limit=0.4))
    spent = [load_checkpoint(tmp_path / "run" / f"seed-{place}")[1].seconds for place in range(2)]
    assert sum(spent) == pytest.approx(seconds)
    assert min(spent) >= 0.2
    assert seconds < 2.5


def test_curves_are_written_into_each_run(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    train(tmp_path / "run", corpus, dataset, seeds=2, tensorboard=True)
    for place in range(2):
        assert list((tmp_path / "run" / f"seed-{place}" / "tensorboard").iterdir())


def test_the_settings_of_a_run_are_found(corpus: Path, dataset: Dataset, tmp_path: Path) -> None:
    assert saved_config(tmp_path) is None
    start_run(tmp_path / "several" / "seed-0", corpus, dataset, CONFIG_OF_ALL)
    assert saved_config(tmp_path / "several") == tmp_path / "several" / "seed-0" / CONFIG
    start_run(tmp_path / "one", corpus, dataset, CONFIG_OF_ALL)
    assert saved_config(tmp_path / "one") == tmp_path / "one" / CONFIG
    check_same_settings(tmp_path / "one", CONFIG_OF_ALL)
    with pytest.raises(BundleError, match="no checkpoint yet; train the run first"):
        load_checkpoint(tmp_path / "one")
