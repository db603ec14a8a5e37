"""training.debian on a small hand-made archive: with apt played by the test and with the real one."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index.errors import InputError, LabelspaceError
from training import debian
from training.corpus import load_corpus
from training.debian import LISTS, DebianCounts, build_debian_corpus, read_packages

MAIN = """\
Package: alpha
Source: alpha (1.2)
Depends: libc6 (>= 2.3), beta:any | gamma, alpha, nosuch,
 wrapped
Recommends: gamma, libc6
Description: first   letter
Description-md5: 0123456789abcdef0123456789abcdef

Package: libc6
Source: glibc
Description: C library
 Long text in
 the list itself.
Unknown: field
 with: continuation

Package: beta
Source: blue
Pre-Depends: libc6
Depends: gamma
Description: second letter
Description-md5: fedcba9876543210fedcba9876543210

Package: gamma
Depends: nosuch
Description: größte Ziffer 三

Package: wrapped
Description: on a line of its own

Package: alpha-dbgsym
Source: alpha
Depends: alpha
Description: debug symbols

Package: undescribed
Depends: libc6
"""
EXTRA = """\
Package: alpha
Depends: libc6
Description: an older alpha

Package: extra
Source: blue
Depends: alpha-dbgsym
Description: one more
"""
TRANSLATION = """\
Package: alpha
Description-md5: 0123456789abcdef0123456789abcdef
Description-en: first letter
 A long text
 .
 of two  parts.

Package: beta
Description-md5: fedcba9876543210fedcba9876543210
Description-en: second letter
 one two three four
"""
# By the hash of their names, alpha (0.558) falls to train and blue (0.087) to test.
TRAIN = [
    {
        "id": "alpha",
        "text": "alpha: first letter. A long text of two parts.",
        "labels": ["beta", "gamma", "libc6", "wrapped"],
        "group": "alpha",
    }
]
TEST = [
    {"id": "beta", "text": "beta: second letter. one two three four", "labels": ["gamma", "libc6"], "group": "blue"},
    {"id": "extra", "text": "extra: one more.", "labels": ["alpha-dbgsym"], "group": "blue"},
]
LABELS = [
    {"id": "alpha-dbgsym", "text": "alpha-dbgsym: debug symbols"},
    {"id": "beta", "text": "beta: second letter"},
    {"id": "gamma", "text": "gamma: größte Ziffer 三"},
    {"id": "libc6", "text": "libc6: C library"},
    {"id": "wrapped", "text": "wrapped: on a line of its own"},
]
COUNTS = DebianCounts(packages=7, train=1, test=2, labels=5)
RELEASE = "Origin: Tests\nLabel: Tests\nCodename: stable\nVersion: 1\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n"
FILES = {"main_Packages": MAIN, "extra_Packages": EXTRA, "main_Translation-en": TRANSLATION, "x_Release": RELEASE}

Completed = subprocess.CompletedProcess[bytes]


def quiet(line: str) -> None:
    pass


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def play_apt(files: dict[str, str], errors: str = "") -> Callable[..., Completed]:
    """What _run_apt does, for an archive of these files."""

    def run(lists: Path, program: str, *arguments: str) -> Completed:
        output = b""
        if "update" in arguments:
            for name, text in files.items():
                (lists / name).write_text(text, encoding="utf-8")
        elif "indextargets" in arguments:
            kind = arguments[-1].removeprefix("Created-By: ").removesuffix("s")
            output = "".join(f"{lists / name}\n" for name in files if kind in name).encode()
        else:
            output = Path(arguments[-1]).read_bytes()
        return subprocess.CompletedProcess(program, 0, output, errors.encode())

    return run


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(debian, "_run_apt", play_apt(FILES))


@pytest.mark.usefixtures("apt")
def test_records_labels_and_split_by_value(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "corpus"
    said: list[str] = []
    assert build_debian_corpus(out, report=said.append) == COUNTS
    assert rows(out / "train.jsonl.gz") == TRAIN
    assert rows(out / "test.jsonl.gz") == TEST
    assert rows(out / "labels.jsonl.gz") == LABELS
    assert {item.name for item in out.iterdir()} == {
        "train.jsonl.gz",
        "test.jsonl.gz",
        "labels.jsonl.gz",
        "README.md",
        LISTS,
    }
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert "* Tests stable 1, Sat, 11 Jul 2026 10:16:37 UTC" in readme
    assert "7 packages gave 1 training and 2 test records with 5 labels" in readme
    assert len(said) == 3


@pytest.mark.usefixtures("apt")
def test_the_corpus_can_be_loaded_and_its_bytes_repeat(tmp_path: Path) -> None:
    build_debian_corpus(tmp_path / "one", report=quiet)
    build_debian_corpus(tmp_path / "two", report=quiet)
    corpus = load_corpus(tmp_path / "one", ["train", "test"])
    assert corpus.splits["test"].groups == ["blue", "blue"]
    for name in ("train.jsonl.gz", "test.jsonl.gz", "labels.jsonl.gz", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.usefixtures("apt")
def test_long_descriptions_are_cut_at_a_word(tmp_path: Path) -> None:
    build_debian_corpus(tmp_path / "corpus", characters=9, report=quiet)
    assert rows(tmp_path / "corpus" / "test.jsonl.gz")[0]["text"] == "beta: second letter. one two"


@pytest.mark.usefixtures("apt")
def test_packages_by_value(tmp_path: Path) -> None:
    debian._run_apt(tmp_path, "apt-get", "update")
    packages = read_packages(tmp_path, 600)
    assert list(packages) == ["alpha", "libc6", "beta", "gamma", "wrapped", "alpha-dbgsym", "extra"]
    assert packages["alpha"].needs == ("libc6", "beta", "alpha", "nosuch", "wrapped", "gamma")
    assert packages["libc6"].long == "Long text in the list itself."
    assert packages["gamma"].source == "gamma"


@pytest.mark.usefixtures("apt")
def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    build_debian_corpus(out, report=quiet)
    before = (out / "train.jsonl.gz").stat()
    with pytest.raises(InputError, match="exists and is not empty"):
        build_debian_corpus(out, report=quiet)
    assert (out / "train.jsonl.gz").stat() == before
    others = tmp_path / "others"
    others.mkdir()
    for name in (".own.part", ".train.jsonl.gz.x.part", "thesis.txt"):
        (others / name).touch()
    with pytest.raises(InputError, match=r"there is \.own\.part"):
        build_debian_corpus(others, report=quiet)
    assert len(list(others.iterdir())) == 3
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        build_debian_corpus(tmp_path / "file", report=quiet)


@pytest.mark.usefixtures("apt")
def test_a_stopped_build_leaves_no_corpus_and_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "corpus"
    write = debian._write

    def stop(path: Path, rows: Any) -> None:
        if "labels" in path.name:
            raise KeyboardInterrupt
        write(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr(debian, "_write", stop)
        with pytest.raises(KeyboardInterrupt):
            build_debian_corpus(out, report=quiet)
    assert [item.name for item in out.iterdir()] == [LISTS]
    (out / ".train.jsonl.gz.killed.part").touch()
    assert build_debian_corpus(out, report=quiet) == COUNTS
    assert not list(out.glob(".*.part"))


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match="test share"):
        build_debian_corpus(tmp_path / "corpus", test_share=share, report=quiet)


def test_a_negative_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="characters"):
        build_debian_corpus(tmp_path / "corpus", characters=-1, report=quiet)


@pytest.mark.usefixtures("apt")
def test_too_few_packages_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabelspaceError, match=r"too few packages for a corpus \(7\)"):
        build_debian_corpus(tmp_path / "corpus", test_share=0.01, report=quiet)


def test_without_apt_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(InputError, match=r"needs Debian or Ubuntu.*`labelspace train FOLDER`.*docs/corpus\.md"):
        build_debian_corpus(tmp_path / "corpus", report=quiet)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.usefixtures("apt")
def test_when_nothing_could_be_downloaded_the_cause_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = "W: Failed to fetch http://x/InRelease  Unable to connect:\nW: Some index files failed to download.\n"
    monkeypatch.setattr(debian, "_run_apt", play_apt({}, errors))
    with pytest.raises(LabelspaceError, match="apt-get update: Failed to fetch http://x/InRelease Unable to connect;"):
        build_debian_corpus(tmp_path / "corpus", report=quiet)
    monkeypatch.setattr(debian, "_run_apt", play_apt({}))
    with pytest.raises(LabelspaceError, match="no package source is set up"):
        build_debian_corpus(tmp_path / "corpus", report=quiet)


@pytest.mark.usefixtures("apt")
def test_a_source_out_of_reach_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(debian, "_run_apt", play_apt(FILES, "W: Failed to fetch http://x\n"))
    build_debian_corpus(tmp_path / "corpus", report=said.append)
    assert "apt-get update: W: Failed to fetch http://x" in said


def use_archive(folder: Path, monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    """Have the real apt see this archive as its only source."""
    (folder / "sources.list").write_text(f"deb [arch=amd64 trusted=yes] file:{archive} stable main extra\n")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n'
        'APT::Sandbox::User "root";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))


def make_archive(archive: Path) -> None:
    dist = archive / "dists" / "stable"
    # The real apt takes no package without these.
    main, extra = (re.sub("(?m)^(Package: .*)$", r"\1\nVersion: 1\nArchitecture: all", text) for text in (MAIN, EXTRA))
    files = {
        "main/binary-amd64/Packages": main,
        "extra/binary-amd64/Packages": extra,
        "main/i18n/Translation-en": TRANSLATION,
    }
    sums = []
    for name, text in files.items():
        data = text.encode()
        (dist / name).parent.mkdir(parents=True, exist_ok=True)
        (dist / name).write_bytes(data)
        sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n")
    head = RELEASE + "Architectures: amd64\nComponents: main extra\nSHA256:\n"
    (dist / "Release").write_text(head + "".join(sums))


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get on this system")


@needs_apt
def test_the_real_apt_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_archive(tmp_path / "archive")
    use_archive(tmp_path, monkeypatch, tmp_path / "archive")
    out = tmp_path / "a corpus"
    assert build_debian_corpus(out, report=quiet) == COUNTS
    assert rows(out / "train.jsonl.gz") == TRAIN
    assert rows(out / "test.jsonl.gz") == TEST
    assert rows(out / "labels.jsonl.gz") == LABELS
    assert "* Tests stable 1, Sat, 11 Jul 2026 10:16:37 UTC" in (out / "README.md").read_text(encoding="utf-8")


@needs_apt
def test_the_real_apt_says_in_one_line_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_archive(tmp_path, monkeypatch, tmp_path / "none")
    with pytest.raises(LabelspaceError) as caught:
        build_debian_corpus(tmp_path / "corpus", report=quiet)
    assert "apt-get" in str(caught.value)
    assert str(tmp_path / "none") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [item.name for item in (tmp_path / "corpus").iterdir()] == [LISTS]
