"""training.importing: the repository's sparse text, npz and filters, by value and by fault."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_matrix, csc_matrix, csr_matrix, save_npz

from importing_support import Workplace
from index.labels import Label
from training.corpus import Record

LABELS = "Kuchen\nTorte\n菓子\n"
TRAIN = "apple pie\nBaiser  Torte\nnothing\n和菓子\n"
TRAIN_PAIRS = "4 3\n0:1.00000 1:1.00000\n1:0.5\n\n2:1 0:1\n"
TEST = "pie\nmochi\n"
TEST_PAIRS = "2 3\n0:1\n2:1\n"


def npz(matrix: Any) -> bytes:
    file = io.BytesIO()
    save_npz(file, matrix)
    return file.getvalue()


def small(work: Workplace, pairs: str | bytes = TRAIN_PAIRS, name: str = "trn_X_Y.txt") -> None:
    work.write("trn_X.txt", TRAIN)
    work.write("Y.txt", LABELS)
    work.write(name, pairs)


def test_sparse_text_beside_raw_text_by_value(work: Workplace) -> None:
    small(work)
    work.write("tst_X.txt", TEST)
    work.write("tst_X_Y.txt", TEST_PAIRS)
    report = work.run()
    assert report.format == "xc"
    assert work.labels() == [Label("0", "Kuchen"), Label("1", "Torte"), Label("2", "菓子")]
    assert work.records() == [
        Record("0", "apple pie", ("0", "1")),
        Record("1", "Baiser  Torte", ("1",)),
        Record("2", "nothing", ()),
        Record("3", "和菓子", ("2", "0")),
    ]
    corpus = work.corpus("train", "test")
    assert corpus.splits["train"].relevance.toarray().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert corpus.splits["test"].relevance.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]
    train, test = report.splits
    assert (train.records, train.unlabelled, train.pairs, train.excluded, train.in_train) == (4, 1, 5, 0, 0)
    assert (test.records, test.unlabelled, test.pairs) == (2, 0, 2)
    assert (report.labels, report.labels_without_text, report.changes, report.notes) == (3, 0, (), ())


LAYOUTS = {
    "raw folder": ("raw/trn_X.txt", "raw/Y.txt", "trn_X_Y.txt"),
    "NGAME": ("trn.raw.txt", "lbl.raw.txt", "trn_X_Y.txt"),
    "PECOS": ("X.trn.txt", "output-items.txt", "Y.trn.npz"),
    "tarball": ("train_raw_texts.txt", "label_map.txt", "Y.trn.npz"),
    "packed": ("trn_X.txt.gz", "Y.txt.gz", "trn_X_Y.txt.gz"),
    "npz beside raw": ("raw/trn_X.txt", "raw/Y.txt", "Y.trn.npz"),
    "train": ("train_X.txt", "Y.txt", "train_X_Y.txt"),
}


@pytest.mark.parametrize(("texts", "labels", "matrix"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same(work: Workplace, texts: str, labels: str, matrix: str) -> None:
    dense = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    work.write(texts, TRAIN)
    work.write(labels, LABELS)
    work.write(matrix, npz(csr_matrix(dense)) if matrix.endswith(".npz") else TRAIN_PAIRS)
    assert work.run().format == "xc"
    assert [label.text for label in work.labels()] == LABELS.split()
    train = work.corpus().splits["train"]
    assert (train.texts, train.relevance.toarray().tolist()) == (TRAIN.splitlines(), dense)


@pytest.mark.parametrize("form", [csr_matrix, csc_matrix, coo_matrix])
def test_any_form_of_npz_is_read(work: Workplace, form: Callable[[Any], Any]) -> None:
    dense = np.array([[0, 0, 2], [1, 0, 1], [0, 0, 0], [0, 0.5, 0]])
    small(work, npz(form(dense)), "Y.trn.npz")
    work.run()
    assert work.corpus().splits["train"].relevance.toarray().tolist() == (dense > 0).tolist()


def test_against_a_loop_on_random_pairs(work: Workplace) -> None:
    chooser = np.random.default_rng(3)
    dense = (chooser.random((200, 50)) < 0.05).astype(np.float32)
    lines = [" ".join(f"{column}:1.0" for column in chooser.permutation(np.flatnonzero(row))) for row in dense]
    work.write("trn_X.txt", "".join(f"text {row}\n" for row in range(200)))
    work.write("Y.txt", "".join(f"label {column}\n" for column in range(50)))
    work.write("trn_X_Y.txt", "200 50\n" + "\n".join(lines) + "\n")
    report = work.run()
    assert np.array_equal(work.corpus().splits["train"].relevance.toarray(), dense)
    assert report.splits[0].pairs == dense.sum()
    assert report.splits[0].unlabelled == (dense.sum(axis=1) == 0).sum()


def test_a_missing_header_unsorted_repeated_and_zero_entries(work: Workplace) -> None:
    small(work, "1:1 0:1 1:1 1:1\n\n2:0 1:1\n0:0.0\n")
    report = work.run()
    assert list(work.pairs().values()) == [("1", "0"), (), ("1",), ()]
    assert [change.replace(f"{work.source}/", "") for change in report.changes] == [
        "labels given twice to one record, kept once: 2, the first at trn_X.txt:1",
        "labels given with the value 0, left out: 2, the first at trn_X_Y.txt:3",
    ]


def test_repeated_entries_of_an_npz_count_once(work: Workplace) -> None:
    entries = (np.ones(5), np.array([1, 1, 0, 2, 2]), np.array([0, 3, 5, 5, 5]))
    small(work, npz(csr_matrix(entries, shape=(4, 3))), "Y.trn.npz")
    assert "kept once: 2" in work.run().changes[0]
    assert list(work.pairs().values()) == [("1", "0"), ("2",), (), ()]


def test_fewer_columns_than_labels_are_widened_and_told(work: Workplace) -> None:
    small(work, "4 2\n0:1\n1:1\n\n0:1\n")
    assert "fewer columns than there are labels" in work.run().changes[0]
    assert work.corpus().splits["train"].relevance.shape == (4, 3)


def test_blank_texts_are_left_out_and_row_numbers_stay(work: Workplace) -> None:
    small(work)
    work.write("trn_X.txt", "apple pie\n \t\n\nmochi\n")
    report = work.run()
    assert list(work.pairs()) == ["0", "3"]
    assert "records with neither text nor fields, left out: 2, the first at" in report.changes[0]


def test_blank_lines_at_the_end_and_other_line_ends(work: Workplace) -> None:
    small(work, TRAIN_PAIRS.replace("\n", "\r\n") + "\r\n\r\n")
    work.write("trn_X.txt", TRAIN.replace("\n", "\r\n") + "\n\n")
    work.run()
    assert [record.text for record in work.records()] == TRAIN.splitlines()


def test_line_separators_of_unicode_end_no_line(work: Workplace) -> None:
    small(work)
    work.write("trn_X.txt", "a\u2028b\nc\x0cd\ne\x85f\ng\rh\n")
    work.run()
    assert [record.text for record in work.records()] == ["a\u2028b", "c\x0cd", "e\x85f", "g\rh"]


@pytest.mark.parametrize("header", ["4 3\n", ""])
def test_without_label_texts_the_columns_are_the_labels(work: Workplace, header: str) -> None:
    work.write("trn_X.txt", TRAIN)
    work.write("trn_X_Y.txt", header + TRAIN_PAIRS.partition("\n")[2])
    report = work.run()
    assert work.labels() == [Label("0", ""), Label("1", ""), Label("2", "")]
    assert (report.labels_without_text, len(report.notes)) == (3, 1)


def test_names_after_an_arrow(work: Workplace) -> None:
    work.write("trn_X.txt", TRAIN)
    work.write("trn_X_Y.txt", TRAIN_PAIRS)
    work.write("Yf.txt", "Q1->Apple pie\nplain\nQ1->a->b\n")
    report = work.run()
    assert work.labels() == [Label("Q1", "Apple pie"), Label("1", "plain"), Label("Q1#2", "a->b")]
    assert "made unique by their row number: 1" in report.changes[0]


def test_an_arrow_elsewhere_is_text(work: Workplace) -> None:
    small(work)
    work.write("Y.txt", "a->b\nc\nd\n")
    work.run()
    assert work.labels()[0] == Label("0", "a->b")


def test_latin_1_is_read_and_told_and_can_be_refused(work: Workplace) -> None:
    work.write("trn.raw.txt", "fine\nKäse\n".encode("latin-1"))
    work.write("lbl.raw.txt", "a\nb\n")
    work.write("trn_X_Y.txt", "0:1\n1:1\n")
    assert "trn.raw.txt:2: is not valid utf-8 (byte 2)" in work.fails(encoding="utf-8")
    report = work.run()
    assert [record.text for record in work.records()] == ["fine", "Käse"]
    assert [file.encoding for file in report.files] == ["latin-1", "utf-8", "utf-8"]
    note = (work.out / "README.md").read_text(encoding="utf-8")
    assert "trn.raw.txt: read as latin-1, line 2 is not UTF-8" in note


def test_an_encoding_that_is_given_is_used(work: Workplace) -> None:
    small(work)
    work.write("trn_X.txt", "1 €\n2\n3\n4\n".encode("cp1252"))
    work.write("Y.txt", "Ä\nb\nc\n".encode("cp1252"))
    work.run(encoding="cp1252")
    assert (work.records()[0].text, work.labels()[0].text) == ("1 €", "Ä")


@pytest.mark.parametrize("encoding", ["no-such", "utf-16", "base64", ""])
def test_an_encoding_that_cannot_be_used_is_refused(work: Workplace, encoding: str) -> None:
    small(work)
    assert "--encoding" in work.fails(encoding=encoding)


def test_utf_16_is_named_and_a_byte_order_mark_left_out(work: Workplace) -> None:
    small(work)
    work.write("trn_X.txt", TRAIN.encode("utf-16"))
    assert "trn_X.txt: is UTF-16; write it as UTF-8" in work.fails()
    work.write("trn_X.txt", TRAIN.encode("utf-8-sig"))
    work.write("trn_X_Y.txt", TRAIN_PAIRS.encode("utf-8-sig"))
    work.run()
    assert work.records()[0].text == "apple pie"


def test_a_text_of_ten_megabytes(work: Workplace) -> None:
    text = "größe " * (10 * 2**20 // 8)
    small(work)
    work.write("trn_X.txt", f"{text}\nb\nc\nd\n")
    work.run()
    assert work.records()[0].text == text


FAULTS = {
    "4 3\n0:1\n3:1\n\n\n": "trn_X_Y.txt:3: label 3 is out of range; there are 3 labels, from 0",
    "4 3\n0:1\n-1:1\n\n\n": "trn_X_Y.txt:3: '-1' is not a whole number from 0 on",
    "4 3\n0:1\nx:1\n\n\n": "trn_X_Y.txt:3: 'x' is not a whole number",
    "4 3\n0:1\n１:1\n\n\n": "trn_X_Y.txt:3: '１' is not a whole number",
    "4 3\n0:1\n1_0:1\n\n\n": "trn_X_Y.txt:3: '1_0' is not a whole number",
    "4 3\n0:1\n" + "9" * 5000 + ":1\n\n\n": "trn_X_Y.txt:3: '9999",
    "4 3\n0:1\n1\n\n\n": "trn_X_Y.txt:3: '1' is not an index and a value",
    "4 3\n0:1\n1:one\n\n\n": "trn_X_Y.txt:3: '1:one' is not an index and a value",
    "4 3\n0:1\n1:nan\n\n\n": "trn_X_Y.txt:3: '1:nan' is not an index and a value",
    "4 3\n0:1\n1:-1\n\n\n": "trn_X_Y.txt:3: -1.0 is no relevance",
    "4 4\n0:1\n1:1\n\n\n": "trn_X_Y.txt: has 4 columns, but the label list has 3 labels",
    "5 3\n0:1\n1:1\n\n\n": "trn_X_Y.txt: has 4 rows, its line 1 says 5",
    "3 3\n0:1\n1:1\n\n2:1\n": "trn_X_Y.txt:5: is beyond the 3 rows that line 1 says",
    "0:1\n1:1\n\n": "trn_X.txt: has 4 lines, trn_X_Y.txt has 3 rows",
    "0:1\n1:1\n\n0:1\n0:1\n1:1\n": "trn_X.txt: has 4 lines, trn_X_Y.txt has 6 rows",
}


@pytest.mark.parametrize(("pairs", "message"), FAULTS.items(), ids=[message[:45] for message in FAULTS.values()])
def test_a_faulty_matrix_is_named_by_file_and_line(work: Workplace, pairs: str, message: str) -> None:
    small(work, pairs)
    assert message in work.fails().replace(f"{work.source}/", "")


def broken_npz(**changed: Any) -> bytes:
    matrix = csr_matrix(np.eye(4, 3))
    arrays: dict[str, Any] = {name: getattr(matrix, name) for name in ("data", "indices", "indptr", "shape")}
    file = io.BytesIO()
    np.savez(file, **{**arrays, "format": b"csr", **changed})
    return file.getvalue()


NPZ_FAULTS = {
    "text": b"0:1\n",
    "empty": b"",
    "cut": npz(csr_matrix(np.eye(4, 3)))[:200],
    "beyond": broken_npz(indices=np.array([0, 1, 7], dtype=np.int32)),
    "csc beyond": broken_npz(format=b"csc", indptr=np.array([0, 1, 2, 3]), indices=np.array([0, 1, 9])),
    "negative": broken_npz(indices=np.array([0, -1, 2], dtype=np.int32)),
    "pointers": broken_npz(indptr=np.array([0, 9, 2, 3, 3], dtype=np.int32)),
    "shape": broken_npz(shape=(4,)),
    "format": broken_npz(format=b"dia", offsets=np.array([0])),
    "unknown format": broken_npz(format=b"os.system"),
    "objects": broken_npz(data=np.array([print, 1, 1], dtype=object)),
}


@pytest.mark.parametrize("data", NPZ_FAULTS.values(), ids=NPZ_FAULTS)
def test_a_damaged_npz_is_refused(work: Workplace, data: bytes) -> None:
    small(work, data, "Y.trn.npz")
    assert "Y.trn.npz: is no matrix that scipy.sparse.save_npz has written (" in work.fails()


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_a_value_that_is_no_relevance_is_named_by_row(work: Workplace, value: float) -> None:
    dense = np.eye(4, 3)
    dense[1, 2] = value
    small(work, npz(csr_matrix(dense)), "Y.trn.npz")
    assert "Y.trn.npz: row 1: " in work.fails()


def test_more_npz_rows_than_texts(work: Workplace) -> None:
    small(work, npz(csr_matrix(np.eye(6, 3))), "Y.trn.npz")
    assert "has 4 lines" in (message := work.fails())
    assert "has 6 rows" in message


def test_a_damaged_gzip_file_is_named(work: Workplace) -> None:
    small(work)
    (work.source / "trn_X.txt").unlink()
    whole = gzip.compress(TRAIN.encode() * 100)
    for damaged in (whole[:-3], b"no gzip", whole[:5]):
        (work.source / "trn_X.txt.gz").write_bytes(damaged)
        assert "trn_X.txt.gz: is damaged or no gzip file" in work.fails()


def test_what_is_missing_beside_a_matrix_is_said(work: Workplace) -> None:
    small(work)
    (work.source / "trn_X.txt").unlink()
    assert "has trn_X_Y.txt but not its raw text; looked for trn_X.txt, train_X.txt, trn.raw.txt" in work.fails()
    small(work)
    work.write("tst_X.txt", "a\n")
    assert "has tst_X.txt but not its labels; looked for tst_X_Y.txt" in work.fails()
    assert "has no matrix" in Workplace.fails(empty(work), format="xc")


def empty(work: Workplace) -> Workplace:
    for path in work.source.iterdir():
        path.unlink()
    return work


def test_nothing_but_blank_texts_or_no_labels_is_refused(work: Workplace) -> None:
    small(work)
    work.write("trn_X.txt", "\n\n\n\n")
    assert "for train; records with neither text nor fields, left out: 4" in work.fails()
    small(work)
    work.write("Y.txt", "")
    assert "Y.txt: has no labels" in work.fails()
    work.write("Y.txt", "one\n")
    work.write("trn_X_Y.txt", "0:1\n0:1\n\n\n")
    assert "has fewer than 2 labels (1)" in work.fails()
    (work.source / "Y.txt").unlink()
    work.write("trn_X_Y.txt", f"4 {10**17}\n\n\n\n\n")
    assert "is it damaged?" in work.fails()


@pytest.mark.parametrize("name", ["filter_labels_train.txt", "trn_filter_labels.txt", "trn_filter_labels.txt.gz"])
def test_filter_pairs_are_excluded_and_no_labels(work: Workplace, name: str) -> None:
    small(work)
    work.write(name, "0 1\n3 1\n\n0 1\n0 2\n")
    report = work.run()
    assert work.records() == [
        Record("0", "apple pie", ("0",), None, ("1", "2")),
        Record("1", "Baiser  Torte", ("1",)),
        Record("2", "nothing", ()),
        Record("3", "和菓子", ("2", "0"), None, ("1",)),
    ]
    assert (report.splits[0].excluded, report.splits[0].pairs) == (3, 4)
    assert "taken out of their record's labels: 1" in report.changes[0]
    split = work.corpus().splits["train"]
    assert split.excluded.toarray().tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_an_empty_filter_file_excludes_nothing(work: Workplace) -> None:
    small(work)
    work.write("filter_labels_train.txt", "")
    assert work.run().splits[0].excluded == 0


FILTER_FAULTS = {
    "0 1\n1\n": "filter_labels_train.txt:2: is not a row and a label",
    "0 1\n1 -1\n": "filter_labels_train.txt:2: is not a row and a label",
    "0 1\n1 0 1\n": "filter_labels_train.txt:2: is not a row and a label",
    "0 1\n1 3\n": "filter_labels_train.txt:2: label 3 is out of range; there are 3 labels",
    "4 1\n0 1\n": "filter_labels_train.txt:1: row 4 is out of range; there are 4 rows",
}


@pytest.mark.parametrize(("pairs", "message"), FILTER_FAULTS.items())
def test_a_faulty_filter_file_is_named_by_file_and_line(work: Workplace, pairs: str, message: str) -> None:
    small(work)
    work.write("filter_labels_train.txt", pairs)
    assert message in work.fails()
