"""A real corpus on any Debian or Ubuntu: package descriptions are the queries, the packages they need the labels."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from index.errors import InputError, LabelspaceError
from index.files import replacing
from index.labels import Label
from training.corpus import Record, hash_fraction, json_line

LISTS = "apt-lists"
_FILES = ("train.jsonl.gz", "test.jsonl.gz", "labels.jsonl.gz", "README.md")

# The hooks would refresh the system's own caches, and apt would write its caches of these lists over them.
_SETTINGS = """
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
Acquire::Languages { "en"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
_NEEDS = ("Pre-Depends", "Depends", "Recommends")
_FIELDS = frozenset(("Package", "Source", "Description", "Description-en", "Description-md5", *_NEEDS))

_README = """\
# Debian packages and the packages they need

* query: a package's name, short and long description (the latter up to {characters} characters)
* labels: the packages that it pre-depends on, depends on or recommends (of alternatives, the first)
* label text: that package's name and short description
* split: by a hash of the source package, which is the record's `group`, so that packages built together stay together

Built with `labelspace corpus debian --test-share {test_share} --characters {characters}` from apt's lists of

{releases}

{counts.packages} packages gave {counts.train} training and {counts.test} test records with {counts.labels} labels.

The descriptions are part of the packages and under their licences: see `/usr/share/doc/PACKAGE/copyright` of each.
"""


@dataclass(frozen=True, slots=True)
class DebianCounts:
    """packages: all that apt's lists have; train, test: records; labels: in either."""

    packages: int
    train: int
    test: int
    labels: int


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package; needs: the names it asks for, each once, whether or not there is such a package."""

    name: str
    source: str
    short: str
    long: str
    needs: tuple[str, ...]


def build_debian_corpus(
    out: Path, *, test_share: float = 0.2, characters: int = 600, report: Callable[[str], None]
) -> DebianCounts:
    """Download the package lists of this system's release into OUT/apt-lists and write a corpus beside them.

    No root is needed and the system's own lists stay as they are. The same lists give the same bytes.
    Raises InputError when `out` holds something already or there is no apt-get; LabelspaceError when apt-get fails.
    """
    if not 0 < test_share < 1:
        raise InputError(f"test share: must be between 0 and 1, is {test_share}")
    if characters < 0:
        raise InputError(f"characters: must be at least 0, is {characters}")
    _check_free(out)
    lists = out.absolute() / LISTS
    report(f"{lists}: downloading package lists with apt-get")
    _fetch(lists, report)
    report(f"{lists}: reading package lists")
    packages = read_packages(lists, characters)
    splits = _split(packages, test_share)
    if not all(splits.values()):
        raise LabelspaceError(f"{lists}: has too few packages for a corpus ({len(packages)}); try another release")
    used = sorted({label for records in splits.values() for record in records for label in record.labels})
    labels = [Label(name, f"{name}: {packages[name].short}") for name in used]
    counts = DebianCounts(len(packages), len(splits["train"]), len(splits["test"]), len(labels))
    report(f"{out}: writing the corpus")
    releases = _releases(lists)
    readme = _README.format(counts=counts, test_share=test_share, characters=characters, releases=releases)
    _write_corpus(out, splits, labels, readme)
    return counts


def read_packages(lists: Path, characters: int) -> dict[str, Package]:
    """name -> package, from apt's lists in this folder; of one name the first in the largest list counts.

    Raises LabelspaceError when apt cannot read them.
    """
    long_texts: dict[str, str] = {}
    for stanza in _stanzas(lists, "Translations"):
        rest = stanza.get("Description-en", "").partition("\n")[2]
        # A lone dot is how a description writes an empty line.
        rest = re.sub(r"(?m)^\s*\.\s*$", " ", rest)
        long_texts.setdefault(stanza.get("Description-md5", ""), _cut(_squeeze(rest), characters))
    packages: dict[str, Package] = {}
    for stanza in _stanzas(lists, "Packages"):
        name = stanza["Package"]
        short, _, rest = stanza.get("Description", stanza.get("Description-en", "")).partition("\n")
        if name in packages or not short.strip():
            continue
        long = long_texts.get(stanza.get("Description-md5", "")) or _cut(_squeeze(rest), characters)
        source = stanza.get("Source", name).split(" ")[0]
        packages[name] = Package(name, source, _squeeze(short), long, _needs(stanza))
    return packages


def _split(packages: dict[str, Package], test_share: float) -> dict[str, list[Record]]:
    """Records in order of names; debug symbols would only repeat their package, so they are left out."""
    splits: dict[str, list[Record]] = {"train": [], "test": []}
    for name, package in sorted(packages.items()):
        labels = tuple(sorted(need for need in package.needs if need in packages and need != name))
        if labels and not name.endswith("-dbgsym"):
            side = "test" if hash_fraction(package.source) < test_share else "train"
            text = _squeeze(f"{name}: {package.short}. {package.long}")
            splits[side].append(Record(name, text, labels, package.source))
    return splits


def _needs(stanza: dict[str, str]) -> tuple[str, ...]:
    clauses = [clause for field in _NEEDS for clause in stanza.get(field, "").split(",")]
    # "python3:any (>= 3.9) | python3-minimal" asks for python3.
    words = [re.split(r"[\s(:\[]", clause.partition("|")[0].strip())[0] for clause in clauses]
    return tuple(dict.fromkeys(word for word in words if word))


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters].rsplit(" ", 1)[0]


def _check_free(out: Path) -> None:
    """Raises InputError when there is more in `out` than downloaded lists; takes away what a killed build left."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out}: is a file; name a folder to write the corpus to")
    left = {part for name in _FILES for part in out.glob(f".{name}.*.part")}
    others = sorted(item.name for item in set(out.iterdir()) - left if item.name != LISTS)
    if others:
        raise InputError(f"{out}: exists and is not empty (there is {others[0]}); remove it or name another folder")
    for part in left:
        part.unlink()


def _write_corpus(out: Path, splits: Mapping[str, Sequence[Record]], labels: Sequence[Label], readme: str) -> None:
    with ExitStack() as moves:
        # What is entered first is moved last, and without a train split nobody takes the folder for a corpus.
        train, test, label_file, about = (moves.enter_context(replacing(out / name)) for name in _FILES)
        _write(train, splits["train"])
        _write(test, splits["test"])
        _write(label_file, labels)
        about.write_text(readme, encoding="utf-8")


def _write(path: Path, rows: Sequence[Record] | Sequence[Label]) -> None:
    """Gzipped JSONL whose bytes depend on the rows only: no file name and no time in it."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        for row in rows:
            file.write(json_line(row))


def _fetch(lists: Path, report: Callable[[str], None]) -> None:
    if shutil.which("apt-get") is None:
        raise InputError(
            "apt-get: not found; this command needs Debian or Ubuntu. "
            "A corpus of your own goes with `labelspace train FOLDER` (its format: docs/corpus.md)"
        )
    try:
        (lists / "partial").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabelspaceError(f"{lists}: could not be made ({error.strerror or error})") from error
    errors = _run_apt(lists, "apt-get", "-q", "update").stderr.decode("utf-8", "replace")
    if not _list_files(lists, "Packages"):
        reason = _last_error(errors) if errors.strip() else "no package source is set up in /etc/apt"
        raise LabelspaceError(f"apt-get update: {reason}; no package list was downloaded")
    # apt-get counts a source that it could not reach as a warning, and goes on with what it has.
    for line in errors.splitlines():
        if "Failed to fetch" in line:
            report(f"apt-get update: {_squeeze(line)}")


def _list_files(lists: Path, kind: str) -> list[Path]:
    """The lists of this kind that are there, largest first."""
    found = _run_apt(lists, "apt-get", "indextargets", "--format", "$(FILENAME)", f"Created-By: {kind}").stdout
    paths = {Path(os.fsdecode(line)) for line in found.splitlines() if line}
    return sorted((path for path in paths if path.exists()), key=lambda path: (-path.stat().st_size, str(path)))


def _stanzas(lists: Path, kind: str) -> Iterator[dict[str, str]]:
    """The stanzas of all lists of one kind: field -> value with its continuation lines, for the fields used here."""
    places = (Path("/usr/lib/apt/apt-helper"), Path("/usr/libexec/apt-helper"))
    program = next((str(path) for path in places if path.exists()), "apt-helper")
    for path in _list_files(lists, kind):
        # apt may keep its lists packed, in whatever way the system is set up for; apt-helper knows them all.
        data = _run_apt(lists, program, "cat-file", str(path)).stdout
        fields: dict[str, str] = {}
        last = ""
        for line in io.TextIOWrapper(io.BytesIO(data + b"\n\n"), encoding="utf-8", errors="replace", newline="\n"):
            name, colon, value = line.partition(":")
            if line == "\n":
                if "Package" in fields:
                    yield fields
                fields, last = {}, ""
            elif line[0] in " \t":
                if last:
                    fields[last] += "\n" + line.removesuffix("\n")
            elif colon:
                last = name if name in _FIELDS else ""
                if last:
                    fields[last] = value.strip()


def _run_apt(lists: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of apt's programs on this folder of lists. Raises LabelspaceError with its last error line."""
    with tempfile.NamedTemporaryFile("w", prefix="labelspace-", suffix=".conf", encoding="utf-8") as settings:
        settings.write(_SETTINGS)
        settings.flush()
        command = [program, "-c", settings.name, "-o", f"Dir::State::Lists={lists}", *arguments]
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
        except OSError as error:
            raise LabelspaceError(f"{program}: could not be started ({error.strerror or error})") from error
    if done.returncode:
        line = _last_error(done.stderr.decode("utf-8", "replace"))
        raise LabelspaceError(f"{Path(program).name} {' '.join(arguments)}: {line}")
    return done


def _last_error(errors: str) -> str:
    """The last line that names a cause, without apt's "E: "."""
    lines = [_squeeze(line) for line in errors.splitlines() if line.strip()]
    causes = [
        line for line in lines if not re.match(r"[EWN]: (Some index files failed|The package lists or status)", line)
    ]
    return re.sub(r"^[EWN]: ", "", (causes or lines or ["no reason was given"])[-1]).rstrip(":")


def _releases(lists: Path) -> str:
    """A line for each release in the lists: origin, label, code name, version, date."""
    found = []
    for path in sorted(lists.glob("*Release")):
        head = path.read_text(encoding="utf-8", errors="replace").split("\nMD5Sum:")[0].split("\nSHA256:")[0]
        fields = dict(re.findall(r"(?m)^(\w+): (.+)$", head))
        names = dict.fromkeys(fields[key] for key in ("Origin", "Label", "Codename", "Version") if key in fields)
        found.append(f"* {' '.join(names)}, {fields.get('Date', 'without a date')}")
    return "\n".join(found) or "* an unnamed release"
