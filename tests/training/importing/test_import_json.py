"""training.importing: the repository's JSON lines, by value and by fault."""

from __future__ import annotations

from typing import Any

import pytest

from importing_support import Workplace
from index.labels import MAX_ID_BYTES, Label
from training.corpus import Record

LABELS: list[Any] = [
    {"uid": "B01", "title": "Kuchen", "content": "mit Obst"},
    {"uid": "B02", "title": "菓子", "content": ""},
    {"uid": "B03", "title": ""},
]
TRAIN: list[Any] = [
    {"uid": "A1", "title": "apple pie", "content": "a crust", "target_ind": [2, 0], "target_rel": [1.0, 1.0]},
    {"uid": "A2", "title": "", "content": "only content", "target_ind": [], "target_rel": []},
    {"uid": 7, "title": "mochi", "target_ind": [1, 1, 0], "target_rel": [1.0, 1.0, 0.0]},
    {"title": "no uid", "content": None, "target_ind": [1]},
]


def small(work: Workplace, train: list[Any] | str | bytes, name: str = "trn.json.gz") -> None:
    work.write(name, train)
    work.write("lbl.json.gz", LABELS)


def test_json_lines_by_value(work: Workplace) -> None:
    small(work, TRAIN)
    work.write("tst.json.gz", [{"uid": "A1", "title": "apple pie a crust", "target_ind": [0]}])
    work.write("filter_labels_test.txt", "0 0\n0 2\n")
    report = work.run()
    assert report.format == "xc-json"
    assert work.labels() == [Label("B01", "Kuchen mit Obst"), Label("B02", "菓子"), Label("B03", "")]
    assert work.records() == [
        Record("A1", "apple pie a crust", ("B03", "B01")),
        Record("A2", "only content", ()),
        Record("7", "mochi", ("B02",)),
        Record("3", "no uid", ("B02",)),
    ]
    assert work.records("test") == [Record("A1", "apple pie a crust", (), None, ("B01", "B03"))]
    assert report.splits[1].in_train == 1
    assert report.labels_without_text == 1
    assert work.corpus("test").splits["test"].excluded.toarray().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("name", ["trn.json", "trn.jsonl", "trn.raw.json.gz", "train.jsonl.gz"])
def test_other_names(work: Workplace, name: str) -> None:
    small(work, TRAIN, name)
    assert work.run().format == "xc-json"
    assert len(work.records()) == 4


def test_names_after_an_arrow_beside_raw_json(work: Workplace) -> None:
    work.write("trn.raw.json.gz", TRAIN)
    work.write("Yf.txt", "10->Apple\n11->Bread\n12->Cake\n")
    work.run()
    assert work.labels() == [Label("10", "Apple"), Label("11", "Bread"), Label("12", "Cake")]


def test_a_label_list_elsewhere(work: Workplace) -> None:
    small(work, TRAIN)
    other = work.write("sub/names.txt", "a\nb\nc\n")
    work.run(labels_file=other)
    assert [label.text for label in work.labels()] == ["a", "b", "c"]


def test_json_goes_before_sparse_text_beside_it(work: Workplace) -> None:
    small(work, TRAIN)
    work.write("trn_X_Y.txt", "")
    assert work.run().format == "xc-json"


def test_uids_that_repeat_are_blank_long_or_controlled(work: Workplace) -> None:
    long = "ü" * 300
    uids = ["a", "a", " ", " b\t", "1", long, long, long + "x", "\ud800c"]
    small(work, [{"uid": uid, "title": f"t{number}", "target_ind": []} for number, uid in enumerate(uids)])
    report = work.run()
    ids = [record.id for record in work.records()]
    assert ids[:5] == ["a", "a#1", "2", "b", "1"]
    assert ids[8] == "\ufffdc"
    assert len(set(ids)) == len(uids)
    assert all(len(name.encode()) <= MAX_ID_BYTES for name in ids)
    assert ids[5].startswith("ü" * 200)
    says = "\n".join(report.changes)
    assert "row number: 2" in says
    assert "ids trimmed, or shortened to 512 bytes: 6" in says
    assert "lone surrogate, replaced by U+FFFD: 1" in says


def test_a_row_number_that_is_taken_is_not_given_again(work: Workplace) -> None:
    small(work, [{"uid": "1", "title": "a", "target_ind": []}, {"title": "b", "target_ind": []}])
    work.run()
    assert [record.id for record in work.records()] == ["1", "1#1"]


def test_lone_surrogates_in_texts_are_replaced(work: Workplace) -> None:
    small(work, [{"title": "a\ud83d", "target_ind": []}, {"title": "😀", "target_ind": []}])
    work.run()
    assert [record.text for record in work.records()] == ["a\ufffd", "😀"]


def test_blank_lines_at_the_end_are_no_fault(work: Workplace) -> None:
    small(work, '{"title": "a", "target_ind": [0]}\n\n \n')
    work.run()
    assert len(work.records()) == 1


GOOD = '{"title": "a", "target_ind": [0], "target_rel": [1.0]}\n'
FAULTS = {
    '{"title": "b", "target_ind": [3]}': "trn.json:2: label 3 is out of range; there are 3 labels",
    '{"title": "b", "target_ind": [-1]}': "trn.json:2: target_ind must be a list of whole numbers from 0 on",
    '{"title": "b", "target_ind": [true]}': "trn.json:2: target_ind must be",
    '{"title": "b", "target_ind": [1.0]}': "trn.json:2: target_ind must be",
    '{"title": "b", "target_ind": "1"}': "trn.json:2: target_ind must be",
    '{"title": "b"}': "trn.json:2: has no target_ind",
    '{"title": "b", "target_ind": [1], "target_rel": [1, 1]}': "trn.json:2: has 1 in target_ind, 2 in target_rel",
    '{"title": "b", "target_ind": [1], "target_rel": ["1"]}': "trn.json:2: target_rel must be a list of numbers",
    '{"title": "b", "target_ind": [1], "target_rel": [NaN]}': "trn.json:2: nan is no relevance",
    '{"title": "b", "target_ind": [1], "target_rel": [-1]}': "trn.json:2: -1 is no relevance",
    '{"title": 3, "target_ind": [1]}': "trn.json:2: title and content must be strings",
    '{"text": "b", "target_ind": [1]}': "trn.json:2: has neither title nor content",
    '{"uid": [1], "title": "b", "target_ind": [1]}': "trn.json:2: uid must be a string or a whole number",
    '{"title": "b", "target_ind": [1]': "trn.json:2: is not valid JSON (",
    '[{"title": "b", "target_ind": [1]}]': "trn.json:2: is no JSON object",
    "": "trn.json:2: is blank",
    "[" * 100_000: "trn.json:2: is JSON that cannot be taken",
    '{"uid": ' + "1" * 5000 + "}": "trn.json:2: is JSON that cannot be taken",
}


@pytest.mark.parametrize(("line", "message"), FAULTS.items(), ids=[message[:40] for message in FAULTS.values()])
def test_a_faulty_record_is_named_by_file_and_line(work: Workplace, line: str, message: str) -> None:
    small(work, GOOD + line + "\n" + GOOD, "trn.json")
    assert message in work.fails()


def test_a_filter_pair_beyond_the_records_is_named(work: Workplace) -> None:
    small(work, TRAIN)
    work.write("filter_labels_train.txt", "0 0\n4 0\n")
    assert "filter_labels_train.txt:2: row 4 is out of range; there are 4 rows, from 0" in work.fails()


def test_a_faulty_label_is_named_by_file_and_line(work: Workplace) -> None:
    small(work, TRAIN)
    work.write("lbl.json.gz", [{"title": "a"}, {"name": "b"}])
    assert "lbl.json.gz:2: has neither title nor content" in work.fails()


def test_what_is_missing_is_said(work: Workplace) -> None:
    assert "has no records; looked for trn.json" in work.fails(format="xc-json")
    work.write("trn.json", GOOD)
    assert "has no label list; looked for lbl.json, lbl.jsonl" in work.fails()
    work.write("lbl.json", "")
    assert "lbl.json: has no labels" in work.fails()
    (work.source / "trn.json").rename(work.source / "tst.json")
    work.write("lbl.json", LABELS)
    assert "has no training records, only test" in work.fails(format="xc-json")
