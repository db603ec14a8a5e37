"""The place an import was pointed at: a folder with its files by name, or one file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from index.errors import InputError
from training.importing.inputs import check_name
from training.importing.source import PREFIXES

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_WORDS = {
    **{word: split for split, words in PREFIXES.items() for word in words},
    "training": "train",
    "validate": "dev",
    "validation": "dev",
    **dict.fromkeys(("lbl", "label", "labels", "vocab", "vocabulary", "subjects", "thesaurus"), "labels"),
}


class Place:
    """A folder, whose raw/ counts as part of it, or a file; `file` is None for a folder.

    Raises InputError when there is neither, or when it is an archive.
    """

    def __init__(self, path: Path) -> None:
        check_name(path)
        if not path.exists():
            raise InputError(f"{path}: is not there; give the folder or the file to import")
        self.path = path
        self.file = None if path.is_dir() else path
        if self.file is not None and path.name.endswith(_ARCHIVES):
            raise InputError(f"{path}: is an archive; unpack it and give the folder")
        self._names: dict[str, Path] = {}
        for file in self._candidates():
            # Of a file that is there packed and unpacked, the latter is enough; it sorts first.
            self._names.setdefault(file.name.removesuffix(".gz"), file)

    def find(self, names: Iterable[str]) -> Path | None:
        """The first of these files that is there, under its name or packed as name.gz."""
        return next((self._names[name] for name in names if name in self._names), None)

    def ending(self, *suffixes: str) -> list[Path]:
        """The files whose name, without .gz, ends so, in order of their names."""
        return [path for name, path in sorted(self._names.items()) if name.endswith(suffixes)]

    def folders(self) -> list[Path]:
        """The folders in this one, in order of their names."""
        return [] if self.file is not None else sorted(path for path in self.path.iterdir() if path.is_dir())

    def _candidates(self) -> Iterator[Path]:
        if self.file is not None:
            yield self.file
            return
        for folder in (self.path, self.path / "raw"):
            if folder.is_dir():
                yield from sorted(file for file in folder.iterdir() if file.is_file())


def prefixed(split: str, templates: Iterable[str]) -> list[str]:
    """The names that a file of this split may have: each template with each of the split's prefixes in its braces."""
    return [template.format(prefix) for template in templates for prefix in PREFIXES[split]]


def role(path: Path) -> str | None:
    """What a name says it holds, "train", "dev", "test" or "labels"; None when it says nothing."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), None)


def by_role(place: Place, paths: Iterable[Path]) -> dict[str, Path]:
    """What each of these files holds, by their names; one without a name that says so is the training one.

    A place that is a file is always the training one. Raises InputError when two hold the same.
    """
    found: dict[str, Path] = {}
    for path in paths:
        what = "train" if place.file is not None else role(path) or "train"
        if what in found:
            raise InputError(f"{place.path}: {found[what].name} and {path.name} are both {what}; keep one of them")
        found[what] = path
    return found
