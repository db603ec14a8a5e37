"""The work folder of a re-index job inside its collection: one job at a time, and what a killed one has left."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from index.errors import ConflictError, LabelspaceError
from index.files import write_json

WORK = "work"
# Sealed into a bundle by the job that wrote it, so that the job knows it again after a kill.
JOB_FILE = "reindex.json"
_LOCK = "lock"
_HOLDER = "holder.json"
_FILLING = "filling.json"
_EXPORTED = "exported_for"


@dataclass(frozen=True, slots=True)
class Job:
    """What a job is to make. Two equal ones are the same, whoever starts them and when.

    origin: the bundle or run that it starts from. upto: the newest change that goes in. index: FAISS factory string or
    "auto". recall: that the label index has to reach.
    """

    origin: str
    upto: int
    index: str
    recall: float

    @property
    def key(self) -> str:
        said = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    def like(self, other: Job) -> bool:
        """Whether they differ in nothing, or in the newest change only."""
        return (self.origin, self.index, self.recall) == (other.origin, other.index, other.recall)


@contextmanager
def alone(collection: Path, what: str) -> Iterator[Path]:
    """The collection's folder for jobs, held by this process until the block ends.

    Raises ConflictError saying who holds it when another process does, LabelspaceError when it cannot be written.
    """
    folder = collection / WORK
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise ConflictError(
            f"{collection}: another job is at work on it ({_holder(folder)}); wait until it has ended, or end it"
        ) from None
    except OSError as error:
        raise LabelspaceError(f"{folder}: could not be locked ({error.strerror}); nothing was changed") from error
    try:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(folder / _HOLDER, {"pid": os.getpid(), "host": socket.gethostname(), "at": started, "what": what})
        _clear_filling(folder)
        yield folder
    finally:
        # The lock file stays: who waits for one that is deleted would hold another than the next.
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def begun_job(work: Path, wanted: Job) -> Job | None:
    """A job that differs in its newest change at most, and that was killed: it shall be gone on with."""
    jobs = [job for path in work.glob(f"*/{JOB_FILE}") if (job := read_job(path.parent)) is not None]
    alike = [job for job in jobs if job.like(wanted)]
    return max(alike, key=lambda job: job.upto, default=None)


def start_job(work: Path, job: Job) -> Path:
    """The folder of the job, made when it is not there; folders of other jobs are removed."""
    for other in work.iterdir():
        if other.is_dir() and other.name != job.key:
            shutil.rmtree(other, ignore_errors=True)
    folder = work / job.key
    if read_job(folder) != job:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / JOB_FILE, asdict(job))
    return folder


def end_job(work: Path) -> None:
    """Remove what jobs have left."""
    for left in work.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def read_job(folder: Path) -> Job | None:
    """The job that a work folder or bundle is of; None where it is of none."""
    try:
        found = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        return Job(**found)
    except (OSError, ValueError, TypeError):
        return None


def bundle_of(collection: Path, job: Job, *, exported: bool = False) -> Path | None:
    """The bundle that this job has written, or that was `exported` for it to begin from; None where there is none."""
    wanted = {_EXPORTED: job.key} if exported else asdict(job)
    for folder in sorted((collection / "bundles").glob("[0-9]*")):
        if _read(folder / JOB_FILE) == wanted:
            return folder
    return None


def mark_export(folder: Path, job_key: str) -> None:
    """Note in a bundle that is being written which job it is exported for."""
    write_json(folder / JOB_FILE, {_EXPORTED: job_key})


def mark_bundle(folder: Path, job: Job) -> None:
    """Note in a bundle that is being written which job writes it."""
    write_json(folder / JOB_FILE, asdict(job))


@contextmanager
def filling(work: Path, beside: Path) -> Iterator[None]:
    """While a bundle is written `beside` its place: what a kill leaves of it is removed by the next job."""
    write_json(work / _FILLING, {"folder": beside.name})
    try:
        yield
    finally:
        (work / _FILLING).unlink(missing_ok=True)


def remove_bundle(collection: Path, name: str) -> None:
    """Remove a bundle that was never current, in one step as far as others can see."""
    folder = collection / "bundles" / name
    hidden = folder.with_name(f".{name}.gone.part")
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _clear_filling(work: Path) -> None:
    found = _read(work / _FILLING)
    name = found.get("folder")
    # Only what `new_folder` makes has such a name: a damaged note must not remove anything else.
    if isinstance(name, str) and name.startswith(".") and name.endswith(".part") and Path(name).name == name:
        shutil.rmtree(work.parent / "bundles" / name, ignore_errors=True)
    (work / _FILLING).unlink(missing_ok=True)


def _holder(folder: Path) -> str:
    found = _read(folder / _HOLDER)
    if not found:
        return "it has not said which"
    return f"{found.get('what')}, process {found.get('pid')} on {found.get('host')} since {found.get('at')}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
