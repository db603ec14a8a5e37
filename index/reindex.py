"""The re-index job: a bundle with the changes up to a number becomes the next bundle, is compared, and made current.

It may be killed at any point and started again: it goes on with what is finished. Changes that are logged meanwhile
stay in the log, and are replayed over the new bundle by whoever opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from index.bundle import Bundle
from index.bundles import BUNDLES, add_bundle, current_bundle, promote
from index.change_log import ChangeLog, open_log
from index.changes import Change
from index.collection_folder import check_collection
from index.comparison import Comparison, Gate, compare, default_gate
from index.dev_queries import DevQuery, bundled_dev
from index.encode_shards import Meter, Towers, encode_shards, text_shards
from index.errors import BundleError, InputError
from index.files import write_json
from index.index_choice import parse_spec
from index.reindex_build import Contents, build_both, stand_ins, tuning_vectors
from index.reindex_bundle import NewBundle
from index.reindex_texts import note_texts, with_ready_texts
from index.reindex_work import (
    Job,
    alone,
    begun_job,
    bundle_of,
    end_job,
    filling,
    read_job,
    remove_bundle,
    start_job,
)
from index.snapshot import Snapshot

# Replayed in blocks, so that the texts of a long log are not all in memory at once.
_BLOCK = 1 << 16
METRICS = "metrics.json"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """index: FAISS factory string of the label index, or "auto". recall: that it has to reach. upto: the newest change
    that goes in, None for the newest there is. processes: that encode. gate: as Gate.parse reads it, beside or instead
    of the default. queries: to tune and to compare on, None for those in the bundle. promote: make the bundle current.
    """

    index: str = "auto"
    recall: float = 0.99
    upto: int | None = None
    processes: int = 1
    gate: str | None = None
    queries: tuple[DevQuery, ...] | None = None
    promote: bool = True

    def gate_of(self, *, same_model: bool) -> Gate:
        """What the new bundle has to reach. Raises InputError for a gate that cannot be read."""
        default = default_gate(same_model=same_model, recall=self.recall)
        return default if self.gate is None else Gate.parse(self.gate, default)


@dataclass(frozen=True, slots=True)
class Exported:
    """A run to start from instead of the current bundle. origin: says which, and in which state, and nothing else does.

    export: writes its bundle into the collection without making it current, and returns the bundle's name; it is given
    the key of the job that the bundle has to be marked with (`mark_export`), and the folder of the collection's jobs.
    """

    origin: str
    export: Callable[[str, Path], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """bundle: the name of the new bundle. change: the newest change in it. promoted: whether it is current now.

    failures: what kept it from that. comparison: None where nothing had to be done, or nothing was there before.
    """

    bundle: str
    change: int
    promoted: bool
    failures: tuple[str, ...] = ()
    comparison: Comparison | None = None


def reindex(
    collection: Path,
    settings: Settings,
    *,
    log: str | None = None,
    source: Exported | None = None,
    report: Report,
    meter: Meter,
) -> Outcome:
    """Write the collection's next bundle; make it current when it passes the gate. What was current stays there.

    log: the log's URL, as for Collection. source: a run, else the current bundle is what the changes are applied to.
    Raises ConflictError when another job is at work on the collection, or another bundle became current meanwhile;
    InputError for settings that make no sense; BundleError for a damaged bundle; LabelspaceError when the disk refuses.
    What is current has then not changed, and the same call goes on where this one stopped.
    """
    check_collection(collection)
    settings.gate_of(same_model=True)  # what cannot be read is refused before the long work
    with alone(collection, "a re-index") as work:
        current = _current(collection, source)
        opened = open_log(collection, log)
        try:
            return _Reindex(collection, work, opened, settings, source, report, meter).run(current)
        finally:
            opened.close()


@dataclass(frozen=True, slots=True)
class _Reindex:
    """One run of the job, which holds the work folder. Its steps are in the order in which they are taken."""

    collection: Path
    work: Path
    log: ChangeLog
    settings: Settings
    source: Exported | None
    report: Report
    meter: Meter

    def run(self, current: str | None) -> Outcome:
        done = None if current is None else read_job(self.collection / BUNDLES / current)
        if current is not None and done is not None and (self.work / done.key).is_dir():
            self.report(f"bundle {current} had been finished, and made current, when the job was killed")
            end_job(self.work)
            return Outcome(current, done.upto, True)
        job = self._job(current)
        if current is not None and done is not None and self._same(done, job):
            self.report(f"bundle {current} has all changes up to {job.upto} already, indexed as asked for")
            end_job(self.work)
            return Outcome(current, done.upto, True)
        folder = start_job(self.work, job)
        bundle, old = self._finished(job), None
        if bundle is None:
            begun_from = self._exported(job) if self.source is not None else current
            assert begun_from is not None  # noqa: S101 - without a run there is a current bundle
            bundle, old = self._write(job, folder, self.collection / BUNDLES / begun_from)
        outcome = self._judge(job, folder, bundle, current, old if self.source is None else None)
        self._clear(job, outcome.bundle)
        return outcome

    def _job(self, current: str | None) -> Job:
        newest, upto = self.log.last(), self.settings.upto
        if upto is not None and upto > newest:
            raise InputError(f"upto {upto}: the newest change is {newest}")
        origin = f"bundle {current}" if self.source is None else self.source.origin
        wanted = Job(origin, newest if upto is None else upto, self.settings.index, self.settings.recall)
        begun = begun_job(self.work, wanted) if upto is None else None
        if begun is not None and begun != wanted:
            self.report(f"going on with the job that was begun, up to change {begun.upto}")
        return begun or wanted

    def _same(self, done: Job, job: Job) -> bool:
        """Whether what is current is what the job would make."""
        origin = job.origin if self.source is not None else done.origin
        return done == Job(origin, job.upto, job.index, job.recall)

    def _finished(self, job: Job) -> str | None:
        """The bundle that this job has written before; one that is damaged is removed."""
        found = bundle_of(self.collection, job)
        if found is None:
            return None
        try:
            Bundle.open(found)
        except BundleError as error:
            self.report(f"{error}; it is written again")
            remove_bundle(self.collection, found.name)
            return None
        self.report(f"bundle {found.name} had been written when the job was ended")
        return found.name

    def _exported(self, job: Job) -> str:
        assert self.source is not None  # noqa: S101 - is asked for with a run only
        found = bundle_of(self.collection, job, exported=True)
        if found is not None:
            self.report(f"the run had been exported as bundle {found.name}")
            return found.name
        return self.source.export(job.key, self.work)

    def _write(self, job: Job, folder: Path, begun_from: Path) -> tuple[str, Snapshot | None]:
        """The new bundle's name, and the state that it was made of; None where the exported one is taken as it is."""
        bundle = Bundle.open(begun_from)
        before = bundle.manifest.change
        if job.upto < before:
            raise InputError(f"upto {job.upto}: bundle {begun_from.name} has the changes up to {before} already")
        if job.index != "auto":
            parse_spec(job.index, bundle.manifest.dim)  # one that is none is refused before the long work
        if self.source is not None and job.index == "auto" and not self._any_change(before, job.upto):
            self.report("no change has to be applied: the exported bundle itself is the new one")
            return begun_from.name, None
        ready = self._replayed(bundle, folder, job.upto)
        contents = Contents.of(ready)
        snapshot = replace(ready, bundle=bundle)
        self.report(f"{len(contents.labels)} labels and {len(contents.examples)} training examples are taken over")
        queries = self._queries(snapshot)
        if not queries:
            self.report("no held-out queries are kept in the bundle: tuned on stored vectors with noise")
        vectors = tuning_vectors(snapshot, queries)
        built = build_both(folder, snapshot, contents, vectors, spec=job.index, recall=job.recall, report=self.report)
        new = NewBundle(snapshot, contents, built, job)

        def fill(beside: Path, name: str) -> None:
            with filling(self.work, beside):
                new.fill(beside, name)

        return add_bundle(self.collection, bundle.manifest.model, fill, promote=False), snapshot

    def _any_change(self, after: int, upto: int) -> bool:
        return next(iter(self.log.since(after, upto)), None) is not None

    def _replayed(self, bundle: Bundle, folder: Path, upto: int) -> Snapshot:
        """The bundle with the changes; what they need encoded is encoded in shards first."""
        texts, after = folder / "texts", bundle.manifest.change
        note_texts(texts, Snapshot.of(bundle), self._blocks(after, upto))
        shards = text_shards(texts)
        rows = sum(shard.rows for shard in shards)
        snapshot = Snapshot.of(bundle)
        if rows:
            processes = min(self.settings.processes, len(shards))
            with self.meter("encoding", rows, 0) as advance:
                towers = Towers(bundle.folder, bundle.manifest.features)
                encode_shards(folder / "shards", shards, towers, processes=processes, advance=advance)
            snapshot = with_ready_texts(snapshot, folder / "shards", shards)
        applied = 0
        for block in self._blocks(after, upto):
            snapshot = snapshot.after(block)
            applied += len(block)
        self.report(f"{applied} changes applied, {rows} texts encoded for them")
        return snapshot

    def _blocks(self, after: int, upto: int) -> Iterator[list[Change]]:
        block: list[Change] = []
        for change in self.log.since(after, upto):
            block.append(change)
            if len(block) == _BLOCK:
                yield block
                block = []
        if block:
            yield block

    def _queries(self, snapshot: Snapshot) -> list[DevQuery]:
        if self.settings.queries is not None:
            return list(self.settings.queries)
        return bundled_dev(snapshot.bundle.folder)

    def _judge(self, job: Job, folder: Path, name: str, current: str | None, old: Snapshot | None) -> Outcome:
        """Every byte checked, compared with what is current, and made current when the gate lets it pass."""
        new = Snapshot.of(Bundle.open(self.collection / BUNDLES / name))
        comparison, failures = None, list[str]()
        if current is not None:
            old = old or self._as_current(job, folder, current)
            comparison = self._compared(new, old)
            same_model = old.bundle.manifest.model == new.bundle.manifest.model
            failures = self.settings.gate_of(same_model=same_model).failures(comparison)
            write_json(self.collection / BUNDLES / name / METRICS, comparison.to_json())
            for line in comparison.lines():
                self.report(line)
        if failures or not self.settings.promote:
            return Outcome(name, new.change, False, tuple(failures), comparison)
        promote(self.collection, name, expected=current)
        return Outcome(name, new.change, True, (), comparison)

    def _as_current(self, job: Job, folder: Path, current: str) -> Snapshot:
        """What the current bundle serves with the same changes."""
        bundle = Bundle.open(self.collection / BUNDLES / current)
        # Under another model the same texts are other vectors: the shards of a run are not those of this bundle.
        ready = self._replayed(bundle, folder if self.source is None else folder / "current", job.upto)
        return replace(ready, bundle=bundle)

    def _compared(self, new: Snapshot, old: Snapshot) -> Comparison:
        queries = self._queries(new)
        alike = old.bundle.manifest.model == new.bundle.manifest.model
        return compare(old, new, queries, stand_ins(new.bundle.sums) if alike and not queries else None)

    def _clear(self, job: Job, made: str) -> None:
        """Remove the bundle that a run was exported as on the way, and the job's folder."""
        between = bundle_of(self.collection, job, exported=True)
        if between is not None and between.name not in (made, _current(self.collection, self.source)):
            remove_bundle(self.collection, between.name)
        end_job(self.work)


def _current(collection: Path, source: Exported | None) -> str | None:
    """The name of the current bundle; None where a run is to become the first. Raises BundleError as current_bundle."""
    if source is not None and not (collection / "current").exists():
        return None
    return current_bundle(collection).name
