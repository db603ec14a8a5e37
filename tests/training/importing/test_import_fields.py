"""training.importing: columns of a table that become fields, with text and without."""

from __future__ import annotations

import json
from typing import Any

import pytest

from importing_support import Workplace
from index.errors import InputError
from index.field_spec import FieldSpec
from index.fields import Fields
from training.corpus import load_corpus, read_records
from training.importing.field_columns import FieldColumn, field_columns, fields_of
from training.importing.identifiers import clean_fields
from training.importing.source import Found, ImportOptions

TABLE = 'age,job,tags,income\n39, State-gov ,a|b| b |,>50K\n?,?,?|ö,<=50K\n,,"|?",<=50K\n17,"x, ""y""",日本,\n'
COLUMNS: dict[str, Any] = {"labels_column": "income", "field_columns": ("age", "job=work"), "missing": ("?",)}
LISTS = (("tags", "|"),)


def fields(work: Workplace, *names: str, split: str = "train") -> dict[str, Fields | None]:
    found = read_records(work.out / f"{split}.jsonl.gz", [FieldSpec(name) for name in names])
    return {record.id: record.fields for record in found}


def test_columns_become_fields_by_value(work: Workplace) -> None:
    work.write("train.csv", TABLE)
    report = work.run(list_columns=LISTS, **COLUMNS)
    assert report.format == "table"
    assert fields(work, "age", "work", "tags") == {
        "0": {"age": "39", "work": "State-gov", "tags": ["a", "b", "b"]},
        "1": {"tags": ["ö"]},
        "3": {"age": "17", "work": 'x, "y"', "tags": ["日本"]},
    }
    assert work.pairs() == {"0": (">50K",), "1": ("<=50K",), "3": ()}
    assert [record.text for record in work.records()] == ["", "", ""]
    assert [change.replace(f"{work.source}/", "") for change in report.changes] == [
        "records with neither text nor fields, left out: 1, the first at train.csv:4"
    ]


def test_a_folder_has_a_table_for_each_split_packed_or_not(work: Workplace) -> None:
    work.write("train.csv.gz", TABLE)
    work.write("dev.tsv", "income\tage\tjob\n>50K\t1\t2\n")
    work.write("test.csv.gz", "age,job,income\n39,State-gov,>50K\n40,State-gov,none\n")
    report = work.run(**COLUMNS)
    assert [(split.name, split.records, split.in_train) for split in report.splits] == [
        ("train", 2, 0),
        ("dev", 1, 0),
        ("test", 2, 0),
    ]
    assert fields(work, "age", "work", split="dev") == {"0": {"age": "1", "work": "2"}}
    assert fields(work, "age", split="test") == {"0": {"age": "39"}, "1": {"age": "40"}}
    assert [label.id for label in work.labels()] == [">50K", "<=50K", "none"]
    assert load_corpus(work.out, ["train"]).splits["train"].relevance.toarray().tolist() == [[1, 0, 0], [0, 0, 0]]


def test_text_and_fields_together(work: Workplace) -> None:
    work.write("train.csv", "t,a,l\nwords,1,x;y\n,2,y\nonly,,x\n,,x\n")
    work.run(text_columns=("t",), labels_column="l", field_columns=("a",))
    assert [(record.id, record.text) for record in work.records()] == [("0", "words"), ("1", ""), ("2", "only")]
    assert fields(work, "a") == {"0": {"a": "1"}, "1": {"a": "2"}, "2": None}


def test_a_column_may_be_of_a_list_and_have_a_sign_in_its_name(work: Workplace) -> None:
    work.write("train.csv", "a=b,l\n1 2,x\n3,y\n")
    work.run(labels_column="l", list_columns=(("a=b=c", " "),), field_columns=("a=b=d",))
    assert fields(work, "c", "d") == {"0": {"c": ["1", "2"], "d": "1 2"}, "1": {"c": ["3"], "d": "3"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field_columns": ("age", "job=age")}, "more than one column becomes the field 'age'"),
        ({"field_columns": ("age",), "list_columns": (("age", "|"),)}, "more than one column becomes the field 'age'"),
        ({"field_columns": ("job=",)}, "--field-column: 'job=' lacks a name; write NAME or NAME=FIELD"),
        ({"list_columns": (("=x", "|"),)}, "--list-column: '=x' lacks a name"),
        ({"field_columns": (" ",)}, "lacks a name"),
        ({"list_columns": (("tags", ""),)}, "--list-column: 'tags' has an empty separator"),
        ({"field_columns": ("job=\udcff",)}, "is not valid Unicode"),
        ({"field_columns": ("none",)}, "has no column 'none'; its columns are age, job, tags, income"),
    ],
)
def test_faulty_columns_are_refused(work: Workplace, options: dict[str, Any], message: str) -> None:
    work.write("train.csv", TABLE)
    assert message in work.fails(labels_column="income", **options)


def test_a_labels_column_is_asked_for_and_other_formats_have_no_fields(work: Workplace) -> None:
    work.write("train.csv", TABLE)
    assert "name the columns of the table with --labels-column" in work.fails(field_columns=("age",))
    assert "annif-tsv has columns of its own" in work.fails(format="annif-tsv", field_columns=("age",))
    assert "annif-tsv has columns of its own" in work.fails(format="annif-tsv", missing=("?",))


def test_cells_without_options() -> None:
    assert field_columns(ImportOptions()) == ()
    columns = (FieldColumn("a", "x"), FieldColumn("b", "y", "::"))
    assert fields_of(["", "::"], columns, ()) == {}
    assert fields_of([" 1 ", "a::b:c"], columns, ("1",)) == {"y": ["a", "b:c"]}
    with pytest.raises(InputError, match="the field 'item'"):
        field_columns(ImportOptions(field_columns=("item",)), taken=("item",))


def test_a_lone_surrogate_in_a_field_is_replaced_and_counted() -> None:
    found = Found()
    assert clean_fields({"a": "x\ud800", "b": ["ok", "\udfff"], "c": 1}, found, "p") == {
        "a": "x\ufffd",
        "b": ["ok", "\ufffd"],
        "c": 1,
    }
    assert (found.count, found.first) == (2, "p")
    assert clean_fields({}, found, "p") is clean_fields(None, found, "p") is None


def test_a_long_list_is_written_whole(work: Workplace) -> None:
    values = [f"v{number}" for number in range(20_000)]
    work.write("train.csv", f'h,l\n"{"|".join(values)}",a;b\n')
    work.run(labels_column="l", list_columns=(("h", "|"),))
    import gzip

    line = gzip.decompress((work.out / "train.jsonl.gz").read_bytes())
    assert json.loads(line)["fields"] == {"h": values}
