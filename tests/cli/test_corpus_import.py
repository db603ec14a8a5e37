"""`labelspace corpus import` as a user calls it: output, options, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from index.field_spec import FieldSpec
from training.corpus import load_corpus

COMMAND = Path(sys.executable).with_name("labelspace")


def labelspace(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    source = tmp_path / "toys"
    source.mkdir()
    files = {
        "trn_X.txt": "apple pie\n\nbread\n",
        "trn_X_Y.txt": "3 2\n0:1 0:1\n1:1\n\n",
        "tst_X.txt": "apple pie\n",
        "tst_X_Y.txt": "1 2\n0:1 1:1\n",
        "filter_labels_test.txt": "0 1\n",
        "Y.txt": "Cake\nBrot\n",
    }
    for name, text in files.items():
        (source / name).write_text(text, encoding="utf-8")
    return source


def test_a_repository_folder_is_imported_and_checked(repository: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    done = labelspace("corpus", "import", repository, out, "--json", figures)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{out}: from {repository} (xc)",
        "train: 2 records, 1 without labels, 1 labels given",
        "test: 1 records, 0 without labels, 1 labels given, 1 excluded, 1 with the text of a training record",
        "labels: 2, 0 without text",
        f"records with neither text nor fields, left out: 1, the first at {repository}/trn_X.txt:2",
        f"labels given twice to one record, kept once: 1, the first at {repository}/trn_X.txt:1",
        "labels that a filter file excludes, taken out of their record's labels: 1, "
        f"the first at {repository}/tst_X.txt:1",
    ]
    assert json.loads(figures.read_text())["splits"][1]["excluded"] == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "labels.jsonl.gz",
        "test.jsonl.gz",
        "train.jsonl.gz",
    ]
    assert load_corpus(out, ["test"]).splits["test"].excluded.toarray().tolist() == [[0, 1]]
    assert labelspace("corpus", "check", out).returncode == 0


def test_a_table_is_imported_with_all_its_options(tmp_path: Path) -> None:
    table, listed, out = tmp_path / "t.tsv", tmp_path / "words.csv", tmp_path / "out"
    table.write_bytes('no\ta\tb\tt\n7\t"x"\tKäse\tone|two\n8\ty\t\t\n'.encode("latin-1"))
    listed.write_text("id,label_de,label_en\ntwo,zwei,2\none,eins,1\n", encoding="utf-8")
    options = ["--text-column", "a", "--text-column", "b", "--labels-column", "t", "--labels-separator", "|"]
    more = [
        "--id-column",
        "no",
        "--language",
        "de",
        "--labels-file",
        str(listed),
        "--no-quotes",
        "--encoding",
        "latin-1",
    ]
    done = labelspace("corpus", "import", table, out, "--format", "table", *options, *more)
    assert done.returncode == 0, done.stderr
    corpus = load_corpus(out, ["train"])
    train = corpus.splits["train"]
    assert (corpus.label_ids, corpus.label_texts) == (["two", "one"], ["zwei", "eins"])
    assert (train.ids, train.texts) == (["7", "8"], ['"x" Käse', "y"])
    assert train.relevance.toarray().tolist() == [[1, 1], [0, 0]]


def test_a_table_of_fields_and_a_log_are_imported_and_checked(tmp_path: Path) -> None:
    source, rows, next_item = tmp_path / "source", tmp_path / "rows", tmp_path / "next"
    source.mkdir()
    (source / "train.csv").write_text("age,tags,y\n39,a|b,yes\n?,c,no\n", encoding="utf-8")
    (source / "test.csv").write_text("age,tags,y\n1,,no\n", encoding="utf-8")
    options = ["--labels-column", "y", "--field-column", "age=years", "--list-column", "tags", "|", "--missing", "?"]
    done = labelspace("corpus", "import", source, rows, *options)
    assert (done.returncode, done.stderr) == (0, "")
    train = load_corpus(rows, ["train"], (FieldSpec("tags"), FieldSpec("years"))).splits["train"]
    assert train.fields == [{"years": "39", "tags": ["a", "b"]}, {"tags": ["c"]}]
    log, films = tmp_path / "log.csv", tmp_path / "films.csv"
    log.write_text("who,film,at,stars\n" + "".join(f"u,f{n},{n},{n}\n" for n in range(6)), encoding="utf-8")
    films.write_text("film,head,kind\nf2,Two,x\n", encoding="utf-8")
    columns = ["--user-column", "who", "--item-column", "film", "--time-column", "at", "--rating-column", "stars"]
    texts = ["--items", str(films), "--label-text-column", "head", "--field-column", "kind"]
    limits = ["--min-rating", "1", "--history", "2", "--per-user", "1"]
    done = labelspace("corpus", "import", log, next_item, "--format", "interactions", *columns, *texts, *limits)
    assert (done.returncode, done.stderr) == (0, "")
    corpus = load_corpus(next_item, ["train", "dev", "test"], (FieldSpec("history"), FieldSpec("kind")))
    assert [corpus.splits[name].fields for name in ("train", "dev", "test")] == [
        [{"history": ["f1", "f2"]}],
        [{"history": ["f2", "f3"]}],
        [{"history": ["f3", "f4"]}],
    ]
    assert (corpus.label_ids[:2], corpus.label_texts[:2]) == (["f2", "f1"], ["Two", "f1"])
    assert corpus.label_fields is not None
    assert corpus.label_fields[:2] == [{"kind": "x"}, None]
    assert labelspace("corpus", "check", next_item).returncode == 0


def test_what_is_wrong_is_one_line_and_exit_code_2(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (repository / "trn_X_Y.txt").write_text("3 2\n0:1\n2:1\n\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for source, message in (
        (repository, "trn_X_Y.txt:3: label 2 is out of range; there are 2 labels, from 0"),
        (tmp_path / "none", "is not there"),
        (tmp_path / "empty", "is in no known format. Looked for"),
    ):
        done = labelspace("corpus", "import", source, out)
        assert done.returncode == 2
        assert done.stderr.startswith("labelspace: ")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "toys"]


def test_an_existing_folder_is_kept(repository: Path, tmp_path: Path) -> None:
    done = labelspace("corpus", "import", repository, tmp_path)
    assert (done.returncode, "is there already" in done.stderr) == (1, True)


def test_importing_needs_no_torch() -> None:
    code = "import sys, training.importing.writing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
