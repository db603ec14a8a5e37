"""The counting of work and the thinning of a corpus in benchmarks/gpu.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gpu
from gpu import Work, matmul_rate, thinned_corpus
from tests_support import write_corpus
from training.corpus import load_corpus
from training.transformer import TransformerTower
from training.transformer_config import TransformerConfig
from transformer_support import write_model


def test_work_is_two_operations_a_weight_and_token_and_thrice_with_a_backward_pass(tmp_path: Path) -> None:
    config = TransformerConfig(model=str(write_model(tmp_path / "m")), query_tokens=40, label_tokens=40, device="cpu")
    tower = TransformerTower(config, 0)
    work = Work.of(tower)
    # Two layers: query, key, value and output 32 x 32 each, then 32 x 64 and back.
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    assert work.weights == weights
    items = tower.prepare(["apple pie", "apple", "bread"])  # 4, 3 and 3 tokens, in one pass
    attention = 4 * 4 * 32 * 2
    tower.encode(items)
    assert work.operations == 12 * (2 * weights + attention)
    tower.batch(items, np.random.default_rng(0))
    assert work.operations == 4 * 12 * (2 * weights + attention)
    assert work.padded == 24 and int(torch.stack(work.tokens).sum()) == 20


def test_a_thinned_corpus_has_the_first_rows_and_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUILD", tmp_path / "build")
    whole = load_corpus(write_corpus(tmp_path / "small"), ["train", "test"])
    thinned = load_corpus(thinned_corpus(tmp_path / "small", 7), ["train", "test"])
    carried = set()
    for name in ("train", "test"):
        assert thinned.splits[name].texts == whole.splits[name].texts[:7]
        carried |= {whole.label_ids[label] for label in whole.splits[name].relevance[:7].indices}
    assert set(thinned.label_ids) == carried


def test_results_take_the_place_of_those_of_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    for negatives, value in (("all", 1), ("clustered", 2), ("all", 3)):
        gpu._keep(path, {"corpus": "c", "negatives": negatives, "device": "cpu", "value": value})
    assert [row["value"] for row in json.loads(path.read_text())] == [3, 2]


def test_the_matmul_rate_is_a_rate() -> None:
    assert 1e8 < matmul_rate(torch.device("cpu")) < 1e14
