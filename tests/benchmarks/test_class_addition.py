"""The class-addition benchmark: which labels are hidden, what is left of a corpus, and its figures, by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from class_addition import Figures, Row, drawn, judge, table
from class_addition_corpus import counts_of, hidden_labels, reduced_corpus, whole_corpus
from class_addition_plot import draw
from training.corpus import Record, json_line, load_corpus, read_labels, read_records


def _corpus(folder: Path) -> Path:
    folder.mkdir()
    for split, rows in (("train", 60), ("test", 12)):
        records = [Record(f"{split}-{row}", f"text {row}", (f"l{row % 20}", f"l{row % 7}")) for row in range(rows)]
        records = [Record(one.id, one.text, tuple(dict.fromkeys(one.labels))) for one in records]
        (folder / f"{split}.jsonl").write_text("".join(map(json_line, records)), encoding="utf-8")
    lines = "".join(f'{{"id": "l{row}", "text": "label {row}"}}\n' for row in range(25))
    (folder / "labels.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_hidden_labels_are_even_over_frequencies_and_the_same_every_time() -> None:
    counts = Counter({f"l{row:03}": 200 - row for row in range(100)} | {"never": 0})
    hidden = hidden_labels(counts)
    assert hidden == hidden_labels(counts)
    assert len(hidden) == 10
    assert [int(label[1:]) // 10 for label in hidden] == list(range(10))
    assert hidden_labels(counts, seed=1) != hidden
    assert len(hidden_labels(Counter({"a": 1, "b": 1, "c": 2}))) == 1
    assert hidden_labels(Counter()) == []


def test_a_reduced_corpus_keeps_its_records(tmp_path: Path) -> None:
    whole = whole_corpus(_corpus(tmp_path / "source"), tmp_path / "whole")
    assert {path.name for path in whole.iterdir()} == {
        f"{name}.jsonl.gz" for name in ("labels", "train", "dev", "test")
    }
    hidden = set(hidden_labels(counts_of(whole)))
    reduced = reduced_corpus(whole, tmp_path / "reduced")
    left = {label.id for label in read_labels(reduced / "labels.jsonl.gz")}
    assert left == {label.id for label in read_labels(whole / "labels.jsonl.gz")} - hidden
    for split in ("train", "dev", "test"):
        pairs = zip(read_records(whole / f"{split}.jsonl.gz"), read_records(reduced / f"{split}.jsonl.gz"), strict=True)
        for before, after in pairs:
            assert (after.id, after.text) == (before.id, before.text)
            assert after.labels == tuple(label for label in before.labels if label not in hidden)
    assert len(load_corpus(reduced, ["train", "dev"]).label_ids) == 25 - len(hidden)
    assert reduced_corpus(whole, tmp_path / "reduced") == reduced


def test_figures_by_hand() -> None:
    truth = csr_matrix(np.array([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=np.float32))
    new = np.array([False, False, True, True])
    ranked = np.array([[2, 1, 0], [2, 1, -1], [0, -1, -1], [3, 2, 1]])
    found = judge(ranked, truth, new)
    assert found.new_recall == pytest.approx(100 * (1 / 2 + 0) / 2)
    assert found.new_precision == pytest.approx(50.0)
    assert found.label_recall == pytest.approx(100 * (1 + 0) / 2)
    assert found.old_recall == pytest.approx(100.0)
    assert found.old_precision == 0.0
    assert found.recall == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)
    assert found.precision == pytest.approx(100 / 3)
    assert found.harmonic == pytest.approx(2 * 25 * 100 / 125)
    assert judge(ranked[:0], truth[:0], new) == Figures(*[0.0] * 7)
    assert judge(ranked[:0], truth[:0], new).harmonic == 0.0


def test_only_the_first_ten_places_count() -> None:
    truth = csr_matrix(np.eye(12, dtype=np.float32)[[11, 9]])
    ranked = np.tile(np.arange(12), (2, 1))
    assert judge(ranked, truth, np.zeros(12, dtype=bool)).old_recall == 50.0


def test_examples_are_drawn_from_those_of_the_label() -> None:
    relevance = csr_matrix(np.array([[1, 0], [1, 1], [1, 0], [1, 0]], dtype=np.float32))
    few, single = drawn(relevance, [0, 1], 2, seed=0)
    assert len(set(few.tolist())) == 2
    assert single.tolist() == [1]
    assert drawn(relevance, [0], None, seed=0)[0].tolist() == [0, 1, 2, 3]
    assert drawn(relevance, [0], 0, seed=0)[0].tolist() == []
    assert len({tuple(drawn(relevance, [0], 2, seed)[0].tolist()) for seed in range(20)}) > 1


def test_table_and_picture(tmp_path: Path) -> None:
    figures = Figures(40.0, 50.0, 30.0, 60.0, 70.0, 55.0, 65.0)
    rows = [Row("d", "dev", way, shots, 1, figures) for way, shots in (("fully trained", None), ("before", 0))]
    rows += [Row("d", "dev", "served", shots, 1, Figures(20.0, *[10.0] * 6)) for shots in (0, 5, None)]
    lines = table(rows).splitlines()
    assert len(lines) == 5
    assert "50 % of full" in lines[3]
    assert "(-50.0)" in lines[3]
    plotted = [
        {"dataset": row.dataset, "way": row.way, "shots": row.shots, "figures": {"new_recall": 1.0, "old_recall": 2.0}}
        for row in rows
    ]
    for name in ("one.svg", "two.svg"):
        draw(plotted, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
