"""Keys of records become fields, every configuration is one that there is, and the page has means over seeds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ablations import runs_of
from fields import COMPARED, Row, page, with_fields
from index.field_spec import FieldSpec
from results_table import COLUMNS
from tests_support import write_lines
from training.corpus import load_corpus


def test_keys_are_moved_into_fields_and_the_rest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    folder.mkdir()
    rows: list[dict[str, object]] = [
        {"id": "1", "text": "größe 地図", "labels": ["a"], "domains": ["tec", "lit"], "type": "Book"},
        {"id": "2", "text": "none", "labels": [], "domains": [], "type": None},
        {"id": "3", "text": "neither", "labels": ["b"], "group": "g"},
    ]
    write_lines(folder / "train.jsonl.gz", rows)
    write_lines(folder / "dev.jsonl", rows[:1])
    write_lines(folder / "labels.jsonl", [{"id": "a", "text": "A", "de": "Ä"}, {"id": "b", "text": "B"}])
    out = with_fields(folder, tmp_path / "out", ("type", "domains"))
    lines = gzip.decompress((out / "train.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": "1", "text": "größe 地図", "labels": ["a"], "fields": {"type": "Book", "domains": ["tec", "lit"]}},
        {"id": "2", "text": "none", "labels": []},
        {"id": "3", "text": "neither", "labels": ["b"], "group": "g"},
    ]
    corpus = load_corpus(out, ["train", "dev"], [FieldSpec("type", "categorical")])
    assert corpus.splits["train"].fields == [{"type": "Book"}, None, None]
    assert corpus.label_texts == ["A", "B"]
    assert with_fields(folder, tmp_path / "out", ("type",)) == out  # made once


def test_every_configuration_is_one_that_there_is_and_differs_from_the_others() -> None:
    for compared in COMPARED:
        assert len(runs_of(compared.configurations, compared.common)) == len(compared.configurations)


def _row(name: str, seed: int, value: float) -> Row:
    figures = dict.fromkeys((*COLUMNS, "unseen R@10"), value)
    return Row("small", name, seed, [], ["--set=training.epochs=2"], figures, 610, {"train": {"seconds": 3.6}})


def test_the_page_has_means_and_spread_over_seeds_with_the_best_in_bold() -> None:
    text = page([_row("with", 0, 10.0), _row("without", 0, 9.5), _row("with", 1, 12.0), _row("without", 1, 9.5)])
    assert text.count("**11.0** ± 1.4") == 6
    assert text.count("| 9.5 ± 0.0 ") == 6
    assert "610 dev rows; --set=training.epochs=2." in text
    assert "| 2 | 4 |" in text
    assert page([_row("alone", 0, 10.0)]).count("**10.0** |") == pytest.approx(6)
