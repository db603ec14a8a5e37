"""training.corpus_check and `labelspace corpus check`, on a corpus counted by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.corpus import corpus
from index.errors import InputError
from training.corpus_check import Bucket, LabelCount, SplitReport, Spread, check_corpus, format_report


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Labels a to f: a has 10 training records, b 2, c 1, d one in test only, e and f none."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = {"a": "same", "b": "same", "c": "other", "d": "", "e": None, "f": "last"}
    write(folder / "labels.jsonl", [{"id": label, "text": text} for label, text in texts.items()])
    labels: list[list[str]] = [["a"]] * 8 + [["a", "b", "c"], ["b", "a"], []]
    train = [{"id": f"q{row}", "text": "x" * (row + 1), "labels": chosen} for row, chosen in enumerate(labels)]
    train[2]["text"] = "x"
    write(folder / "train.jsonl", train)
    test = [
        {"id": "t1", "text": "x", "labels": ["d", "a"]},
        {"id": "t2", "text": "new", "labels": ["d"]},
        {"id": "t3", "text": "x", "labels": []},
    ]
    write(folder / "test.jsonl", test)
    return folder


def test_every_figure_by_hand(folder: Path) -> None:
    report = check_corpus(folder)
    train, test = report.splits
    # Lengths are 1 to 11 but for the third, which is 1 instead of 3.
    assert train == SplitReport(
        "train", 11, 1, Spread(13 / 11, 0, 3), Spread(64 / 11, 1, 11), 0, repeated=1, in_train=0
    )
    assert test == SplitReport("test", 3, 1, Spread(1.0, 0, 2), Spread(5 / 3, 1, 3), 0, repeated=1, in_train=2)
    assert (report.labels, report.in_train, report.only_held_out, report.unused) == (6, 3, 1, 2)
    assert (report.without_text, report.repeated_texts, report.labels_file) == (2, 1, True)
    assert report.frequencies == (
        Bucket(0, 0, 3),
        Bucket(1, 1, 1),
        Bucket(2, 4, 1),
        Bucket(5, 9, 0),
        Bucket(10, 99, 1),
        Bucket(100, 999, 0),
        Bucket(1000, None, 0),
    )
    assert report.most_frequent == (LabelCount("a", 10), LabelCount("b", 2), LabelCount("c", 1))


def test_a_dev_split_is_counted_too(folder: Path) -> None:
    write(folder / "dev.jsonl", [{"id": "d1", "text": "xx", "labels": ["e"]}])
    report = check_corpus(folder)
    assert [split.name for split in report.splits] == ["train", "dev", "test"]
    assert report.splits[1].in_train == 1
    assert (report.only_held_out, report.unused) == (2, 1)


def test_records_without_text_are_no_repetitions(folder: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": str(row), "text": text, "labels": [], "fields": {"n": 1}}
        for row, text in enumerate([None, "", "x", "x"])
    ]
    write(folder / "dev.jsonl", rows)
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"id": "plain", "labels": [], "fields": {"n": 1}}\n')
    train, dev, _ = check_corpus(folder).splits
    assert (train.records, train.textless, train.repeated) == (12, 1, 1)
    assert (dev.textless, dev.repeated, dev.in_train, dev.characters) == (2, 1, 2, Spread(0.5, 0, 1))
    lines = [line.split() for line in format_report(check_corpus(folder)).splitlines()]
    assert ["without", "text,", "of", "fields", "only", "1", "2", "0"] in lines


def test_the_page_shows_the_figures(folder: Path) -> None:
    lines = [line.split() for line in format_report(check_corpus(folder)).splitlines()]
    assert ["split", "train", "test"] in lines
    assert ["labels", "per", "record,", "mean", "1.18", "1.00"] in lines
    assert ["labels", "per", "record,", "range", "0", "to", "3", "0", "to", "2"] in lines
    assert ["text", "of", "a", "training", "record", "-", "2"] in lines
    assert ["without", "text", "2"] in lines
    assert ["1000", "or", "more", "0"] in lines
    assert ["a", "10"] in lines


def test_a_corpus_without_a_labels_file_says_so(folder: Path) -> None:
    (folder / "labels.jsonl").unlink()
    report = check_corpus(folder)
    assert (report.labels, report.labels_file) == (4, False)
    assert "4 labels (there is no labels file" in format_report(report)


def test_a_long_label_id_does_not_break_the_page(folder: Path) -> None:
    label = "ö" * 200
    write(folder / "labels.jsonl", [{"id": label}, {"id": "a"}])
    write(folder / "train.jsonl", [{"id": "q", "text": "x", "labels": [label]}])
    (folder / "test.jsonl").unlink()
    assert all(len(line) <= 80 for line in format_report(check_corpus(folder)).splitlines()[1:])


def test_a_corpus_without_train_is_refused(folder: Path) -> None:
    (folder / "train.jsonl").unlink()
    with pytest.raises(InputError, match="has no train split"):
        check_corpus(folder)


def test_the_command_prints_the_page_and_writes_json(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(corpus, ["check", str(folder), "--json", str(tmp_path / "report.json")])
    assert result.exit_code == 0
    report = check_corpus(folder)
    assert result.output == format_report(report) + "\n"
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert saved["splits"][1]["in_train"] == 2
    assert saved == json.loads(json.dumps(report.as_dict()))
