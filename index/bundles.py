"""The bundles of a collection: which is current and which were before, adding, promoting, rolling back, pruning."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.bundle import Manifest, read_manifest, verify_files
from index.change_log import open_log
from index.collection_folder import check_collection, locked
from index.errors import BundleError, ConflictError, InputError, LabelspaceError, first_line
from index.files import new_folder, write_text

BUNDLES = "bundles"
_CURRENT = "current"
# Names of bundles that were current, oldest first, one a line.
_HISTORY = "history"
_REMEMBERED = 50
_METRICS = "metrics.json"
# What is younger may belong to a process that still works on it.
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """A bundle in a list. previous: a rollback would make it current. metrics: as measured when it was written, if
    they were. fault: why it cannot be read; all but its name is then empty."""

    name: str
    current: bool
    previous: bool
    model: str = ""
    created: str = ""
    labels: int = 0
    examples: int = 0
    change: int = 0
    bytes: int = 0
    metrics: dict[str, Any] | None = None
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at ("log", or a bundle's name), how much of it there is, and what is wrong with it, if anything.

    size: changes of a log, bytes of a bundle.
    """

    what: str
    size: int
    fault: str | None = None


def current_bundle(folder: Path) -> Path:
    """The folder of the current bundle. Raises BundleError when the collection has none."""
    try:
        name = (folder / _CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise BundleError(f"{folder}: has no current bundle; `labelspace export RUN --to {folder}` makes one") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / _CURRENT}: is damaged ({first_line(error)})") from error
    if name not in bundle_names(folder):
        raise BundleError(f"{folder / _CURRENT}: names the bundle {name!r}, which is not there")
    return folder / BUNDLES / name


def bundle_names(folder: Path) -> list[str]:
    """The names of all bundles in order; one that is being written is none."""
    return [name for name in _found(folder) if not name.startswith(".")]


def add_bundle(folder: Path, model: str, fill: Callable[[Path, str], None], promote: bool = True) -> str:
    """Let `fill(empty folder, bundle id)` write the next bundle, then make it current if wanted; returns its id.

    The bundle appears whole or not at all, and the current one changes in one step after that.
    """
    with ExitStack() as stack:
        with locked(folder):
            # One that is being written has its number already.
            name = f"{max((_by_number(found)[0] for found in _found(folder)), default=0) + 1:04d}-{model[:8]}"
            beside = stack.enter_context(new_folder(folder / BUNDLES / name))
        fill(beside, name)
    read_manifest(folder / BUNDLES / name)
    if promote:
        with locked(folder):
            _make_current(folder, name, [*_history(folder), name])
    return name


def promote(folder: Path, name: str, expected: str | None = None) -> None:
    """Make a bundle current, once every byte of it is checked; services on the collection take it over by themselves.

    Raises InputError when there is no such bundle, BundleError when it is damaged, ConflictError when `expected` is
    given and another bundle is current by now. In all these cases nothing has changed.
    """
    check_collection(folder)
    _check_bytes(folder, name)
    with locked(folder):
        if expected is not None and (found := _current(folder)) != expected:
            raise ConflictError(f"{folder}: {found} is current by now, not {expected}; nothing was changed")
        if _current(folder) != name:
            _make_current(folder, name, [*_history(folder), name])


def rollback(folder: Path) -> str:
    """Make current what was so before the current bundle; returns its name. The changes in the log stay in force.

    Raises LabelspaceError when there was none before, or it is gone; BundleError when it is damaged.
    """
    check_collection(folder)
    with locked(folder):
        before = _before(folder)
        if not before:
            raise LabelspaceError(f"{folder}: no bundle was current before {_current(folder)}; nothing was changed")
        _check_bytes(folder, before[-1])
        _make_current(folder, before[-1], before)
    return before[-1]


def list_bundles(folder: Path) -> tuple[BundleEntry, ...]:
    """All bundles in order; what is damaged is listed with its fault."""
    check_collection(folder)
    current, before = _current(folder), _before(folder)
    return tuple(_entry(folder / BUNDLES / name, current, before[-1:]) for name in bundle_names(folder))


def verify(folder: Path, name: str | None = None, log: str | None = None) -> tuple[Check, ...]:
    """Check every byte of one bundle, or of all and the log; log: its URL, as for Collection.

    Raises InputError when there is no such bundle, BundleError when this is no collection.
    """
    check_collection(folder)
    if name is not None and name not in bundle_names(folder):
        raise InputError(f"{folder}: there is no bundle {name!r}; `labelspace bundles list {folder}` shows them")
    names = bundle_names(folder) if name is None else [name]
    checks = [_check(folder, one) for one in names]
    return tuple(checks if name is not None else [*checks, _check_log(folder, log)])


def prune(folder: Path, keep: int = 2) -> tuple[str, ...]:
    """Remove all bundles but `keep`, and what killed processes left behind; returns the names of what was removed.

    Kept first is the current one, then the one that a rollback would go to, then the newest. Beyond these stays what is
    newer than the current one and not an hour old: somebody may be about to promote it.
    """
    if keep < 1:
        raise InputError(f"keep is {keep}; at least the current bundle has to stay")
    check_collection(folder)
    with locked(folder):
        current, before = current_bundle(folder).name, _before(folder)
        names = bundle_names(folder)
        wanted = dict.fromkeys([current, *before[-1:], *reversed(names)])
        newer = names[names.index(current) + 1 :]
        kept = set(list(wanted)[:keep]) | {name for name in newer if _is_young(folder, name)}
        gone = [name for name in names if name not in kept]
        _write_history(folder, [name for name in _history(folder) if name in kept])
        for name in gone:
            # In one step it is no bundle any more; whoever has it open keeps its files.
            hidden = folder / BUNDLES / f".{name}.pruned.part"
            (folder / BUNDLES / name).rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        leftovers = [
            path.name
            for place in (folder, folder / BUNDLES)
            for path in sorted(place.glob(".*.part"))
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
        ]
        for name in leftovers:
            for place in (folder, folder / BUNDLES):
                shutil.rmtree(place / name, ignore_errors=True)
                if (place / name).is_file():
                    (place / name).unlink()
    return (*gone, *leftovers)


def _found(folder: Path) -> list[str]:
    bundles = folder / BUNDLES
    return sorted((path.name for path in bundles.iterdir()), key=_by_number) if bundles.is_dir() else []


def _by_number(name: str) -> tuple[int, str]:
    number = name.lstrip(".").split("-")[0]
    return (int(number) if number.isdigit() else 0), name


def _current(folder: Path) -> str | None:
    return current_bundle(folder).name if (folder / _CURRENT).exists() else None


def _history(folder: Path) -> list[str]:
    """The bundles that were current, with the current one at the end.

    It is written before what is current changes: behind the last time that the current one is named is what a killed
    process had in mind. An older program does not write it at all.
    """
    current = _current(folder)
    try:
        names = (folder / _HISTORY).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        names = []
    if current is None:
        return []
    if current not in names:
        return [*names, current]
    return names[: len(names) - names[::-1].index(current)]


def _before(folder: Path) -> list[str]:
    """Of these, those before the current one that are still there."""
    current, there = _current(folder), set(bundle_names(folder))
    return [name for name in _history(folder)[:-1] if name in there and name != current]


def _make_current(folder: Path, name: str, history: list[str]) -> None:
    _write_history(folder, history)
    write_text(folder / _CURRENT, name + "\n")


def _write_history(folder: Path, names: list[str]) -> None:
    write_text(folder / _HISTORY, "".join(f"{name}\n" for name in names[-_REMEMBERED:]))


def _is_young(folder: Path, name: str) -> bool:
    return time.time() - (folder / BUNDLES / name).stat().st_mtime < _ABANDONED_SECONDS


def _check_bytes(folder: Path, name: str) -> Manifest:
    if name not in bundle_names(folder):
        raise InputError(f"{folder}: there is no bundle {name!r}; `labelspace bundles list {folder}` shows them")
    manifest = read_manifest(folder / BUNDLES / name)
    verify_files(folder / BUNDLES / name, manifest)
    return manifest


def _check(folder: Path, name: str) -> Check:
    size = _bytes(folder / BUNDLES / name)
    try:
        _check_bytes(folder, name)
    except LabelspaceError as error:
        return Check(name, size, str(error))
    return Check(name, size)


def _check_log(folder: Path, url: str | None) -> Check:
    try:
        log = open_log(folder, url)
        try:
            count, last = log.verify(), log.last()
        finally:
            log.close()
        current = _current(folder)
        known = 0 if current is None else read_manifest(folder / BUNDLES / current).change
    except LabelspaceError as error:
        return Check("log", 0, str(error))
    if last < known:
        return Check("log", count, f"{folder}: the log ends at change {last}, the current bundle has change {known}")
    return Check("log", count)


def _entry(folder: Path, current: str | None, previous: list[str]) -> BundleEntry:
    name = folder.name
    try:
        manifest = read_manifest(folder)
        metrics = folder / _METRICS
        measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None
    except (BundleError, OSError, ValueError) as error:
        return BundleEntry(name, name == current, name in previous, fault=first_line(error))
    return BundleEntry(
        name,
        name == current,
        name in previous,
        manifest.model,
        manifest.created,
        manifest.labels,
        manifest.examples,
        manifest.change,
        _bytes(folder),
        measured,
    )


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
