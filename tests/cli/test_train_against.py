"""`labelspace train --against`: what it leaves, how it goes on, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli_support import called
from index.bundles import current_bundle
from tests_support import TINY
from training.config import load_config

SETTINGS = ("--set=training.epochs=1", "--set=training.threads=1", "--set=training.dev_share=0.2")


def test_it_trains_goes_on_and_is_exported(
    tiny_corpus: Path,
    collection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, published = tmp_path / "run", current_bundle(collection).name
    call = ("train", tiny_corpus, "--out", out)
    code, _, last = called(capsys, monkeypatch, *call, "--against", collection, *SETTINGS)
    assert code == 0, last
    assert load_config(out / "config.toml").compatible.bundle == published
    assert called(capsys, monkeypatch, "export", out, "--to", collection)[0] == 0
    assert current_bundle(collection).name != published
    assert called(capsys, monkeypatch, *call, "--resume")[0] == 0
    code, _, last = called(capsys, monkeypatch, *call, "--resume", "--against", collection)
    assert code == 2
    assert last == "Error: --against starts a new run; --resume goes on against what the run was started with"


def test_what_is_not_there_or_contradicts_it_is_one_line(
    tiny_corpus: Path,
    tiny_collection: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = ("train", tiny_corpus, "--out", tmp_path / "run", "--against")
    code, _, last = called(capsys, monkeypatch, *call, tmp_path / "nothing")
    assert (code, "no collection here" in last) == (2, True)
    settings = [f"--set={setting}" for setting in TINY if not setting.startswith("tower.dim")]
    code, _, last = called(capsys, monkeypatch, *call, tiny_collection, *settings, "--set=tower.dim=64")
    assert code == 2
    assert "its label vectors mean nothing under other values of tower.dim; leave them as they are there" in last
    code, _, last = called(capsys, monkeypatch, *call, tiny_collection, *SETTINGS, "--seeds", "2")
    assert code == 2
    assert last.endswith("--seeds 2: one query tower meets the published label vectors; leave it out")
    assert not (tmp_path / "run").exists()
