"""How fast exported unified towers make unit vectors of features, on one thread: form by form, precision by precision.

    python benchmarks/towers.py

Texts are generated, weights are random: neither changes the speed. Features are made before the clock starts. Writes
benchmarks/results/towers.json.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featurizing import generated_texts
from index.encoder import Encoder
from index.features import FeatureSpec, Featurizer
from index.files import write_json
from machine import RESULTS, describe
from training.config import Config, TowerConfig
from training.onnx_graph import write_towers
from training.onnx_table import FP32, PRECISIONS
from training.unified_tower import UnifiedTower

FORMS = {
    "one bag": Config(),
    "separate, 1 probe": Config(features=FeatureSpec(separate=True), tower=TowerConfig(row=32)),
    "separate, 2 probes": Config(features=FeatureSpec(separate=True, probes=2), tower=TowerConfig(row=32)),
}
_TEXTS = 8_000
_SINGLE = 500
_REPEATS = 5


def measure(config: Config, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """By precision: bytes of the table file, how far its vectors are off those of float32, and the two speeds."""
    tower = UnifiedTower(config, 0)
    generator = torch.Generator().manual_seed(0)
    tower.dense.head.narrow.weight.data.normal_(0.0, 0.02, generator=generator)
    bags = Featurizer(config.features)(texts)
    alone = [bags.take(np.array([text])) for text in range(_SINGLE)]
    found: dict[str, dict[str, float]] = {}
    exact: NDArray[np.float32] = np.zeros((len(texts), tower.dim), dtype=np.float32)
    for precision in PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            write_towers(Path(folder), ("query",), [tower.parts()], tower.dim, precision=precision)
            encoder = Encoder(Path(folder) / "query.onnx", Featurizer(config.features))
            vectors = encoder.items(bags)
            exact = vectors if precision == FP32 else exact
            bulk = min(_seconds(encoder, [bags])[0] for _ in range(_REPEATS))
            single = np.concatenate([_seconds(encoder, alone) for _ in range(_REPEATS)])
            found[precision] = {
                "table_mb": round((Path(folder) / "table.bin").stat().st_size / 1e6, 1),
                "largest_difference": float(np.abs(vectors - exact).max()),
                "texts_per_second": round(len(texts) / bulk),
                "single_p50_us": round(float(np.quantile(single, 0.5)) * 1e6, 1),
                "single_p99_us": round(float(np.quantile(single, 0.99)) * 1e6, 1),
            }
    return found


def _seconds(encoder: Encoder, items: Sequence[Any]) -> list[float]:
    taken = []
    for one in items:
        began = time.perf_counter()
        encoder.items(one)
        taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    torch.set_num_threads(1)
    texts = generated_texts(_TEXTS, np.random.default_rng(0))
    lengths = Featurizer(FeatureSpec())(texts).lengths
    results: dict[str, Any] = {"texts": len(texts), "features_per_text": round(float(lengths.mean()), 1)}
    for name, config in FORMS.items():
        results[name] = measure(config, texts)
        for precision, figures in results[name].items():
            print(f"{name}, {precision}: {figures}", flush=True)
    write_json(RESULTS / "towers.json", {"machine": describe(), **results})


if __name__ == "__main__":
    main()
