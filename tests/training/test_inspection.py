"""What inspecting a run says of it, against its tensors and its corpus looked at by hand."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from index.errors import BundleError, InputError
from index.features import FeatureSpec, Featurizer
from tests_support import TINY, write_corpus, write_field_corpus
from training.checkpoint import BEST, CHECKPOINT, load_best, load_checkpoint
from training.config import Config, load_config
from training.corpus import hold_out, load_corpus
from training.dataset import load_dataset
from training.inspection import RunInspection, inspect_run, reader_health, reader_names, reader_overlap, table_health
from training.run import start_run
from training.runs import RunOptions, train_runs

SETTINGS = (*TINY, "features.rows=256", "training.epochs=2", "training.feature_dropout=0")


def train(run: Path, corpus: Path, *settings: str, seeds: int = 1) -> Path:
    config = load_config(None, [*SETTINGS, *settings])
    dataset = load_dataset(corpus, config)
    train_runs(run, corpus, dataset, replace(config, features=dataset.features), RunOptions(seeds=seeds))
    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("inspected") / "corpus", train=60, test=1)


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return train(tmp_path_factory.mktemp("inspected") / "run", corpus)


@pytest.fixture(scope="module")
def found(run: Path) -> RunInspection:
    return inspect_run(run)


def test_progress_and_weights_are_those_of_the_checkpoint(found: RunInspection, run: Path) -> None:
    (member,) = found.members
    curve = load_checkpoint(run)[1].curve
    best = max(curve, key=lambda point: point.dev["nDCG@5"])
    assert (member.epochs, member.of_epochs, member.seed) == (2, 2, 0)
    assert (member.best, member.dev) == (best.epoch + 1, best.dev)
    # Table and gates, and a head of two layers of 32.
    head = [value.numel() for name, value in load_best(run)[0].items() if ".weight.head." in name]
    assert member.parameters == 256 * 32 + 256 + sum(head)
    assert found.labels == 40
    assert found.begun_from is None
    assert found.settings["dim"] == 32
    assert found.settings["features"]["rows"] == 256


def test_the_table_is_looked_at_row_by_row(found: RunInspection, run: Path) -> None:
    tensors = load_best(run)[0]
    sums, gates = tensors["tower.adagrad.table"].tolist(), tensors["tower.weight.gates"].tolist()
    touched = [row for row in range(256) if sums[row] > 0]
    moved = [gates[row] for row in touched]
    mean = sum(moved) / len(moved)
    (table,) = found.members[0].tables
    assert (table.tower, table.rows, table.width, table.bytes) == ("tower", 256, 32, 4 * 256 * 33)
    assert 0 < table.touched < 1
    assert table.touched == len(touched) / 256
    assert table.gate == pytest.approx(mean, abs=1e-9)
    assert table.gate_spread == pytest.approx((sum((gate - mean) ** 2 for gate in moved) / len(moved)) ** 0.5, abs=1e-9)
    nothing = {name: torch.zeros_like(value) for name, value in tensors.items()}
    health = table_health(nothing, "tower")
    assert health is not None
    assert (health.touched, health.gate, health.gate_spread) == (0.0, 0.0, 0.0)
    assert table_health({}, "tower") is None


def test_look_ups_of_untrained_rows_are_those_of_the_held_out_queries(
    found: RunInspection, run: Path, corpus: Path
) -> None:
    config = load_config(run / "config.toml")
    train = load_corpus(corpus, ["train"]).splits["train"]
    kept, held = hold_out(train, config.training.dev_share, 0)
    featurizer = Featurizer(config.features)
    reached = {int(row) for number in kept for row in featurizer([train.texts[number]]).rows}
    reached |= {int(row) for text in load_corpus(corpus, ["train"]).label_texts for row in featurizer([text]).rows}
    touched = set(np.flatnonzero(load_best(run)[0]["tower.adagrad.table"].numpy() > 0).tolist())
    assert touched <= reached
    (use,) = found.tables
    words = [word for number in held for word in _words(train.texts[number])]
    rows = {word: int(Featurizer(FeatureSpec(rows=256, ngrams=(), pairs=False))([word]).rows[0]) for word in words}
    unmet = use.unmet["word"]
    assert unmet.look_ups == len(words)
    assert unmet.untouched == pytest.approx(sum(rows[word] not in touched for word in words) / len(words))
    values = {one.name: one.values for one in use.sharing}
    every = [*(train.texts[number] for number in kept), *load_corpus(corpus, ["train"]).label_texts]
    assert values["word"] == len({word for text in every for word in _words(text)})
    assert values["pair"] == len({pair for text in every for pair in _pairs(text)})
    assert values["all"] == sum(value for name, value in values.items() if name != "all")
    assert use.unmet["all"].look_ups == sum(one.look_ups for name, one in use.unmet.items() if name != "all")


def _words(text: str) -> list[str]:
    return text.lower().split()


def _pairs(text: str) -> list[tuple[str, str]]:
    words = _words(text)
    return list(pairwise(words))


def test_towers_apart_have_tables_apart(corpus: Path, tmp_path: Path) -> None:
    found = inspect_run(train(tmp_path / "run", corpus, "tower.shared=false", "label.text_queries=true"))
    assert [table.tower for table in found.members[0].tables] == ["query", "label"]
    queries, labels = found.tables
    assert (queries.tower, labels.tower, labels.unmet) == ("query", "label", {})
    words = {word for text in load_corpus(corpus, ["train"]).label_texts for word in _words(text)}
    assert {one.name: one.values for one in labels.sharing}["word"] == len(words)
    # Label texts are queries, too.
    assert {one.name: one.values for one in queries.sharing}["word"] > len(words)


def test_seeds_are_shown_one_by_one_and_their_untrained_rows_by_the_mean(corpus: Path, tmp_path: Path) -> None:
    both = train(tmp_path / "both", corpus, seeds=2)
    found = inspect_run(both)
    assert [member.seed for member in found.members] == [0, 1]
    alone = [inspect_run(both / f"seed-{place}") for place in range(2)]
    assert [member for one in alone for member in one.members] == list(found.members)
    for name, unmet in found.tables[0].unmet.items():
        shares = [one.tables[0].unmet[name].untouched for one in alone]
        assert unmet.untouched == pytest.approx(np.mean(np.array(shares, dtype=np.float64)))


def test_fields_readers_and_histories_are_named(tmp_path: Path) -> None:
    corpus = write_field_corpus(tmp_path / "corpus", train=60, test=1)
    fields = 'features.fields={type={kind="categorical"}, lang={kind="history"}, year={kind="numeric", bins=4}}'
    run = train(tmp_path / "run", corpus, fields, "features.separate=true", "tower.row=8", "features.ngrams=[]")
    found = inspect_run(run)
    (reader,) = found.members[0].readers
    names = ["word", "pair", "field:type", "field:year", "field:lang"]
    assert reader_names(load_config(run / "config.toml").features) == names
    assert reader.chance == pytest.approx(8**-0.5)
    weights = next(value for name, value in load_best(run)[0].items() if ".weight.reader." in name and value.dim() == 2)
    assert weights.shape == (32, 5 * 8)
    wanted = {}
    for one in range(5):
        for other in range(one + 1, 5):
            a, b = (weights[:, place * 8 : place * 8 + 8].double().numpy() for place in (one, other))
            wanted[names[one], names[other]] = np.linalg.norm(a @ b.T) / np.linalg.norm(a) / np.linalg.norm(b)
    assert reader.mean == pytest.approx(np.mean(list(wanted.values())))
    worst = sorted(wanted.items(), key=lambda pair: -pair[1])[:5]
    assert [(one, other) for one, other, _ in reader.worst] == [pair for pair, _ in worst]
    assert [value for *_, value in reader.worst] == pytest.approx([value for _, value in worst])
    values = {one.name: one.values for one in found.tables[0].sharing}
    assert (values["field:type"], values["field:lang"], values["field:year"]) == (4, 2, 5)  # with the missing bin
    assert found.settings["features"]["fields"] == {"lang": "history", "type": "categorical", "year": "numeric"}
    assert found.settings["row"] == 8


def test_overlap_of_readers_is_nothing_for_orthogonal_ones_and_one_for_the_same() -> None:
    random = np.random.default_rng(0)
    a = np.linalg.qr(random.normal(size=(6, 6)))[0]
    block = random.normal(size=(10, 1)) @ a[:1, :]
    other = random.normal(size=(10, 1)) @ a[1:2, :]
    found = reader_overlap(np.concatenate([block, other, block, np.zeros((10, 6))], axis=1), 4)
    np.testing.assert_allclose(found, [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], atol=1e-7)
    wide = random.normal(size=(200, 16 * 40))
    overlap = reader_overlap(wide, 40)
    assert overlap[np.triu_indices(40, 1)].mean() == pytest.approx(16**-0.5, rel=0.02)
    one = {"tower.weight.reader.linear.weight": torch.ones(4, 8)}
    config = Config(features=FeatureSpec(ngrams=(), pairs=False, separate=True))
    assert reader_health(one, "tower", config) is None
    assert reader_health({}, "tower", config) is None


@pytest.mark.parametrize("table", ["split", "exact", "quotient"])
def test_fitted_tables_are_looked_at_as_they_were_fitted(table: str, corpus: Path, tmp_path: Path) -> None:
    found = inspect_run(train(tmp_path / "run", corpus, f'features.table="{table}"', "features.separate=true"))
    (use,) = found.tables
    assert [one.name for one in use.sharing] == ["word", "pair", "ngram3", "all"]
    if table == "exact":
        assert use.sharing[-1].load == 1.0
        assert use.sharing[-1].same == 0.0
    if table == "split":
        assert sum(one.rows for one in use.sharing[:-1]) == 256
    if table == "quotient":
        assert use.sharing[0].alike < use.sharing[0].same


def test_a_corpus_that_is_gone_or_another_one(run: Path, corpus: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "run"))
    note = json.loads((moved / "corpus.json").read_text())
    (moved / "corpus.json").write_text(json.dumps({**note, "folder": str(tmp_path / "gone")}))
    found = inspect_run(moved)
    assert (found.corpus, found.tables) == (None, ())
    assert len(found.members) == 1
    assert inspect_run(moved, corpus).tables == inspect_run(run).tables
    with pytest.raises(InputError, match="gone: is not a folder"):
        inspect_run(moved, tmp_path / "gone")
    with pytest.raises(InputError, match="no run is here"):
        inspect_run(tmp_path)


def test_a_run_without_a_whole_checkpoint_is_named(run: Path, corpus: Path, tmp_path: Path) -> None:
    config = load_config(None, SETTINGS)
    start_run(tmp_path / "begun", corpus, load_dataset(corpus, config), config)
    with pytest.raises(BundleError, match="there is no checkpoint yet; train the run first"):
        inspect_run(tmp_path / "begun")
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / BEST).unlink()
    (other / CHECKPOINT).write_bytes(b"half")
    with pytest.raises(BundleError, match=r"checkpoint\.safetensors: is damaged"):
        inspect_run(other)


def test_everything_fits_into_json(found: RunInspection) -> None:
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (values["kind"], values["labels"]) == ("run", 40)
    assert values["tables"][0]["sharing"][0]["name"] == "word"
    assert values["members"][0]["tables"][0]["rows"] == 256
