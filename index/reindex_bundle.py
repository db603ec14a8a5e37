"""A re-indexed bundle's folder: what is taken over from the bundle before, and what is written anew."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from index.bundle import seal_files, write_manifest
from index.bundles import BUNDLES
from index.device import DISTRIBUTIONS, faiss_versions
from index.facets import fields_text
from index.labels import LabelTable
from index.packed import Lists, PackedStrings
from index.reindex_build import Built, Contents, ServedVectors, blocks_of, label_sums, write_array
from index.reindex_work import JOB_FILE, Job, mark_bundle
from index.snapshot import Snapshot

# What follows from the labels and examples that there are now; everything else is the model's, and stays.
_WRITTEN_ANEW = ("labels.", "facets.", "carried.", "vectors.", "memory.", "index.faiss", JOB_FILE)


@dataclass(frozen=True, slots=True)
class NewBundle:
    """All that a new bundle is made of."""

    snapshot: Snapshot
    contents: Contents
    built: Built
    job: Job

    def fill(self, folder: Path, bundle: str) -> None:
        """Write every file of the bundle into an empty folder."""
        self._take_over(folder)
        self._labels().save(folder)
        live, dim = self.contents.labels, self.snapshot.bundle.manifest.dim
        changed = self.contents.carried.labels.rows
        served = ServedVectors(self.snapshot)
        sums = (label_sums(self.snapshot, served, changed, block) for block in blocks_of(live))
        write_array(folder / "vectors.npy", (len(live), dim), sums)
        self._examples().save(folder, "memory.labels")
        self.contents.carried.renumbered(self.contents.places).save(folder)
        _place(self.built.labels, folder / "index.faiss")
        if self.built.memory is not None:
            _place(self.built.memory, folder / "memory.faiss")
        mark_bundle(folder, self.job)
        manifest = replace(
            self.snapshot.bundle.manifest,
            bundle=bundle,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            labels=len(live),
            examples=len(self.contents.examples) + len(self.contents.carried.examples),
            change=self.snapshot.change,
            index=self.built.label_report,
            memory=self.built.memory_report,
            versions=self._versions(),
            files=seal_files(folder),
        )
        write_manifest(folder, manifest)

    def _take_over(self, folder: Path) -> None:
        bundle = self.snapshot.bundle
        for name in bundle.manifest.files:
            if not name.startswith(_WRITTEN_ANEW):
                # A copy, not a link: a bit that flips in one bundle must not have flipped in the other.
                shutil.copyfile(bundle.folder / name, folder / name)

    def _labels(self) -> LabelTable:
        labels = [label for _, label in self.snapshot.labels.after(None)]
        fields = [fields_text(label.fields) for label in labels]
        packed = PackedStrings.pack(fields) if any(fields) else None
        return LabelTable.pack([label.id for label in labels], [label.text for label in labels], packed)

    def _examples(self) -> Lists:
        """The label rows of each training example that is left, as the new bundle numbers them."""
        lengths, labels, _ = self.snapshot.example_labels.of(self.contents.examples)
        rows = self.contents.places[labels]
        kept = rows >= 0
        ends = np.concatenate([[0], np.cumsum(kept)])[np.concatenate([[0], np.cumsum(lengths)])]
        return Lists(ends.astype(np.int64), rows[kept].astype(np.int32))

    def _versions(self) -> Mapping[str, str]:
        """What the model was exported with stays; what built the indexes is what is here."""
        found = {"python": platform.python_version()}
        for name in ("labelspace", "numpy", "onnxruntime"):
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        exported = self.snapshot.bundle.manifest.versions.items()
        kept = {name: number for name, number in exported if name not in DISTRIBUTIONS}
        return {**kept, **found, **faiss_versions()}


def _place(source: Path, target: Path) -> None:
    """A copy, or where the disk can do that a second name of the job's own file, which goes away with the job."""
    if source.parent.parent.name != BUNDLES:
        try:
            os.link(source, target)
            return
        except OSError:
            target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
