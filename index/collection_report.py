"""What a collection holds: its bundles, what the current one says of itself, and what was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.build import IndexReport
from index.bundle import MANIFEST, SEAL, Manifest, read_manifest
from index.bundles import BUNDLES, bundle_names, current_bundle
from index.collection import Collection


@dataclass(frozen=True, slots=True)
class BundleReport:
    """A bundle by its manifest. files: bytes by name; bytes: of them all. index, memory: what was built, with the
    recall that it measured; memory: None where no examples vote."""

    bundle: str
    current: bool
    created: str
    labels: int
    examples: int
    dim: int
    index: IndexReport
    memory: IndexReport | None
    features: Mapping[str, Any]
    files: Mapping[str, int]
    bytes: int


@dataclass(frozen=True, slots=True)
class CollectionReport:
    """live: labels that can be predicted now. changes: logged since the current bundle; added, edited, removed: labels
    that are otherwise than in it because of them."""

    collection: str
    bundles: tuple[BundleReport, ...]
    live: int
    changes: int
    added: int
    edited: int
    removed: int

    def to_json(self) -> dict[str, Any]:
        return {"kind": "collection", **asdict(self)}


def report_collection(folder: Path, log: str | None = None) -> CollectionReport:
    """Open the collection, which checks every byte of its current bundle, and say what is in it.

    log: its URL, as for Collection. Raises BundleError naming what is damaged or missing, also of a bundle that is not
    the current one.
    """
    with Collection(folder, log=log) as opened:
        snapshot = opened.snapshot
        labels, base = snapshot.labels, len(snapshot.bundle.labels)
        current = current_bundle(folder).name
        places = [folder / BUNDLES / name for name in bundle_names(folder)]
        return CollectionReport(
            str(folder),
            tuple(_report(path, read_manifest(path), current) for path in places),
            len(labels),
            snapshot.change - snapshot.bundle.manifest.change,
            sum(row not in labels.removed for row in range(base, labels.rows)),
            sum(row < base and row not in labels.removed for row in labels.edited),
            sum(row < base for row in labels.removed),
        )


def _report(folder: Path, manifest: Manifest, current: str) -> BundleReport:
    files = {name: seal.bytes for name, seal in manifest.files.items()}
    files |= {name: (folder / name).stat().st_size for name in (MANIFEST, SEAL)}
    return BundleReport(
        manifest.bundle,
        folder.name == current,
        manifest.created,
        manifest.labels,
        manifest.examples,
        manifest.dim,
        manifest.index,
        manifest.memory,
        manifest.features.to_json(),
        files,
        sum(files.values()),
    )
