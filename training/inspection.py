"""`labelspace inspect` of a run: how far it is, and how its table and its readers stand up to the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.features import FeatureSpec
from training.checkpoint import load_best, load_checkpoint
from training.config import Config, load_config
from training.corpus import Split, hold_out, load_corpus, split_path
from training.dataset import HELD_BY
from training.feature_fitting import Records, of_tower
from training.members import touched_in
from training.run import CONFIG, begun_from, corpus_of, run_lexicon
from training.table_values import Sharing, TableValues, Unmet
from training.trainer import best_point
from training.warm_start import earlier_runs

_WORST = 5


@dataclass(frozen=True, slots=True)
class TableHealth:
    """A table of one training. touched: share of the rows that it has moved. gate, gate_spread: mean and standard
    deviation of these rows' gates, whose e^gate a row is multiplied by. bytes: with gates, in training's float32."""

    tower: str
    rows: int
    width: int
    bytes: int
    touched: float
    gate: float
    gate_spread: float


@dataclass(frozen=True, slots=True)
class ReaderHealth:
    """How much the readers A, B of any two slots overlap: ‖A Bᵀ‖ / (‖A‖ ‖B‖), Frobenius norms.

    What two slots write into a row that they share is kept apart by orthogonal readers (0). chance: what readers drawn
    at random have. worst: the pairs that overlap most, most first.
    """

    tower: str
    mean: float
    chance: float
    worst: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """One training of a run, that of one seed. epochs: trained so far. best: epoch of the model that is exported, with
    dev, its figures in percent. parameters: numbers in all weights, without the labels' free vectors."""

    run: str
    seed: int
    epochs: int
    of_epochs: int
    seconds: float
    best: int
    dev: Mapping[str, float]
    parameters: int
    tables: tuple[TableHealth, ...]
    readers: tuple[ReaderHealth, ...]


@dataclass(frozen=True, slots=True)
class TableUse:
    """What the corpus asks of one table: of each namespace that has values in train, and last of all.

    unmet: look-ups of dev by name of the namespace; empty for a table of labels alone.
    """

    tower: str
    sharing: tuple[Sharing, ...]
    unmet: Mapping[str, Unmet]


@dataclass(frozen=True, slots=True)
class RunInspection:
    """corpus: the folder that `tables` are about; None where it is not there any more, and `tables` are empty."""

    run: str
    begun_from: str | None
    settings: Mapping[str, Any]
    labels: int
    members: tuple[MemberHealth, ...]
    corpus: str | None
    tables: tuple[TableUse, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "run", **asdict(self)}


def inspect_run(run: Path, corpus: Path | None = None) -> RunInspection:
    """Look at a run; corpus: the one to compare its table with, None for its own.

    Raises InputError when there is no run or the corpus given cannot be read, BundleError when a checkpoint is missing
    or damaged.
    """
    runs = earlier_runs(run)
    config = load_config(runs[0] / CONFIG)
    members, touched, labels = [], dict[str, list[NDArray[np.bool_]]](), 0
    for member in runs:
        tensors, _ = load_best(member)
        labels = len(tensors["free"])
        members.append(_member(member, load_config(member / CONFIG), tensors))
        for tower in _towers(config):
            rows = touched_in(tensors, tower)
            if rows is not None:
                touched.setdefault(tower, []).append(rows)
    folder = corpus or corpus_of(runs[0])
    there = corpus is not None or folder.is_dir()
    begun = begun_from(runs[0])
    return RunInspection(
        str(run),
        None if begun is None else str(begun),
        _settings(config),
        labels,
        tuple(members),
        str(folder) if there else None,
        _uses(config, folder, runs[0], touched) if there and touched else (),
    )


def _towers(config: Config) -> tuple[str, ...]:
    """As training.dual_encoder names them in a checkpoint."""
    return ("tower",) if config.tower.shared else ("query", "label")


def _settings(config: Config) -> dict[str, Any]:
    """Those that a reader wants to see first."""
    spec = config.features
    found: dict[str, Any] = {"kind": config.tower.kind, "shared": config.tower.shared, "loss": config.loss.name}
    found |= {"negatives": config.negatives.kind, "batch": config.training.batch}
    if config.tower.kind == "transformer":
        found |= {"model": config.transformer.model, "lora_rank": config.transformer.lora_rank}
    else:
        found |= {"dim": config.tower.dim, "hidden": config.tower.hidden}
        if spec.separate:
            found["row"] = config.tower.row
    features = {name: value for name, value in spec.to_json().items() if name not in ("parts", "version", "lexicon")}
    features["fields"] = {field.name: field.kind for field in spec.fields}
    return {**found, "features": features}


def _member(run: Path, config: Config, tensors: Mapping[str, Tensor]) -> MemberHealth:
    position = load_checkpoint(run)[1]
    best = best_point(position.curve)
    weights = [value for name, value in tensors.items() if name.partition(".")[2].startswith("weight.")]
    tables = [table_health(tensors, tower) for tower in _towers(config)]
    readers = [reader_health(tensors, tower, config) for tower in _towers(config)]
    return MemberHealth(
        str(run),
        config.training.seed,
        len(position.curve),
        config.training.epochs,
        position.seconds,
        0 if best is None else best.epoch + 1,
        {} if best is None else best.dev,
        sum(value.numel() for value in weights),
        tuple(table for table in tables if table is not None),
        tuple(reader for reader in readers if reader is not None),
    )


def _table_name(tensors: Mapping[str, Tensor], tower: str) -> str | None:
    """The prefix of a tower's table; a transformer has one for its fields, or none."""
    names = (f"{tower}.{{}}.table", f"{tower}.{{}}.fields.table")
    return next((name.removesuffix("table") for name in names if name.format("weight") in tensors), None)


def table_health(tensors: Mapping[str, Tensor], tower: str) -> TableHealth | None:
    """Of a checkpoint's tower; None where it has no table."""
    prefix, touched = _table_name(tensors, tower), touched_in(tensors, tower)
    if prefix is None or touched is None:
        return None
    weights = prefix.format("weight")
    table, gates = tensors[f"{weights}table"], tensors[f"{weights}gates"]
    moved = gates[torch.from_numpy(touched)].double()
    size = sum(4 * tensors[name].numel() for name in (f"{weights}{one}" for one in _PARTS) if name in tensors)
    return TableHealth(
        tower,
        len(table),
        table.shape[1],
        size,
        float(touched.mean()),
        float(moved.mean()) if len(moved) else 0.0,
        float(moved.std(correction=0)) if len(moved) else 0.0,
    )


_PARTS = ("table", "gates", "attention")


def reader_health(tensors: Mapping[str, Tensor], tower: str, config: Config) -> ReaderHealth | None:
    """Of a checkpoint's tower; None where it has no readers, or only one."""
    prefix = f"{tower}.weight.reader."
    weight = next((value for name, value in tensors.items() if name.startswith(prefix) and value.dim() == 2), None)
    if weight is None:
        return None
    names = reader_names(config.features)
    overlap = reader_overlap(weight.double().numpy(), len(names))
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return None
    values = np.array([overlap[pair] for pair in pairs])
    worst = [pairs[place] for place in np.argsort(-values, kind="stable")[:_WORST]]
    return ReaderHealth(
        tower,
        float(values.mean()),
        float(1 / np.sqrt(weight.shape[1] // len(names))),
        tuple((names[one], names[other], float(overlap[one, other])) for one, other in worst),
    )


def reader_names(spec: FeatureSpec) -> list[str]:
    """Of the slots, and after them of the history fields, in the order of the reader's columns."""
    return [*spec.slot_names, *(f"field:{field.name}" for field in spec.fields if field.kind == "history")]


def reader_overlap(weight: NDArray[np.float64], slots: int) -> NDArray[np.float64]:
    """‖A Bᵀ‖ / (‖A‖ ‖B‖) of the column blocks of weight (dim, slots * row), (slots, slots); 0 for a block of zeros.

    ‖A Bᵀ‖² is the inner product of Aᵀ A and Bᵀ B, which are only as wide as a row.
    """
    blocks = weight.reshape(len(weight), slots, -1).transpose(1, 2, 0)  # (slots, row, dim)
    grams = (blocks @ blocks.transpose(0, 2, 1)).reshape(slots, -1)
    squares = np.maximum(grams @ grams.T, 0.0)
    norms = np.square(blocks).sum(axis=(1, 2))
    return np.sqrt(squares / np.maximum(np.outer(norms, norms), np.finfo(np.float64).tiny))


def _uses(
    config: Config, folder: Path, run: Path, touched: Mapping[str, Sequence[NDArray[np.bool_]]]
) -> tuple[TableUse, ...]:
    values = TableValues(config.features, run_lexicon(run, config))
    queries, labels, dev = _parts(config, folder)
    found = []
    for tower, rows in touched.items():
        parts = [
            (side, records) for side, records in (("query", queries), ("label", labels)) if tower in (side, "tower")
        ]
        sharing = values.sharing(values.distinct(parts))
        unmet = {}
        if tower != "label":
            names = [*config.features.namespaces, "all"]
            unmet = dict(zip(names, values.unmet([("query", dev)], rows), strict=True))
        found.append(TableUse(tower, tuple(sharing), {name: one for name, one in unmet.items() if one.look_ups}))
    return tuple(found)


def _parts(config: Config, folder: Path) -> tuple[Records, Records, Records]:
    """Training queries, labels, and dev queries, with what a table is asked for: of a transformer, the fields alone."""
    specs = config.features.fields
    names = ["train", "dev"] if split_path(folder, "dev") else ["train"]
    corpus = load_corpus(folder, names, specs)
    train = corpus.splits["train"]
    if "dev" in corpus.splits:
        queries, dev = Records(train.texts, train.fields), corpus.splits["dev"]
        held = Records(dev.texts, dev.fields)
    else:
        queries, held = (_some(train, rows) for rows in hold_out(train, config.training.dev_share, HELD_BY))
    if config.label.text_queries:
        fields = None if queries.fields is None else [*queries.fields, *[None] * len(corpus.label_texts)]
        queries = Records([*queries.texts, *corpus.label_texts], fields)
    parts = []
    for tower, part in (
        ("query", queries),
        ("label", Records(corpus.label_texts, corpus.label_fields)),
        ("query", held),
    ):
        texts = part.texts if config.tower.kind == "unified" else [""] * len(part.texts)
        parts.append(Records(texts, of_tower(part.fields, specs, tower)))
    return parts[0], parts[1], parts[2]


def _some(split: Split, rows: NDArray[np.int64]) -> Records:
    fields = None if split.fields is None else [split.fields[row] for row in rows]
    return Records([split.texts[row] for row in rows], fields)
