"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.errors import LabelspaceError

_CHUNK = 1 << 20
_ABANDONED_SECONDS = 3600.0


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush one file's bytes to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; on any failure the old file stays."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Replace `path` by a JSON document in one step."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling file to write; moved onto `path` when the block ends well, deleted when it does not.

    Raises LabelspaceError when the system refuses (disk full, no permission), naming `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        # mkstemp, and some who write to it, make it private to this user.
        beside.chmod(0o644)
        sync_file(beside)
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill; fsynced and renamed to `path` when the block ends well, deleted otherwise.

    Raises LabelspaceError when `path` exists or the system refuses (disk full, no permission), naming `path`.
    """
    if path.exists():
        raise LabelspaceError(f"{path}: is there already; choose another place or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise _failed(path, error) from error
    beside.chmod(0o755)
    try:
        yield beside
        for file in sorted(beside.rglob("*")):
            if file.is_file():
                sync_file(file)
        sync_folder(beside)
        beside.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _clear_leftovers(path: Path) -> None:
    """Remove what a process that was killed has left of `path`; younger ones may belong to one that still writes."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _failed(path: Path, error: OSError) -> LabelspaceError:
    return LabelspaceError(f"{path}: could not be written ({error.strerror or error}); nothing was changed")
