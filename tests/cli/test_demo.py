"""The demo on a corpus that is already there, twice, and where there is no apt."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.demo_steps import prepare
from index.errors import InputError

COMMAND = Path(sys.executable).with_name("labelspace")


def demo(folder: Path, port: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEMO_EXIT": "1"}
    call: list[str | Path] = [COMMAND, "demo", "--folder", folder, "--port", str(port)]
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=False)


def test_goes_the_whole_way_and_reuses_what_is_finished(tiny_corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_corpus, tmp_path / "demo" / "corpus")
    first = demo(tmp_path / "demo")
    assert first.returncode == 0, first.stdout + first.stderr
    for said in (
        "corpus: done before",
        "== train: labelspace train",
        "R@10",
        "added as change 1",
        "removed by change 2",
    ):
        assert said in first.stdout
    assert {"corpus", "run", "collection", "metrics.json", "train.log"} <= {
        path.name for path in (tmp_path / "demo").iterdir()
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        again = demo(tmp_path / "demo", taken.getsockname()[1])
    assert again.returncode == 0, again.stdout + again.stderr
    for step in ("corpus", "train", "export", "evaluate"):
        assert f"{step}: done before" in again.stdout
    assert "added as change 3" in again.stdout


def test_without_apt_it_says_how_to_use_a_corpus_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"no apt-get here\. With a corpus of your own .*labelspace train CORPUS"):
        prepare(tmp_path / "demo")
