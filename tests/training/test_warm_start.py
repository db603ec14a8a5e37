"""A run that starts from another: what it takes over, value by value, and what cannot be started from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.errors import BundleError, InputError
from index.features import FeatureSpec
from index.field_spec import FieldSpec
from tests_support import FILLERS, SUBJECTS, TINY, write_corpus, write_field_corpus, write_lines
from trainer_support import stop_after
from training.checkpoint import BEST, CHECKPOINT, load_best, load_checkpoint, save_checkpoint
from training.config import Config, load_config, save_config
from training.dataset import load_dataset
from training.inspection import inspect_run
from training.run import CONFIG, begun_from, label_ids_of, start_run
from training.runs import RunOptions, train_runs
from training.trainer import InterruptedRunError, Trainer, best_point
from training.warm_start import Earlier, check_same_meaning, continued_config
from transformer_support import write_model

SETTINGS = (*TINY, "training.epochs=3", "training.batch=16", "negatives.sampled=10")
STILL = ("training.table_rate=1e-12", "training.gate_rate=1e-12", "training.free_rate=1e-12",
         "training.dense_rate=1e-12", "training.epochs=2")  # fmt: skip
NEW_LABELS = ["s39", "new", "s3", "地図", *(f"s{place}" for place in reversed(range(4, 30))), "s0"]


def train(run: Path, corpus: Path, *settings: str, options: RunOptions | None = None) -> Path:
    config = load_config(None, [*SETTINGS, *settings])
    train_runs(run, corpus, load_dataset(corpus, config), config, options or RunOptions())
    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("old") / "corpus", train=80, test=1)


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return train(tmp_path_factory.mktemp("old") / "run", corpus)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of other records, with labels that are gone, are new, and stand in another order."""
    folder = tmp_path_factory.mktemp("fresh") / "corpus"
    folder.mkdir()
    texts = {f"s{place}": subject for place, subject in enumerate(SUBJECTS)}
    names = [texts.get(label, f"unheard {label}") for label in NEW_LABELS]
    write_lines(
        folder / "labels.jsonl", [{"id": label, "text": text} for label, text in zip(NEW_LABELS, names, strict=True)]
    )
    rows: list[dict[str, object]] = [
        {"id": f"r{row}", "text": f"{FILLERS[row % 6]} {names[row % 31]}", "labels": [NEW_LABELS[row % 31]]}
        for row in range(70)
    ]
    write_lines(folder / "train.jsonl", rows)
    return folder


def free_by_hand(old: dict[str, Tensor], old_ids: list[str], ids: list[str], name: str) -> NDArray[np.float32]:
    """A loop over the labels: what the old run says of each id, zero for others."""
    values = old[name].numpy()
    rows = [values[old_ids.index(label)] if label in old_ids else np.zeros_like(values[0]) for label in ids]
    return np.stack(rows)


@pytest.mark.parametrize(
    "settings",
    [(), ("tower.shared=false",), ("label.centroid=true", "label.text_queries=true"), ("loss.name=sigmoid",)],
)
def test_weights_and_sums_are_taken_over_and_moments_are_not(
    settings: tuple[str, ...], corpus: Path, fresh: Path, tmp_path: Path
) -> None:
    run = train(tmp_path / "run", corpus, *settings)
    config = load_config(None, [*SETTINGS, *settings])
    trainer = Trainer(load_dataset(fresh, config), config)
    trainer.begin_from(Earlier.open(run, config))
    kept, old = trainer.model.tensors(), load_best(run)[0]
    shared = [name for name in old if name.startswith(tuple(trainer.model.towers)) and ".adamw." not in name]
    assert {"free", "adagrad.free"} < set(kept)
    assert sorted(shared) == sorted(name for name in kept if name.startswith(tuple(trainer.model.towers)))
    for name in shared:
        assert torch.equal(kept[name], old[name]), name
    assert sum(".adagrad." in name for name in shared) == 2 * len(trainer.model.towers)
    old_ids = json.loads((run / "labels.json").read_text())
    assert old_ids == [f"s{place}" for place in range(40)]
    for name in ("free", "adagrad.free"):
        np.testing.assert_array_equal(kept[name].numpy(), free_by_hand(old, old_ids, NEW_LABELS, name))
    assert np.abs(kept["free"].numpy()).sum(axis=-1).astype(bool).sum() > 20
    assert not kept["free"][1].any()
    if "centroids.sums" in kept:
        assert old["centroids.sums"].any()
        assert not kept["centroids.sums"].any()
    learned = list(trainer.objective.loss.parameters())
    assert len(learned) == (2 if "loss.name=sigmoid" in settings else 0)
    for place, parameter in enumerate(learned):
        assert torch.equal(parameter.data, old[f"loss.{place}"])


@pytest.mark.parametrize("more", [(), ("transformer.lora_rank=2",)])
def test_a_transformer_and_the_table_of_its_fields_go_on(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = write_field_corpus(tmp_path / "corpus", train=12, test=1), write_model(tmp_path / "model")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lengths = ("transformer.query_tokens=12", "transformer.label_tokens=8", "transformer.device=cpu")
    settings = ("tower.kind=transformer", f'transformer.model="{model}"', 'features.fields=["type"]', *lengths, *more)
    run = train(tmp_path / "run", folder, *settings, "training.epochs=1")
    config = continued_config(run, None, ["transformer.rate=0.001"])
    trainer = Trainer(load_dataset(folder, config), config)
    trainer.begin_from(Earlier.open(run, config))
    old, kept = load_best(run)[0], trainer.model.tensors()
    assert old["tower.adagrad.fields.table"].any()
    assert {name for name in old if name.startswith("tower.adamw.")}
    assert set(kept) == {name for name in old if not name.startswith("tower.adamw.")}
    for name, value in kept.items():
        assert torch.equal(value, old[name]), name
    found = inspect_run(run)
    (table,) = found.members[0].tables
    assert (table.rows, table.width) == (4096, 32)
    assert [one.name for one in found.tables[0].sharing] == ["field:type", "all"]
    assert found.tables[0].sharing[0].values == 4
    assert found.settings["model"] == str(model)
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    with pytest.raises(InputError, match="is not what it was when the run was started"):
        Trainer(load_dataset(folder, config), config).begin_from(Earlier.open(run, config))


def test_another_loss_begins_with_its_own_parameters(corpus: Path, run: Path) -> None:
    config = load_config(None, [*SETTINGS, "loss.name=sigmoid"])
    trainer, plain = (Trainer(load_dataset(corpus, config), config) for _ in range(2))
    trainer.begin_from(Earlier.open(run, config))
    for one, other in zip(trainer.objective.loss.parameters(), plain.objective.loss.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_begins_as_good_as_the_other_ended(corpus: Path, run: Path, tmp_path: Path) -> None:
    best = best_point(load_checkpoint(run)[1].curve)
    assert best is not None
    assert best.dev["P@1"] > 30
    config = load_config(None, SETTINGS)
    trainer = Trainer(load_dataset(corpus, config), config)
    assert trainer.dev_figures() != best.dev
    trainer.begin_from(Earlier.open(run, config))
    assert trainer.dev_figures() == best.dev
    # And stays so in steps that hardly move.
    train(tmp_path / "new", corpus, *STILL, options=RunOptions(init=run))
    curve = load_checkpoint(tmp_path / "new")[1].curve
    assert [point.epoch for point in curve] == [0, 1]
    assert [point.dev for point in curve] == [best.dev, best.dev]
    assert begun_from(tmp_path / "new") == run.resolve()
    assert begun_from(run) is None


def test_what_goes_on_is_the_best_epoch_not_the_last(corpus: Path, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "run"))
    tensors, position = load_checkpoint(other)
    (other / BEST).unlink()
    shutil.copyfile(run / BEST, other / BEST)
    save_checkpoint(other, {name: torch.zeros_like(value) for name, value in tensors.items()}, position)
    assert Earlier.open(other, load_config(None, SETTINGS)).tensors["tower.weight.table"].any()


def test_every_seed_starts_from_its_own(corpus: Path, tmp_path: Path) -> None:
    old = train(tmp_path / "old", corpus, options=RunOptions(seeds=2))
    new = train(tmp_path / "new", corpus, *STILL, options=RunOptions(init=old))
    assert sorted(path.name for path in new.iterdir()) == ["seed-0", "seed-1"]
    tables = {}
    for folder in (old, new):
        for place in range(2):
            tables[folder, place] = load_best(folder / f"seed-{place}")[0]["tower.weight.table"]
    for place in range(2):
        torch.testing.assert_close(tables[new, place], tables[old, place], rtol=0, atol=1e-9)
        assert begun_from(new / f"seed-{place}") == (old / f"seed-{place}").resolve()
    assert not torch.allclose(tables[old, 0], tables[old, 1], rtol=0, atol=1e-3)
    one = train(tmp_path / "one", corpus, *STILL, options=RunOptions(seeds=1, init=old))
    torch.testing.assert_close(load_best(one)[0]["tower.weight.table"], tables[old, 0], rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="old: has 2 of the 3 towers to start from; give --seeds fewer"):
        train(tmp_path / "three", corpus, options=RunOptions(seeds=3, init=old))
    assert not (tmp_path / "three").exists()


def test_it_can_be_stopped_and_resumed_like_any_run(corpus: Path, run: Path, tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken", corpus, options=RunOptions(init=run))
    broken = tmp_path / "broken"
    config = load_config(None, SETTINGS)
    dataset = load_dataset(corpus, config)
    first = Trainer(dataset, config)
    first.begin_from(Earlier.open(run, config))
    start_run(broken, corpus, dataset, config, run)
    stop_after(first, 5)
    with pytest.raises(InterruptedRunError):
        first.train(broken)
    train(broken, corpus, options=RunOptions(resume=True))
    one, other = load_checkpoint(unbroken)[0], load_checkpoint(broken)[0]
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("tower.dim=16",), "tower.dim"),
        (("tower.hidden=8", "tower.shared=false"), "tower.hidden, tower.shared"),
        (("tower.row=8",), "tower.row"),
        (("features.rows=8192", "features.pairs=false"), "features.rows, features.pairs"),
        (('features.fields=["type"]',), "features.fields"),
        (("features.seed=1",), "features.seed"),
        (("transformer.pooling=mean", "transformer.rate=1"), "transformer.pooling"),
    ],
)
def test_what_would_change_the_meaning_of_the_weights_is_refused(
    settings: tuple[str, ...], named: str, run: Path
) -> None:
    with pytest.raises(InputError, match=f"mean nothing under other values of {named}; leave them"):
        continued_config(run, None, settings)
    with pytest.raises(InputError, match=f"other values of {named};"):
        Earlier.open(run, load_config(None, [*SETTINGS, *settings]))


def test_settings_are_the_runs_with_others_over_them(run: Path, tmp_path: Path) -> None:
    old = load_config(run / CONFIG)
    assert continued_config(run) == old
    free = ("training.epochs=1", "loss.name=sigmoid", "negatives.kind=all", "training.table_rate=0.01",
            "tower.dropout=0.1", "label.free=false", "memory.mode=off", "transformer.rate=0.1")  # fmt: skip
    assert continued_config(run, None, free) == load_config(run / CONFIG, free)
    file = tmp_path / "my.toml"
    file.write_text("[training]\nepochs = 7\nbatch = 9\n[loss]\nk = 3\n[tower]\ndim = 32\n")
    found = continued_config(run, file, ["training.epochs=8"])
    assert found == replace(old, training=replace(old.training, epochs=8, batch=9), loss=replace(old.loss, k=3.0))
    file.write_text("[training]\nepoch = 7\n")
    with pytest.raises(InputError, match=r"my\.toml: there is no setting training\.epoch"):
        continued_config(run, file)
    with pytest.raises(InputError, match=r"no run is here \(config\.toml is missing\)"):
        continued_config(tmp_path / "nowhere")


def test_a_file_that_began_the_run_can_go_on_with_it_though_numbers_were_fitted_since(tmp_path: Path) -> None:
    open_ = FeatureSpec(fields=(FieldSpec("age", "numeric"), FieldSpec("brand")), table="split")
    age = FieldSpec("age", "numeric", edges=(1.0, 2.5))
    fitted = replace(open_, fields=(age, FieldSpec("brand")), parts=(0, 10, 20, 30, 40, 1 << 18), lexicon="ab" * 32)
    run = tmp_path / "run"
    run.mkdir()
    save_config(Config(features=fitted), run / CONFIG)
    save_config(Config(features=open_), tmp_path / "file.toml")
    assert continued_config(run, tmp_path / "file.toml").features == fitted
    other = replace(fitted, fields=(replace(age, edges=(1.0, 2.0)), FieldSpec("brand")))
    save_config(Config(features=other), tmp_path / "other.toml")
    with pytest.raises(InputError, match=r"other values of features\.fields;"):
        continued_config(run, tmp_path / "other.toml")
    exact = replace(open_, table="exact", rows=77, lexicon="cd" * 32)
    save_config(Config(features=exact), run / CONFIG)
    save_config(Config(features=replace(exact, rows=1 << 18, lexicon="")), tmp_path / "exact.toml")
    assert continued_config(run, tmp_path / "exact.toml").features == exact
    save_config(Config(features=fitted), run / CONFIG)
    save_config(Config(features=replace(open_, pairs=False)), tmp_path / "other.toml")
    with pytest.raises(InputError, match=r"other values of features\.pairs, features\.parts;"):
        continued_config(run, tmp_path / "other.toml")
    check_same_meaning(run, Config(), Config())


def _no_ids(run: Path) -> None:
    (run / "labels.json").unlink()


def _bad_ids(run: Path) -> None:
    (run / "labels.json").write_text('["s0", "s0"]')


def _half_ids(run: Path) -> None:
    (run / "labels.json").write_text('["s0", "s')


def _fewer_ids(run: Path) -> None:
    (run / "labels.json").write_text('["s0"]')


def _no_checkpoint(run: Path) -> None:
    (run / BEST).unlink()
    (run / CHECKPOINT).unlink()


def _half_checkpoint(run: Path) -> None:
    whole = (run / BEST).read_bytes()
    (run / BEST).unlink()  # the same bytes have another name
    (run / BEST).write_bytes(whole[: len(whole) // 2])


def _other_tensors(run: Path) -> None:
    tensors, position = load_checkpoint(run)
    (run / BEST).unlink()
    save_checkpoint(run, {**tensors, "tower.weight.table": torch.zeros(3, 32)}, position)


def _lost_tensor(run: Path) -> None:
    tensors, position = load_checkpoint(run)
    (run / BEST).unlink()
    del tensors["tower.weight.gates"]
    save_checkpoint(run, tensors, position)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_no_ids, InputError, "has no labels.json, the ids of its labels, as runs of earlier versions"),
        (_bad_ids, BundleError, "labels.json: is damaged"),
        (_half_ids, BundleError, "labels.json: is damaged"),
        (_fewer_ids, BundleError, "its checkpoint and its label ids are not of one run"),
        (_no_checkpoint, BundleError, "there is no checkpoint yet; train the run first"),
        (_half_checkpoint, BundleError, "best.safetensors: is damaged"),
        (_other_tensors, BundleError, "does not fit its settings"),
        (_lost_tensor, BundleError, "does not fit its settings"),
    ],
)
def test_a_run_that_is_not_whole_is_named_and_nothing_is_begun(
    damage: Callable[[Path], None], error: type[Exception], message: str, corpus: Path, run: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "broken"))
    damage(other)
    with pytest.raises(error, match=message):
        train(tmp_path / "new", corpus, options=RunOptions(init=other))
    assert not (tmp_path / "new").exists()


def test_places_that_hold_no_run_or_another_are_refused(corpus: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no run is here"):
        train(tmp_path / "new", corpus, options=RunOptions(init=tmp_path / "nowhere"))
    with pytest.raises(InputError, match="a run is there already"):
        train(run, corpus, options=RunOptions(init=run))
    with pytest.raises(InputError, match="--resume goes on with one that is there; give one of them"):
        train(tmp_path / "new", corpus, options=RunOptions(resume=True, init=run))
    assert not (tmp_path / "new").exists()


def test_label_ids_are_kept_as_they_are(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    ids = ["größe", "地図 👍", 'with "quotes"', "e\u0301", "é"]
    write_lines(folder / "labels.jsonl", [{"id": label, "text": "x"} for label in ids])
    write_lines(folder / "train.jsonl", [{"id": "q", "text": "a question", "labels": [ids[0]]}])
    config = load_config(None, SETTINGS)
    start_run(tmp_path / "run", folder, load_dataset(folder, config), config)
    assert label_ids_of(tmp_path / "run") == ids
    earlier = Earlier(tmp_path, {}, ids, "", 0)
    here, there = earlier.same_labels(["é", "nothing", "größe"])
    assert (here.tolist(), there.tolist()) == ([0, 2], [4, 0])
    here, there = earlier.same_labels(["nothing"])
    assert (here.tolist(), there.tolist()) == ([], [])
    assert here.dtype == np.int64
