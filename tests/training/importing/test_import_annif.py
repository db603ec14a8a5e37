"""training.importing: Annif's corpora and vocabularies, by value and by fault."""

from __future__ import annotations

import pytest

from importing_support import Workplace
from index.labels import Label
from training.corpus import Record

VOCABULARY = "<http://ex.org/1>\tnetworking\n<http://ex.org/2>\tマグロ\tN2\n<http://ex.org/3>\n"
TSV = (
    "A paper, on networks\t<http://ex.org/1> <http://ex.org/2>\n"
    'Ein "Text"\t"networking" <http://ex.org/1>\n'
    "no subjects\t\n"
    "bare\thttp://ex.org/3\n"
)
NETWORKING, TUNA, THIRD = "http://ex.org/1", "http://ex.org/2", "http://ex.org/3"


def test_tsv_with_a_vocabulary_by_value(work: Workplace) -> None:
    work.write("yso-train.tsv", TSV)
    work.write("yso-test.tsv.gz", "bare\t<http://ex.org/2>\n")
    work.write("yso-validate.tsv", "other\t<http://ex.org/2>\n")
    work.write("yso-vocab.tsv", VOCABULARY)
    report = work.run()
    assert report.format == "annif-tsv"
    assert work.labels() == [Label(NETWORKING, "networking"), Label(TUNA, "マグロ"), Label(THIRD, "")]
    assert work.records() == [
        Record("0", "A paper, on networks", (NETWORKING, TUNA)),
        Record("1", 'Ein "Text"', (NETWORKING,)),
        Record("2", "no subjects", ()),
        Record("3", "bare", (THIRD,)),
    ]
    assert work.pairs("test") == {"0": (TUNA,)}
    assert work.pairs("dev") == {"0": (TUNA,)}
    assert [split.name for split in report.splits] == ["train", "dev", "test"]
    assert [split.in_train for split in report.splits] == [0, 0, 1]
    assert "kept once: 1" in report.changes[0]


def test_unknown_subjects_and_lines_without_a_tab_are_left_out_and_counted(work: Workplace) -> None:
    work.write("train.tsv", 'a\t<http://ex.org/9> <http://ex.org/1>\nno tab\n\nb\t"nothing known" "マグロ"\n')
    work.write("vocab.tsv", VOCABULARY)
    report = work.run()
    assert work.records() == [Record("0", "a", (NETWORKING,)), Record("3", "b", (TUNA,))]
    assert [change.replace(f"{work.source}/", "") for change in report.changes] == [
        "labels that the vocabulary does not have, left out: 2, the first at train.tsv:1",
        "lines without a tab, left out: 1, the first at train.tsv:2",
    ]


def test_without_a_vocabulary_the_records_name_the_labels(work: Workplace) -> None:
    work.write("corpus.tsv", 'a\t<http://ex.org/2> "say ""hi"" now"\nb\t<http://ex.org/1>\n')
    report = work.run("corpus.tsv")
    assert work.labels() == [Label(TUNA, ""), Label('say "hi" now', 'say "hi" now'), Label(NETWORKING, "")]
    assert report.notes == ("there is no vocabulary: the labels are those that the records name",)
    assert report.labels_without_text == 2


def test_a_vocabulary_elsewhere_and_a_subject_listed_twice(work: Workplace) -> None:
    work.write("train.tsv", TSV)
    other = work.write("elsewhere/words.tsv", VOCABULARY + "<http://ex.org/1>\tagain\n")
    report = work.run("train.tsv", labels_file=other)
    assert [label.text for label in work.labels()] == ["networking", "マグロ", ""]
    assert any("labels listed twice, the first kept: 1" in change for change in report.changes)


def test_two_vocabularies_or_two_training_files_are_refused(work: Workplace) -> None:
    work.write("train.tsv", TSV)
    work.write("a.tsv", VOCABULARY)
    work.write("b.tsv", VOCABULARY)
    assert "more than one vocabulary (a.tsv, b.tsv); choose with --labels-file" in work.fails()
    work.write("trn.tsv", TSV)
    assert "train.tsv and trn.tsv are both train; keep one of them" in work.fails()


@pytest.mark.parametrize(("language", "texts"), [("en", ["tuna", ""]), ("fi", ["tonnikala", "verkko"])])
def test_csv_with_a_vocabulary_of_several_languages(work: Workplace, language: str, texts: list[str]) -> None:
    rows = 'document_id,text,subject_uris\nd1,"a, ""b""\nc",<http://ex.org/2> http://ex.org/1\n ,x,\n'
    work.write("train.csv", rows)
    work.write(
        "vocab.csv", "uri,label_fi,label_en,notation\nhttp://ex.org/2,tonnikala,tuna,2\n<http://ex.org/1>,verkko,,\n"
    )
    report = work.run(language=language)
    assert report.format == "annif-csv"
    assert work.labels() == [Label(TUNA, texts[0]), Label(NETWORKING, texts[1])]
    assert work.records() == [Record("d1", 'a, "b"\nc', (TUNA, NETWORKING)), Record("1", "x", ())]


def test_csv_in_a_language_that_the_vocabulary_lacks_takes_its_first(work: Workplace) -> None:
    work.write("train.csv", "text,subject_uris\na,http://ex.org/2 http://ex.org/1\n")
    work.write(
        "vocab.csv",
        "uri,notation,label_fi,label_sv\nhttp://ex.org/2,1,tonnikala,tonfisk\nhttp://ex.org/1,,verkko,nät\n",
    )
    work.run()
    assert [label.text for label in work.labels()] == ["tonnikala", "verkko"]


def test_folders_of_documents_by_value(work: Workplace) -> None:
    work.write("train/b.txt", "Second\ndocument ü\n")
    work.write("train/b.key", "networking\n\nマグロ\nunknown\n")
    work.write("train/a.txt", "First")
    work.write("train/a.tsv", "<http://ex.org/2>\told name\t0.5\n<http://ex.org/3>\n")
    work.write("train/c.txt", "latin Käse".encode("latin-1"))
    work.write("test/x.txt", "Test")
    work.write("test/x.key", "networking\n")
    work.write("vocab.tsv", VOCABULARY)
    report = work.run()
    assert report.format == "annif-folder"
    assert work.records() == [
        Record("a", "First", (TUNA, THIRD)),
        Record("b", "Second\ndocument ü", (NETWORKING, TUNA)),
        Record("c", "latin Käse", ()),
    ]
    assert work.pairs("test") == {"x": (NETWORKING,)}
    says = "\n".join(report.changes)
    assert "vocabulary does not have, left out: 1" in says
    assert "documents without a subject file, kept without labels: 1" in says
    assert "c.txt: read as latin-1" in (work.out / "README.md").read_text(encoding="utf-8")


def test_a_folder_of_documents_alone_is_the_training_split(work: Workplace) -> None:
    work.write("a.txt", "First")
    work.write("a.tsv", "<http://ex.org/2>\ttuna\n<http://ex.org/1>\n")
    work.run()
    assert work.labels() == [Label(TUNA, "tuna"), Label(NETWORKING, "")]


def test_a_large_folder_is_one_line_in_the_note(work: Workplace) -> None:
    for number in range(30):
        work.write(f"{number}.txt", f"text {number}")
        work.write(f"{number}.key", f"label {number % 3}\n")
    assert len(work.run().files) == 60
    note = (work.out / "README.md").read_text(encoding="utf-8")
    assert note.count(str(work.source)) == 2
    assert "(60 files)" in note


FAULTS = {
    "vocab.tsv": ("\tlabel\n", "vocab.tsv:1: has no id before the tab"),
    "vocab.csv": ("uri,label_en\n,a\n", "vocab.csv:2: has no id in column 'uri'"),
    "subjects.tsv": ("", "subjects.tsv: has no labels"),
}


@pytest.mark.parametrize(("name", "content"), FAULTS.items())
def test_a_faulty_vocabulary_is_named(work: Workplace, name: str, content: tuple[str, str]) -> None:
    work.write("train.tsv", TSV)
    work.write(name, content[0])
    assert content[1] in work.fails()


def test_a_list_of_no_known_kind_is_refused(work: Workplace) -> None:
    work.write("train.tsv", TSV)
    other = work.write("words.txt", "a\n")
    assert "words.txt: is no list of labels by id; give a .tsv, .csv, .jsonl file" in work.fails(labels_file=other)


@pytest.mark.parametrize("name", ["annif-tsv", "annif-csv", "annif-folder", "xc-combined"])
def test_what_was_looked_for_is_said(work: Workplace, name: str) -> None:
    work.write("notes.md", "nothing")
    assert "has nothing in this format; looked for " in work.fails(format=name)
