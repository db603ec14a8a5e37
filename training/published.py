"""The label side of a bundle that a new query tower is trained against: its label vectors and its label tower.

Method: stationary representations (Biondi et al., CVPR 2024), whose classifier is fixed so that the vectors of later
models meet those of earlier ones. With very many labels no simplex has room for them: the published label vectors are
the fixed classifier of the next query tower, which can then be served on the index that is there.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from index.bags import Bags
from index.bundle import MANIFEST, SEAL, Manifest, featurizers, read_manifest, verify_files
from index.bundles import current_bundle
from index.collection_folder import check_collection
from index.encoder import Encoder
from index.errors import BundleError, InputError, first_line
from index.features import FeatureSpec
from index.fielded import FieldedTokens
from index.fields import Fields, fields_read
from index.files import new_folder
from index.known_rows import open_known
from index.label_vector import unit
from index.lexicon import PIECES_FILE, VOCABULARY_FILE, Lexicon
from index.packed import PackedStrings, open_array
from index.tokens import TOKENIZER_FILE, Tokens, TokenSpec
from training.config import Config
from training.dataset import Dataset
from training.run import PUBLISHED
from training.tower import Items

_VECTORS = "vectors.npy"
_IDS = ("labels.ids.utf8.npy", "labels.ids.offsets.npy")
# Beside the towers, where the bundle has them.
_READING = ("known.query.npy", "known.label.npy", PIECES_FILE, VOCABULARY_FILE, TOKENIZER_FILE)


@dataclass(frozen=True, slots=True)
class Published:
    """ids: of the published labels; sums: (labels, dim) float32, their vectors before they are brought to unit length.

    folder: of the bundle, or what a run has kept of it.
    """

    folder: Path
    manifest: Manifest
    ids: list[str]
    sums: NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path) -> Published:
        """Of a bundle, or of a run that kept it: every byte that is used is checked. Raises BundleError naming the
        file that is wrong."""
        manifest = read_manifest(folder)
        try:
            names = [*_IDS, _VECTORS, *_tower_files(folder, "label"), *_reading(manifest)]
            names += _tower_files(folder, "query") if (folder / "query.onnx").is_file() else []
            wanted = {name: manifest.files[name] for name in dict.fromkeys(names)}
        except KeyError as error:
            raise BundleError(f"{folder}: the manifest does not seal {error}; restore the bundle") from error
        verify_files(folder, replace(manifest, files=wanted))
        try:
            ids, sums = list(PackedStrings.open(folder, "labels.ids")), open_array(folder / _VECTORS)
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder}: cannot be opened ({first_line(error)}); restore the bundle") from error
        if sums.shape != (len(ids), manifest.dim):
            raise BundleError(f"{folder}: has {len(ids)} labels and vectors of shape {sums.shape}; restore the bundle")
        return cls(folder, manifest, ids, sums)

    @classmethod
    def current(cls, collection: Path) -> Published:
        """Of the collection's current bundle. Raises BundleError when it has none."""
        check_collection(collection)
        return cls.open(current_bundle(collection))

    @property
    def lexicon(self) -> Lexicon | None:
        """What its features have learned beside numbers."""
        features = self.manifest.features
        bags = features.bags if isinstance(features, TokenSpec) else features
        return Lexicon.open(self.folder, bags.lexicon) if bags is not None and bags.lexicon else None

    def known_labels(self, rows: int) -> NDArray[np.bool_]:
        """Which of so many table rows the label tower knows, (rows,); all of them where the bundle does not say."""
        known = open_known(self.folder, rows, "label")
        return np.ones(rows, dtype=np.bool_) if known is None else known

    def label_sums(self, dataset: Dataset, threads: int = 1) -> NDArray[np.float32]:
        """Vectors (labels, dim) of the dataset's labels before they are brought to unit length.

        Published ones bit for bit, whatever the dataset says of them now; of the others, and of those of which nothing
        was known, what the label tower says of their text and fields, as for a label that is added to the bundle; zero
        where neither says anything.
        """
        places = {label: row for row, label in enumerate(self.ids)}
        rows = np.array([places.get(label, -1) for label in dataset.label_ids], dtype=np.int64)
        sums = np.zeros((len(rows), self.manifest.dim), dtype=np.float32)
        sums[rows >= 0] = self.sums[rows[rows >= 0]]
        fields = dataset.label_fields or [None] * len(rows)
        read = [spec for spec in self.manifest.features.fields if spec.of("label")]
        others, texts, said = list[int](), list[str](), list[Fields | None]()
        for row in np.flatnonzero(~sums.any(axis=1)).tolist():
            found = fields_read(fields[row], read)
            if found or dataset.label_texts[row].strip():
                others.append(row)
                texts.append(dataset.label_texts[row])
                said.append(found)
        if others:
            sums[others] = self._encoder("label", threads).texts(texts, said)
        return sums

    def label_vectors(self, dataset: Dataset, threads: int = 1) -> NDArray[np.float32]:
        """The same at unit length; zeros stay zero."""
        return np.asarray(unit(self.label_sums(dataset, threads)), dtype=np.float32)

    def encode_labels(self, items: Items, threads: int = 1) -> NDArray[np.float32]:
        """Unit vectors (n, dim) of label texts by the published tower."""
        return self._encode("label", items, threads)

    def encode_queries(self, items: Items, threads: int = 1) -> NDArray[np.float32]:
        """Unit vectors (n, dim) of queries by the published tower, which a run may not have kept.

        Of values of fields that its training never met, it reads untrained rows here, which it leaves out when served.
        """
        return self._encode("query", items, threads)

    def keep(self, folder: Path, *, queries: bool) -> None:
        """Copy to a new `folder` what `open` and all this needs; queries: with the query tower.

        Raises LabelspaceError when the folder is there or the disk refuses.
        """
        names = [MANIFEST, SEAL, *_IDS, _VECTORS, *_reading(self.manifest)]
        names += [name for tower in ("label", "query")[: 1 + queries] for name in _tower_files(self.folder, tower)]
        with new_folder(folder) as beside:
            for name in dict.fromkeys(names):
                shutil.copyfile(self.folder / name, beside / name)

    def copy_label_tower(self, folder: Path) -> None:
        """label.onnx and its weights, byte for byte. Raises InputError where another file has the name of one."""
        for name in _tower_files(self.folder, "label"):
            if (folder / name).exists():
                raise InputError(f"{folder / name}: is there already; the published label tower cannot be beside it")
            shutil.copyfile(self.folder / name, folder / name)

    def _encode(self, tower: str, items: Items, threads: int) -> NDArray[np.float32]:
        assert isinstance(items, Bags | Tokens | FieldedTokens)  # noqa: S101 - what an exported tower takes
        return self._encoder(tower, threads).items(items)

    def _encoder(self, tower: str, threads: int) -> Encoder:
        queries, labels = featurizers(self.folder, self.manifest.features, threads=threads)
        return Encoder(self.folder / f"{tower}.onnx", queries if tower == "query" else labels, threads=threads)


def check_bundle(config: Config, published: Published | None) -> None:
    """Raises InputError when these are settings of a run against another bundle, or against any where none is given."""
    given = "" if published is None else published.manifest.bundle
    if config.compatible.bundle != given:
        raise InputError(
            f"compatible.bundle: is {config.compatible.bundle!r}, and the label vectors are those of {given!r}; "
            "leave it to `labelspace train --against`"
        )


def check_query_tower(published: Published, spec: FeatureSpec | TokenSpec, dim: int) -> None:
    """Raises InputError when a query tower of this spec and width cannot be in one bundle with the label tower."""
    manifest = published.manifest
    if spec != manifest.features:
        theirs, own = manifest.features.to_json(), spec.to_json()
        names = sorted(name for name in {*theirs, *own} if theirs.get(name) != own.get(name))
        kind = "transformer" if isinstance(spec, TokenSpec) else "features"
        raise InputError(
            f"{kind}: a bundle has one reading of texts for both towers, and this run's differs from that of bundle "
            f"{manifest.bundle} in {', '.join(names)}; use the same, or train without --against"
        )
    if dim != manifest.dim:
        key = "transformer.projection" if isinstance(spec, TokenSpec) else "tower.dim"
        raise InputError(
            f"{key}: the vectors have {dim} numbers; those of bundle {manifest.bundle} have {manifest.dim}"
        )


def kept_published(run: Path, config: Config) -> Published | None:
    """What the run has kept of the bundle that it is trained against; None for a run that trains its own labels."""
    return Published.open(run / PUBLISHED) if config.compatible.bundle else None


def _reading(manifest: Manifest) -> list[str]:
    return [name for name in _READING if name in manifest.files]


def _tower_files(folder: Path, tower: str) -> list[str]:
    """A tower's graph and the files beside it that hold its weights."""
    path = folder / f"{tower}.onnx"
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise BundleError(f"{path}: not a tower that can be read ({first_line(error)}); restore the bundle") from error
    beside = {entry.value for array in graph.initializer for entry in array.external_data if entry.key == "location"}
    return [path.name, *sorted(beside)]
