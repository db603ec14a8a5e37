"""The folder of a collection: what its header says, and the lock under which header and current bundle change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import FileLock, Timeout

from index.errors import BundleError, LabelspaceError, first_line
from index.files import write_json

# 1: the log is a file in the folder. 2: it may be elsewhere, so that a program that only knows 1 must not open it.
COLLECTION_FORMAT = 2
HEADER = "collection.json"
LOCK = ".lock"
_LOCK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class LogPlace:
    """kind: "sqlite" or "postgresql"; collection: the id (a UUID) under which a database knows this collection."""

    kind: str
    collection: str | None


def create_collection(folder: Path) -> None:
    """Make an empty collection, or accept one that is there. Raises BundleError when something else is."""
    if (folder / HEADER).exists():
        check_collection(folder)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder}: is not empty and not a collection; choose another folder")
    try:
        (folder / "bundles").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabelspaceError(f"{folder}: cannot be made ({error.strerror})") from error
    write_json(folder / HEADER, {"format": 1})


def check_collection(folder: Path) -> None:
    """Raises BundleError when `folder` holds no collection that this program reads."""
    _header(folder)


def log_of(folder: Path) -> LogPlace:
    """Where the header says that the log is. Raises BundleError when it says nothing sensible."""
    header = _header(folder)
    kind, collection = header.get("log", "sqlite"), header.get("id")
    try:
        known = None if collection is None else str(UUID(collection))
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder / HEADER}: is damaged (its id is {collection!r}); restore it") from error
    if kind not in ("sqlite", "postgresql") or (kind == "postgresql" and known is None):
        raise BundleError(f"{folder / HEADER}: is damaged (its log is {kind!r}, its id {collection!r}); restore it")
    return LogPlace(kind, known)


def mark_log(folder: Path, kind: str, collection: str) -> None:
    """Write down where the log is; the caller holds the lock."""
    header = _header(folder)
    if kind != "sqlite":
        header = {**header, "format": COLLECTION_FORMAT, "log": kind}
    write_json(folder / HEADER, {**header, "id": collection})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time changes what is current, or what the header says.

    Raises LabelspaceError when the folder cannot be written, or another process holds the lock for half a minute.
    """
    lock = FileLock(folder / LOCK, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise LabelspaceError(f"{folder}: another process is changing it; try again when it has ended") from error
    except OSError as error:
        raise LabelspaceError(f"{folder}: could not be locked ({error.strerror}); nothing was changed") from error
    try:
        yield
    finally:
        lock.release()


def _header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found.get("format")
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder}: no collection here; `labelspace export RUN --to {folder}` makes one") from None
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: is damaged ({first_line(error)}); restore it") from error
    if version not in range(1, COLLECTION_FORMAT + 1):
        raise BundleError(
            f"{folder}: collection of format {version!r}; this program reads formats up to {COLLECTION_FORMAT}"
        )
    return dict(found)
