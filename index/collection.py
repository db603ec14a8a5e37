"""A collection: a folder of bundles, which of them is current, and the log of changes since."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from index.bundle import Bundle, read_manifest
from index.change_log import ChangeLog
from index.changes import LabelChange, PutLabel, RemoveLabel
from index.errors import BundleError, InputError, LabelspaceError, UnknownLabelError, first_line
from index.files import new_folder, write_json, write_text
from index.labels import check_id
from index.snapshot import Snapshot, says_something

COLLECTION_FORMAT = 1
_HEADER = "collection.json"
_CURRENT = "current"
_LOG = "changes.sqlite"
# Replayed in blocks, so that the texts of a long log are not all in memory at once.
_REPLAY = 4096


class Collection:
    """An opened collection. `snapshot` may be read from any thread; writes take their turn."""

    def __init__(self, folder: Path) -> None:
        """Open the collection in `folder` with its current bundle and all logged changes.

        Raises BundleError when there is none, when a newer version wrote it, or when a byte of its bundle changed.
        """
        check_collection(folder)
        self.folder = folder
        self._lock = threading.Lock()
        bundle = Bundle.open(current_bundle(folder))
        self._log = ChangeLog(folder / _LOG)
        self.snapshot = Snapshot.of(bundle)
        self.refresh()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._log.close()

    def write(self, changes: Sequence[LabelChange]) -> list[int]:
        """Store these changes durably, all or none, then make them searchable; returns their numbers in the log.

        Raises InputError for a change that makes no sense, UnknownLabelError for removing a label that is not there,
        LabelspaceError when they cannot be stored. In all these cases nothing has changed.
        """
        with self._lock:
            self._catch_up()
            self._check(changes)
            numbers = self._log.append(changes)
            self._catch_up()
        return numbers

    def refresh(self) -> int:
        """Take over what other processes have logged; returns the number of the newest change."""
        with self._lock:
            self._catch_up()
            return self.snapshot.change

    def _catch_up(self) -> None:
        block = []
        for change in self._log.since(self.snapshot.change):
            block.append(change)
            if len(block) == _REPLAY:
                self.snapshot = self.snapshot.after(block)
                block = []
        self.snapshot = self.snapshot.after(block)

    def _check(self, changes: Sequence[LabelChange]) -> None:
        dim = self.snapshot.bundle.manifest.dim
        gone: dict[str, bool] = {}
        for change in changes:
            check_id(change.id, "label id")
            if isinstance(change, PutLabel):
                self._check_fields(change)
                check_put(change, dim)
            elif gone.get(change.id, self.snapshot.labels.find(change.id) is None):
                raise UnknownLabelError(f"label {change.id!r}: there is no such label")
            gone[change.id] = isinstance(change, RemoveLabel)

    def _check_fields(self, put: PutLabel) -> None:
        try:
            self.snapshot.check_fields(put.fields, "label")
        except InputError as error:
            raise InputError(f"label {put.id!r}: {error}") from error


def check_put(put: PutLabel, dim: int) -> None:
    """Raises InputError when nothing could be known of the label, or its vector cannot be one."""
    # Fields of long texts may hold what the log cannot.
    for text in (put.text, *put.examples, json.dumps(put.fields, ensure_ascii=False)):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"label {put.id!r}: a text is not valid Unicode (a lone surrogate)") from error
    if any(not example.strip() for example in put.examples):
        raise InputError(f"label {put.id!r}: an example is blank; leave it out")
    if put.vector is not None:
        if len(put.vector) != dim:
            raise InputError(f"label {put.id!r}: its vector has {len(put.vector)} numbers; this model's have {dim}")
        if not 1e-12 < sum(value * value for value in put.vector) < 1e30:
            raise InputError(f"label {put.id!r}: its vector is zero, too large or not finite")
    elif not put.examples and not says_something(put.text, put.fields):
        raise InputError(f"label {put.id!r}: give it a text, fields, examples or a vector")


def create_collection(folder: Path) -> None:
    """Make an empty collection, or accept one that is there. Raises BundleError when something else is."""
    if (folder / _HEADER).exists():
        check_collection(folder)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder}: is not empty and not a collection; choose another folder")
    try:
        (folder / "bundles").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabelspaceError(f"{folder}: cannot be made ({error.strerror})") from error
    write_json(folder / _HEADER, {"format": COLLECTION_FORMAT})


def check_collection(folder: Path) -> None:
    """Raises BundleError when `folder` holds no collection that this program reads."""
    header = folder / _HEADER
    try:
        found = json.loads(header.read_text(encoding="utf-8")).get("format")
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{folder}: no collection here; `labelspace export RUN --to {folder}` makes one") from None
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(f"{header}: is damaged ({first_line(error)}); restore it") from error
    if found != COLLECTION_FORMAT:
        raise BundleError(f"{folder}: collection of format {found!r}; this program reads format {COLLECTION_FORMAT}")


def current_bundle(folder: Path) -> Path:
    """The folder of the current bundle. Raises BundleError when the collection has none."""
    try:
        name = (folder / _CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise BundleError(f"{folder}: has no current bundle; `labelspace export RUN --to {folder}` makes one") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / _CURRENT}: is damaged ({first_line(error)})") from error
    bundle = folder / "bundles" / name
    if name not in _names(folder / "bundles"):
        raise BundleError(f"{folder / _CURRENT}: names the bundle {name!r}, which is not there")
    return bundle


def add_bundle(folder: Path, model: str, fill: Callable[[Path, str], None]) -> str:
    """Let `fill(empty folder, bundle id)` write the next bundle, then make it current; returns its id.

    The bundle appears whole or not at all, and the current one changes in one step after that.
    """
    bundles = folder / "bundles"
    taken = [int(found.split("-")[0]) for found in _names(bundles) if found[:1].isdigit()]
    name = f"{max(taken, default=0) + 1:04d}-{model[:8]}"
    with new_folder(bundles / name) as beside:
        fill(beside, name)
    read_manifest(bundles / name)
    write_text(folder / _CURRENT, name + "\n")
    return name


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
