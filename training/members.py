"""The trained models of a run, one or several from different seeds, as one model to export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.errors import BundleError, InputError
from index.features import FeatureSpec
from index.label_vector import unit
from index.tokens import TokenSpec
from training.checkpoint import load_best
from training.config import Config, load_config
from training.dataset import Dataset
from training.dual_encoder import DualEncoder
from training.onnx_graph import write_towers
from training.onnx_table import FP32, TABLE_FILE
from training.published import Published, kept_published
from training.run import CONFIG
from training.tower import Items, Tower
from training.unified_tower import UnifiedTower


def member_runs(run: Path) -> list[Path]:
    """The run itself, or the runs of several seeds inside it, in order."""
    seeds = [path for path in run.glob("seed-*") if path.name.removeprefix("seed-").isdecimal()]
    inside = sorted(seeds, key=lambda path: int(path.name.removeprefix("seed-")))
    return inside if inside and not (run / CONFIG).exists() else [run]


def touched_in(tensors: Mapping[str, Tensor], tower: str) -> NDArray[np.bool_] | None:
    """Which rows of a tower's table its training has moved, they or their gates or their part in attention, (rows,).

    None without a table. tower: as the checkpoint names it.
    """
    sums = [value for name, value in tensors.items() if name.startswith(f"{tower}.adagrad.")]
    # A tower without histories has an attention table of no rows.
    moved = [value > 0 for value in sums if len(value)]
    touched: NDArray[np.bool_] | None = torch.stack(moved).any(dim=0).cpu().numpy() if moved else None
    return touched


def touched_rows(runs: Sequence[Path]) -> dict[str, NDArray[np.bool_]]:
    """Which table rows the training of all these runs has touched, (rows,), by tower: "query" and "label".

    Of a run against published label vectors, those of the label tower that made them.

    Raises BundleError when a run has no checkpoint or none of a unified tower.
    """
    found: dict[str, list[NDArray[np.bool_]]] = {"query": [], "label": []}
    for run in runs:
        sums = load_best(run, ".adagrad.")[0]
        config = load_config(run / CONFIG)
        published = kept_published(run, config)
        for side, of_runs in found.items():
            touched = touched_in(sums, side)
            touched = touched_in(sums, "tower") if touched is None else touched
            if published is not None and side == "label":
                touched = published.known_labels(config.features.rows)
            if touched is None:
                raise BundleError(f"{run}: the checkpoint has no table of the {side} tower; train the run again")
            of_runs.append(touched)
    return {side: np.logical_and.reduce(of_runs) for side, of_runs in found.items()}


@dataclass(frozen=True)
class Members:
    """Models of equal settings but their seeds (Rich representations by concatenation, RRL, ICML 2023).

    Their vectors stand side by side at length 1/√n each, so that an inner product is the mean of the members' cosines.
    width: leading dimensions that are kept of each (nested prefixes). published: the label side of a run against a
    bundle, with what it makes of the labels of the run's corpus, (labels, dim); else None.
    """

    config: Config
    models: Sequence[DualEncoder]
    width: int
    model_id: str
    published: tuple[Published, NDArray[np.float32]] | None = None

    @classmethod
    def load(cls, run: Path, dataset: Dataset, width: int | None, report: Callable[[str], None]) -> Members:
        """The best checkpoint of every member. Raises InputError for a width that the models have not."""
        runs = member_runs(run)
        config = load_config(runs[0] / CONFIG)
        digest = hashlib.sha256()
        published = _published_side(runs[0], config, dataset)
        models = []
        for member in runs:
            settings = load_config(member / CONFIG)
            # In full precision, as the exported towers are.
            exact = replace(settings, transformer=replace(settings.transformer, bf16=False))
            model = DualEncoder(exact, dataset, None if published is None else published[1])
            tensors, position = load_best(member)
            epochs = config.training.epochs
            report(f"{member}: epoch {len(position.curve)} of {epochs}, the best by dev of those trained so far")
            model.load(tensors)
            models.append(model)
            for name in sorted(tensors):
                if (
                    not name.startswith(("order", "negatives", "loss"))
                    and ".adam" not in name
                    and "adagrad" not in name
                ):
                    digest.update(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        dim = models[0].queries.dim
        if width is not None and not 0 < width <= dim:
            raise InputError(f"--dim {width}: the run's vectors have {dim} dimensions; give 1 to {dim}")
        if published is not None:
            if width not in (None, dim):
                raise InputError(f"--dim {width}: the published label vectors have {dim} dimensions; leave it out")
            digest.update(published[0].manifest.model.encode() + published[1].tobytes())
        digest.update(json.dumps([models[0].queries.spec.to_json(), width]).encode())
        return cls(config, models, width or dim, digest.hexdigest()[:16], published)

    @property
    def dim(self) -> int:
        return self.width * len(self.models)

    @property
    def spec(self) -> FeatureSpec | TokenSpec:
        """What makes the towers' input of a text."""
        spec: FeatureSpec | TokenSpec = self.models[0].queries.spec
        return spec

    def encode_queries(self, items: Items) -> NDArray[np.float32]:
        """Unit vectors (n, dim)."""
        return self._beside([model.queries.encode(items) for model in self.models])

    def encode_labels(self, items: Items) -> NDArray[np.float32]:
        """Unit vectors (n, dim) of label texts alone."""
        if self.published is not None:
            return self.published[0].encode_labels(items, self.config.training.threads)
        return self._beside([model.labels.encode(items) for model in self.models])

    def label_sums(self, labels: Items, nothing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Label vectors (labels, dim) before they are brought to unit length; each member's text part is 1/√n long.

        nothing: (labels,), of which labels not even the text is known: these rows hold what training gave them alone.
        Published ones are as they were published, bit for bit.
        """
        if self.published is not None:
            return self.published[1]
        sums = []
        for model in self.models:
            texts = model.labels.encode(labels)
            length = torch.linalg.vector_norm(texts[:, : self.width], dim=1, keepdim=True)
            length[length == 0] = 1.0  # an empty text may be nothing: what training gave stays as it is
            texts[torch.from_numpy(nothing)] = 0.0
            sums.append(model.label_sums(texts)[:, : self.width] / length)
        joined = torch.cat(sums, dim=1).cpu().numpy() / np.sqrt(len(self.models))
        return np.asarray(joined, dtype=np.float32)

    def write_towers(self, folder: Path, precision: str = FP32) -> None:
        """query.onnx, label.onnx and the weights beside them; precision: of the tables (training.onnx_table).

        The tower of published labels is copied as it is.
        """
        queries, labels = [model.queries for model in self.models], [model.labels for model in self.models]
        if self.published is not None:
            self._write(folder, ("query",), queries, f"query.{TABLE_FILE}", precision)
            self.published[0].copy_label_tower(folder)
        elif self.config.tower.shared:
            self._write(folder, ("query", "label"), queries, TABLE_FILE, precision)
        else:
            self._write(folder, ("query",), queries, f"query.{TABLE_FILE}", precision)
            self._write(folder, ("label",), labels, f"label.{TABLE_FILE}", precision)

    def _write(self, folder: Path, names: tuple[str, ...], towers: Sequence[Tower], table: str, precision: str) -> None:
        unified = [tower.parts() for tower in towers if isinstance(tower, UnifiedTower)]
        if unified:
            write_towers(folder, names, unified, self.width, table=table, precision=precision)
            return
        if precision != FP32:
            raise InputError(f"precision {precision}: is of the table of a unified tower; this run's are transformers")
        from training.transformer import TransformerTower, export_transformers  # heavy: only where it is needed

        others = [tower for tower in towers if isinstance(tower, TransformerTower)]
        export_transformers(folder, names, others, self.width)

    def _beside(self, vectors: list[Tensor]) -> NDArray[np.float32]:
        cut = [unit(part[:, : self.width]) for part in vectors]
        return np.asarray(torch.cat(cut, dim=1).cpu().numpy() / np.sqrt(len(cut)), dtype=np.float32)


def _published_side(run: Path, config: Config, dataset: Dataset) -> tuple[Published, NDArray[np.float32]] | None:
    published = kept_published(run, config)
    return None if published is None else (published, published.label_sums(dataset, config.training.threads))
