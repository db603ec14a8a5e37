"""The old combined format of the Extreme Classification repository, whose features stand for a text."""

from __future__ import annotations

import pytest

from importing_support import Workplace
from index.labels import Label
from training.corpus import Record

COMBINED = "3 5 4\n0,3 1:0.5 4:1.5\n 0:1\n2 3:1 2:0\n"


def test_the_combined_format_has_features_as_words(work: Workplace) -> None:
    work.write("Eurlex_train.txt", COMBINED)
    work.write("Eurlex_test.txt", "2 5 4\n1,1 0:1\n3\n")
    report = work.run()
    assert report.format == "xc-combined"
    assert work.records() == [Record("0", "f1 f4", ("0", "3")), Record("1", "f0", ()), Record("2", "f3", ("2",))]
    assert work.records("test") == [Record("0", "f0", ("1",))]
    assert work.labels() == [Label(str(number), "") for number in range(4)]
    assert any("tokens such as f12" in note for note in report.notes)
    assert len(report.changes) == 2


def test_the_combined_format_with_names_of_features_and_labels(work: Workplace) -> None:
    work.write("data.txt.gz", COMBINED)
    work.write("Xf.txt", "null\neins\nzwei\ndrei\nvier\n")
    work.write("Y.txt", "a\nb\nc\nd\n")
    report = work.run()
    assert [record.text for record in work.records()] == ["eins vier", "null", "drei"]
    assert [label.text for label in work.labels()] == ["a", "b", "c", "d"]
    assert "names from Xf.txt" in report.notes[0]


def test_the_combined_format_without_a_blank_before_the_features(work: Workplace) -> None:
    work.write("train.txt", "2 5 4\n0:1 1:1\n1,2 0:1\n")
    work.run("train.txt")
    assert work.records() == [Record("0", "f0 f1", ()), Record("1", "f0", ("1", "2"))]


COMBINED_FAULTS = {
    "1 5 4\n4 0:1\n": "train.txt:2: label 4 is out of range; there are 4 labels",
    "1 5 4\n0 5:1\n": "train.txt:2: feature 5 is out of range; line 1 says 5 features",
    "1 5 4\n0,-1 0:1\n": "train.txt:2: '-1' is not a whole number",
    "1 5 4\n0 0\n": "train.txt:2: '0' is not an index and a value",
    "2 5 4\n0 0:1\n": "train.txt: has 1 rows, its line 1 says 2",
    "1 5 4\n0 0:1\n0 0:1\n": "train.txt:3: is beyond the 1 rows",
}


@pytest.mark.parametrize(("text", "message"), COMBINED_FAULTS.items())
def test_a_faulty_combined_file_is_named_by_line(work: Workplace, text: str, message: str) -> None:
    work.write("train.txt", text)
    assert message in work.fails()
