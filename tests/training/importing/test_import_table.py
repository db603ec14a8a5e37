"""training.importing: tables with named columns, finding the format out, and what is left when an import fails."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from importing_support import Workplace
from index.errors import InputError, LabelspaceError
from index.labels import Label
from training.corpus import Record
from training.importing import inputs, writing
from training.importing.formats import FORMATS
from training.importing.report import format_import
from training.importing.source import ImportOptions
from training.progress import Progress

CSV = 'key,title,body,tags\nq1,"Pie, apple","with ""crust""\nand more", cake; fruit ;cake\nq2,größe,,日本\nq3, ,,cake\n'
COLUMNS: dict[str, Any] = {"text_columns": ("title", "body"), "labels_column": "tags"}


def test_a_csv_with_chosen_columns_by_value(work: Workplace) -> None:
    work.write("data.csv", CSV)
    report = work.run("data.csv", id_column="key", **COLUMNS)
    assert report.format == "table"
    assert work.records() == [
        Record("q1", 'Pie, apple with "crust"\nand more', ("cake", "fruit")),
        Record("q2", "größe", ("日本",)),
    ]
    assert work.labels() == [Label(name, name) for name in ("cake", "fruit", "日本")]
    assert [change.replace(f"{work.source}/", "") for change in report.changes] == [
        "records with neither text nor fields, left out: 1, the first at data.csv:5",
        "labels given twice to one record, kept once: 1, the first at data.csv:2",
    ]


def test_rows_are_numbered_without_an_id_column(work: Workplace) -> None:
    work.write("my-data.csv.gz", "\ufeff" + CSV.replace("q3, ,,", "\n,,,\nq3,x,,"))
    work.run(**COLUMNS)
    assert work.pairs() == {"0": ("cake", "fruit"), "1": ("日本",), "2": ("cake",)}


def test_splits_and_labels_by_file_name(work: Workplace) -> None:
    work.write("toys_train.csv", CSV)
    work.write("toys_test.csv", "key,title,body,tags\n1,a,,fruit\n")
    work.write("toys_dev.csv", "key,title,body,tags\n1,größe,,\n")
    work.write("train_labels.csv", "id,name\nfruit,Fruit: apples\ncake,Cakes\n日本,Japan\nunused,\n")
    report = work.run(**COLUMNS)
    assert work.labels() == [
        Label("fruit", "Fruit: apples"),
        Label("cake", "Cakes"),
        Label("日本", "Japan"),
        Label("unused", ""),
    ]
    assert [(split.name, split.records, split.in_train) for split in report.splits] == [
        ("train", 2, 0),
        ("dev", 1, 1),
        ("test", 1, 0),
    ]


def test_a_label_that_the_list_lacks_is_a_fault(work: Workplace) -> None:
    work.write("train.csv", CSV)
    listed = work.write("labels.jsonl", [{"id": "cake", "text": "Cake"}, {"id": "fruit"}])
    assert "train.csv:4: label '日本' is not in the labels file; add it there" in work.fails(
        labels_file=listed, **COLUMNS
    )


def test_tabs_another_separator_and_texts_with_quotes(work: Workplace) -> None:
    work.write("train.tsv", 'text\tlabels\n"quoted" only in part\ta|b\nplain\tb\n')
    columns: dict[str, Any] = {"text_columns": ("text",), "labels_column": "labels", "labels_separator": "|"}
    assert "train.tsv:2: has faulty quotes" in (message := work.fails(**columns))
    assert "--no-quotes" in message
    work.run(quotes=False, **columns)
    assert work.records()[0] == Record("0", '"quoted" only in part', ("a", "b"))


def test_a_cell_of_ten_megabytes(work: Workplace) -> None:
    text = "größe, " * (10 * 2**20 // 9)
    work.write("train.csv", f'title,tags\n"{text}",a;b\n')
    work.run(text_columns=("title",), labels_column="tags")
    assert work.records()[0].text == text.strip()


FAULTS = {
    "a,b\n1,2\n": "train.csv: has no column 'title'; its columns are a, b",
    "title,title,tags,body\n1,2,3,4\n": "train.csv: has more than one column 'title'",
    "": "train.csv: has no column 'title'; its columns are none",
    "title,body,tags\na,b,c\na,b\n": "train.csv:3: has 2 cells, the header has 3",
    'title,body,tags\na,b,c\n"a,b,c\nd,e,f\n': "train.csv:3: has faulty quotes",
    "title,body,tags\n": "has no record with a text or fields for train; empty",
    "title,body,tags\na,b,c\n": "has fewer than 2 labels (1)",
}


@pytest.mark.parametrize(("text", "message"), FAULTS.items())
def test_a_faulty_table_is_named_by_line(work: Workplace, text: str, message: str) -> None:
    work.write("train.csv", text)
    assert message in work.fails(**COLUMNS)


def test_columns_are_asked_for_and_only_of_tables(work: Workplace) -> None:
    work.write("train.csv", CSV)
    ask = "name the columns of the table with --labels-column, and --text-column or --field-column"
    assert ask in work.fails(format="table")
    assert ask in work.fails(labels_column="tags")
    assert "--labels-separator" in work.fails(labels_separator="", **COLUMNS)
    assert "annif-tsv has columns of its own" in work.fails(format="annif-tsv", **COLUMNS)
    (work.source / "train.csv").unlink()
    assert "has no table; looked for a .csv or .tsv" in work.fails(**COLUMNS)


def test_an_unknown_place_lists_what_was_looked_for(work: Workplace) -> None:
    work.write("notes.md", "nothing")
    work.write("table.csv", CSV)
    message = work.fails()
    assert message.startswith(f"{work.source}: is in no known format. Looked for, each plain or as .gz: ")
    assert all(f"({known.name})" in message for known in FORMATS)
    assert "is in no known format; of a repository, give the folder. Looked" in work.fails("notes.md")
    assert "--format: 'xml' is not known; give one of interactions, table, xc-json, xc," in work.fails(format="xml")
    with pytest.raises(InputError, match=r"none: is not there"):
        writing.import_corpus(work.source / "none", work.out)
    assert "x.tar.gz: is an archive; unpack it" in work.fails(work.write("x.tar.gz", b"").name)


def test_names_that_are_no_text_are_refused(work: Workplace) -> None:
    work.write("train.csv", CSV)
    os.rename(bytes(work.source / "train.csv"), bytes(work.source) + b"/tr\xff.csv")  # noqa: PTH104
    assert "tr\\udcff.csv': is a name that is not valid Unicode; rename it" in work.fails(**COLUMNS)
    with pytest.raises(InputError, match="not valid Unicode"):
        writing.import_corpus(work.source, work.out / "\udcff")


def test_labels_without_a_printable_character_are_left_out(work: Workplace) -> None:
    work.write("train.csv", "title,body,tags\na,,x;\x01;y\n")
    work.run(**COLUMNS)
    assert work.pairs() == {"0": ("x", "y")}


@pytest.mark.parametrize(
    "content", ["id\tname\nfruit\tFruit\ncake\tCakes\n日本\t\n", "fruit\tFruit\ncake\tCakes\n日本\n"]
)
def test_a_label_list_with_tabs_may_have_a_header(work: Workplace, content: str) -> None:
    work.write("train.csv", CSV)
    work.write("labels.tsv", content)
    work.run(**COLUMNS)
    assert work.labels() == [Label("fruit", "Fruit"), Label("cake", "Cakes"), Label("日本", "")]


def test_a_long_file_tells_how_far_it_is_read(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    class Recorder(Progress):
        def advance(self, units: int, note: str = "") -> None:
            told.append(units)

    monkeypatch.setattr(inputs, "_LONG", 0)
    monkeypatch.setattr(inputs, "_MEBIBYTE", 1)
    monkeypatch.setattr(inputs, "_LINES_PER_LOOK", 2)
    monkeypatch.setattr(inputs, "Progress", Recorder)
    size = work.write("train.csv", CSV).stat().st_size
    work.run(**COLUMNS)
    assert sum(told) == size


def test_a_corpus_of_our_own_is_no_source(work: Workplace) -> None:
    work.write("train.jsonl", [{"id": "a", "text": "b", "labels": []}])
    assert "is in no known format" in work.fails()


def test_what_is_there_is_not_touched(work: Workplace) -> None:
    work.write("train.csv", CSV)
    work.out.mkdir()
    (work.out / "mine").touch()
    with pytest.raises(LabelspaceError, match="is there already"):
        work.run(**COLUMNS)
    assert [path.name for path in work.out.iterdir()] == ["mine"]


def test_nothing_is_left_when_writing_fails(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(report: object) -> str:
        raise OSError(28, "No space left on device")

    work.write("train.csv", CSV)
    monkeypatch.setattr(writing, "origin_note", full)
    with pytest.raises(LabelspaceError, match="could not be written"):
        work.run(**COLUMNS)
    assert [path.name for path in work.out.parent.iterdir()] == ["source"]


def test_the_same_source_gives_the_same_bytes(work: Workplace, tmp_path: Path) -> None:
    work.write("train.csv", CSV)
    work.run(**COLUMNS)
    writing.import_corpus(work.source, tmp_path / "again", ImportOptions(**COLUMNS))
    for name in ("train.jsonl.gz", "labels.jsonl.gz"):
        assert (work.out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_note_of_origin_names_the_files_by_hash(work: Workplace) -> None:
    path = work.write("train.csv.gz", CSV)
    report = work.run(**COLUMNS)
    note = (work.out / "README.md").read_text(encoding="utf-8")
    assert note.startswith("# source\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"| {path} | {path.stat().st_size} | utf-8 | {digest} |" in note
    assert "(format table)" in note
    lines = format_import(report).splitlines()
    assert lines[1] == "train: 2 records, 0 without labels, 3 labels given"
    assert lines[2] == "labels: 3, 0 without text"
    assert all(line in note for line in lines[1:])
    assert json.loads(json.dumps(report.as_dict()))["files"][0]["sha256"] == digest


def test_written_lines_leave_out_what_is_empty(work: Workplace) -> None:
    work.write("train.csv", CSV)
    work.run(**COLUMNS)
    first = gzip.decompress((work.out / "train.jsonl.gz").read_bytes()).splitlines()[1]
    assert first.decode() == '{"id":"1","text":"größe","labels":["日本"]}'
