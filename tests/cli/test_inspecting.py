"""`labelspace inspect` and `labelspace train --init` as a user calls them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cli_support import called
from tests_support import TINY, write_corpus, write_field_corpus
from training.checkpoint import load_best

SHORT = [f"--set={setting}" for setting in (*TINY, "training.epochs=2")]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Exit code, output and the last line of standard error of a call in this process."""
    return partial(called, capsys, monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", train=40, test=1)


def test_a_run_is_shown_as_aligned_text_and_written_as_json(call: Call, corpus: Path, tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "run.json"
    assert call("train", corpus, "--out", run, *SHORT)[0] == 0
    code, out, _ = call("inspect", run, "--json", file)
    assert code == 0
    assert f"run {run}: 40 labels" in out
    assert "settings: kind unified, shared on" in out
    assert re.search(r"^  features: rows 4,096, ngrams 3, pairs on", out, re.MULTILINE)
    assert "seed 0, 2 of 2 epochs" in out
    assert re.search(r"^  best epoch [12]: dev \(tower alone\) P@1 \d+\.\d, nDCG@5", out, re.MULTILINE)
    table = [line for line in out.splitlines() if line.startswith(("  feature ", "  word ", "  pair ", "  all "))]
    assert len(table) == 4
    assert len({len(line) for line in table}) == 1
    values = json.loads(file.read_text())
    word = values["tables"][0]["sharing"][0]
    assert table[1].split()[:3] == ["word", f"{word['values']}", "4,096"]
    assert table[1].split()[-1] == f"{100 * values['tables'][0]['unmet']['word']['untouched']:.1f}"


def test_fields_and_readers_are_shown(call: Call, tmp_path: Path) -> None:
    corpus = write_field_corpus(tmp_path / "corpus", train=40, test=1)
    fields = 'features.fields={type={kind="categorical"}, lang={probes=2}, year={kind="numeric", bins=4}}'
    more = ["--set", fields, "--set", "features.separate=true", "--set", 'features.crosses=[["type", "lang"]]']
    assert call("train", corpus, "--out", tmp_path / "run", *SHORT, *more)[0] == 0
    _, out, _ = call("inspect", tmp_path / "run")
    assert "fields lang (multivalent) type (categorical) year (numeric), crosses lang*type" in out
    assert "readers of tower: mean overlap 0." in out
    assert "cross:lang*type" in out


def test_a_collection_is_shown_with_what_changed(call: Call, collection: Path, tmp_path: Path) -> None:
    assert call("labels", "remove", collection, "s3")[0] == 0
    code, out, _ = call("inspect", collection, "--json", tmp_path / "collection.json")
    assert code == 0
    assert f"collection {collection}: 39 labels, 1 bundles" in out
    assert "1 changes since the current bundle: 0 labels added, 0 edited, 1 removed" in out
    assert "(current)" in out
    assert "index: Flat over 40 vectors, recall@10 1.0000" in out
    assert re.search(r"^  query\.onnx +[\d,]+$", out, re.MULTILINE)
    assert json.loads((tmp_path / "collection.json").read_text())["removed"] == 1


def test_what_cannot_be_inspected_is_one_line(call: Call, corpus: Path, collection: Path, tmp_path: Path) -> None:
    for place in (corpus, tmp_path / "nowhere"):
        code, out, line = call("inspect", place)
        assert (code, out) == (2, "")
        assert "is neither a run (no config.toml) nor a collection (no collection.json)" in line
    code, _, line = call("inspect", collection, "--corpus", corpus)
    assert (code, "--corpus goes with a run" in line) == (2, True)
    (collection / "collection.json").write_text("{")
    code, _, line = call("inspect", collection)
    assert (code, "collection.json: is damaged" in line) == (2, True)


def test_training_goes_on_from_another_run(call: Call, corpus: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert call("train", corpus, "--out", old, *SHORT)[0] == 0
    fresh = write_corpus(tmp_path / "fresh", train=60, test=1)
    slow = [f"--set=training.{rate}_rate=1e-12" for rate in ("table", "gate", "free", "dense")]
    assert call("train", fresh, "--out", new, "--init", old, *slow)[0] == 0
    one, other = load_best(old)[0], load_best(new)[0]
    for name in ("tower.weight.table", "free"):
        assert abs(one[name] - other[name]).max() < 1e-8
    _, out, _ = call("inspect", new)
    assert f"begun from {old}" in out
    # Of a run that goes on, the settings are where it stands, and it is resumed like any other.
    assert call("train", fresh, "--out", new, "--resume", *slow)[0] == 0
    code, _, line = call("train", fresh, "--out", new, "--init", old)
    assert (code, "a run is there already" in line) == (2, True)


def test_what_cannot_be_started_from_is_one_line_and_no_run(call: Call, corpus: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert call("train", corpus, "--out", old, *SHORT)[0] == 0
    for arguments, message in (
        (["--init", tmp_path / "nowhere"], "nowhere: no run is here"),
        (["--init", old, "--resume"], "give one of them"),
        (["--init", old, "--set", "tower.dim=16"], "mean nothing under other values of tower.dim"),
        (["--init", old, "--seeds", "2"], "has 1 of the 2 towers to start from"),
    ):
        code, _, line = call("train", corpus, "--out", new, *arguments)
        assert (code, message in line) == (2, True), line
        assert not new.exists()
    (old / "labels.json").unlink()
    code, _, line = call("train", corpus, "--out", new, "--init", old)
    assert (code, "has no labels.json" in line) == (2, True)
    assert not new.exists()


def test_numbers_and_parts_stay_as_they_were_fitted(call: Call, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    first = write_field_corpus(tmp_path / "first", train=60, test=1)
    second = write_field_corpus(tmp_path / "second", train=90, test=1)
    settings = ['features.fields={type={}, year={kind="numeric", bins=4}}', 'features.table="split"']
    more = [f"--set={setting}" for setting in settings]
    assert call("train", first, "--out", old, *SHORT, *more)[0] == 0
    assert call("train", second, "--out", new, "--init", old)[0] == 0
    assert call("train", second, "--out", tmp_path / "anew", *SHORT, *more)[0] == 0
    configs = [(folder / "config.toml").read_text() for folder in (old, new, tmp_path / "anew")]
    assert configs[0] == configs[1] != configs[2]
    assert re.search(r"edges = \[\s*19\d\d", configs[0])
    assert re.search(r"parts = \[\s*0,\s*\d", configs[0])
    assert call("train", second, "--out", new, "--resume")[0] == 0


@pytest.mark.parametrize("learned", ['features.table="exact"', "features.pieces=60"])
def test_what_was_learned_of_words_goes_on_too(learned: str, call: Call, corpus: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert call("train", corpus, "--out", old, *SHORT, "--set", learned)[0] == 0
    fresh = write_corpus(tmp_path / "fresh", train=60, test=1)
    assert call("train", fresh, "--out", new, "--init", old)[0] == 0
    for name in ("pieces.json", "vocabulary.npy"):
        assert (old / name).exists() == (new / name).exists()
        if (old / name).exists():
            assert (old / name).read_bytes() == (new / name).read_bytes()
    assert call("train", fresh, "--out", new, "--resume")[0] == 0
    _, out, _ = call("inspect", new)
    assert "untouched" in out
    (old / ("pieces.json" if "pieces" in learned else "vocabulary.npy")).unlink()
    code, _, line = call("train", fresh, "--out", tmp_path / "third", "--init", old)
    assert (code, "of the model's features" in line) == (2, True), line
