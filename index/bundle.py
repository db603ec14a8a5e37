"""The bundle: everything that serves one trained model, immutable, checksummed, verified when it is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.addition import Addition, open_map
from index.build import IndexReport, open_index
from index.calibration import Calibration
from index.carried import Carried
from index.encoder import Encoder
from index.errors import BundleError, first_line
from index.features import FeatureSpec, Featurizer
from index.fielded import FieldedTokenizer
from index.files import sha256_of, write_json, write_text
from index.known_rows import open_known
from index.labels import LabelTable
from index.lexicon import Lexicon
from index.packed import Lists, open_array
from index.ranking import Ranking
from index.tokens import KIND, TOKENIZER_FILE, Tokenizer, TokenSpec

BUNDLE_FORMAT = 1
MANIFEST = "manifest.json"
# The manifest seals all other files; this one, the hex SHA-256 of its bytes, seals the manifest.
SEAL = "manifest.sha256"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself. change: the newest change of the collection's log that it already contains.
    addition: how vectors of labels come about that are changed while it serves."""

    bundle: str
    model: str
    created: str
    dim: int
    labels: int
    examples: int
    change: int
    features: FeatureSpec | TokenSpec
    ranking: Ranking
    index: IndexReport
    memory: IndexReport | None
    versions: Mapping[str, str]
    files: Mapping[str, FileSeal]
    addition: Addition = field(default_factory=Addition)

    def to_json(self) -> dict[str, Any]:
        own = {"features": self.features.to_json(), "addition": self.addition.to_json()}
        return {"format": BUNDLE_FORMAT, **asdict(self), **own}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Manifest:
        rest = {name: value for name, value in values.items() if name != "format"}
        memory = rest["memory"]
        return cls(
            **{
                **rest,
                "features": _features(rest["features"]),
                "ranking": Ranking(**rest["ranking"]),
                "index": IndexReport(**rest["index"]),
                "memory": None if memory is None else IndexReport(**memory),
                "files": {name: FileSeal(**seal) for name, seal in rest["files"].items()},
                # The first bundles have none.
                "addition": Addition.from_json(rest.get("addition", {})),
            }
        )


def _features(values: dict[str, Any]) -> FeatureSpec | TokenSpec:
    """Bags have no "kind": the first bundles knew nothing else."""
    return TokenSpec.from_json(values) if values.get("kind") == KIND else FeatureSpec.from_json(values)


@dataclass(frozen=True, slots=True)
class FileSeal:
    """A file's hex SHA-256 and its size in bytes."""

    sha256: str
    bytes: int


def seal_files(folder: Path) -> dict[str, FileSeal]:
    """The seals of all files in a folder, by name."""
    return {file.name: FileSeal(sha256_of(file), file.stat().st_size) for file in sorted(folder.iterdir())}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.to_json())
    write_text(folder / SEAL, sha256_of(folder / MANIFEST) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`. Raises BundleError when there is none that this program reads."""
    path = folder / MANIFEST
    try:
        whole = path.read_bytes()
        values = json.loads(whole)
    except FileNotFoundError:
        raise BundleError(f"{folder}: no bundle here ({MANIFEST} is missing); export it again") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: is damaged ({first_line(error)}); restore the bundle or export it again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != BUNDLE_FORMAT:
        raise BundleError(f"{path}: bundle of format {found!r}; this program reads format {BUNDLE_FORMAT}")
    seal = folder / SEAL
    if not seal.is_file() or seal.read_bytes() != f"{hashlib.sha256(whole).hexdigest()}\n".encode():
        raise BundleError(f"{path}: does not match {SEAL} beside it; restore the bundle or export it again")
    try:
        return Manifest.from_json(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: is damaged ({first_line(error)}); restore the bundle or export it again") from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises BundleError naming the first file that is missing, extra in size, or has one changed byte."""
    for name, seal in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path}: is missing; restore the bundle or export it again")
        if path.stat().st_size != seal.bytes:
            raise BundleError(f"{path}: has {path.stat().st_size} bytes, {seal.bytes} were written; restore the bundle")
        if sha256_of(path) != seal.sha256:
            raise BundleError(
                f"{path}: its checksum differs from the manifest's; restore the bundle or export it again"
            )


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    sums: (labels, dim) float32, the label vectors before they are brought to unit length. index: over their unit
    vectors. memory, example_labels: over the examples' unit vectors, and the label rows that they carry. carried: what
    a re-indexed bundle keeps of the changes in it; the examples among them come after the others in the memory.
    label_map: what labels that training did not know go through (index.addition).
    """

    folder: Path
    manifest: Manifest
    queries: Encoder
    label_texts: Encoder
    labels: LabelTable
    sums: NDArray[np.float32]
    index: faiss.Index
    memory: faiss.Index | None
    example_labels: Lists
    calibration: Calibration
    carried: Carried
    label_map: NDArray[np.float32] | None

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Open the bundle in `folder`, every byte checked. Raises BundleError naming the file that is wrong."""
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        try:
            for_queries, for_labels = featurizers(folder, manifest.features)
            return cls(
                folder,
                manifest,
                Encoder(folder / "query.onnx", for_queries),
                Encoder(folder / "label.onnx", for_labels),
                LabelTable.open(folder),
                open_array(folder / "vectors.npy"),
                open_index(folder / "index.faiss"),
                None if manifest.memory is None else open_index(folder / "memory.faiss"),
                Lists.open(folder, "memory.labels"),
                Calibration.from_json(json.loads((folder / "calibration.json").read_text(encoding="utf-8"))),
                Carried.open(folder, manifest.dim),
                open_map(folder, manifest.addition, manifest.dim),
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BundleError(f"{folder}: cannot be opened ({first_line(error)}); export it again") from error


def featurizers(
    folder: Path, features: FeatureSpec | TokenSpec, *, threads: int = 1
) -> tuple[Featurizer | Tokenizer | FieldedTokenizer, Featurizer | Tokenizer | FieldedTokenizer]:
    """What makes bags or tokens, or both, of queries and of labels, for the towers in `folder`.

    threads: of the tokenizer, for many texts at once. Raises BundleError when the tokenizer or lexicon there is another
    one than the towers were trained with.
    """
    if isinstance(features, FeatureSpec):
        return _featurizer(folder, features, "query"), _featurizer(folder, features, "label")
    path = folder / TOKENIZER_FILE
    queries = Tokenizer(path, features.query_tokens, threads=threads)
    if queries.digest != features.tokenizer:
        raise BundleError(f"{path}: is not the tokenizer that the towers were trained with; export them again")
    labels = queries
    if features.label_tokens != features.query_tokens:
        labels = Tokenizer(path, features.label_tokens, threads=threads)
    if features.bags is None:
        return queries, labels
    of_queries, of_labels = (_featurizer(folder, features.bags, tower) for tower in ("query", "label"))
    return FieldedTokenizer(queries, of_queries), FieldedTokenizer(labels, of_labels)


def _featurizer(folder: Path, spec: FeatureSpec, tower: str) -> Featurizer:
    lexicon = Lexicon.open(folder, spec.lexicon) if spec.lexicon else None
    return Featurizer(spec, tower, lexicon, open_known(folder, spec.rows, tower))
