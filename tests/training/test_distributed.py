"""Training in several processes: the losses and weights of one, uneven parts, stopping together, a killed process."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index.errors import InputError, LabelspaceError
from tests_support import write_corpus, write_lines
from training.checkpoint import CHECKPOINT, load_checkpoint
from training.config import load_config
from training.dataset import load_dataset
from training.distributed import TIMEOUT, Group, World, joined, placed
from training.dual_encoder import DualEncoder
from training.gradient_cache import chunks_of
from training.run import CONFIG, start_run
from training.trainer import Trainer
from transformer_support import write_model

BASE = ("features.rows=4096", "features.ngrams=[3]", "tower.dim=16", "tower.hidden=16", "training.threads=1",
        "training.batch=9", "training.dev_share=0.2", "training.epochs=2", "negatives.sampled=5", "negatives.mined=2",
        "negatives.hardest=7", "negatives.refresh=3", "negatives.cluster_start=3", "negatives.cluster_end=5",
        "training.feature_dropout=0", "training.warmup_steps=2")  # fmt: skip
# Dropout of labels' parts, mixtures and drawn labels are the same however many processes there are.
CASES = {
    "uniform": ("negatives.log_weight=true",),
    "in_batch": ("negatives.kind=in_batch", "training.clip=0.1"),
    "all": ("negatives.kind=all",),
    "cached": ("negatives.kind=cached",),
    "cached, soft top-k": ("negatives.kind=cached", "loss.name=soft_top_k"),
    "clustered": ("negatives.kind=clustered",),
    "mined": ("negatives.kind=mined",),
    "centroid": ("label.centroid=true",),
    "soft top-k": ("loss.name=soft_top_k",),
    "sigmoid": ("loss.name=sigmoid",),
    "mixup": ("loss.mixup=0.5", "label.centroid=true", "negatives.log_weight=true"),
    "mixup of prefixes": ("loss.mixup=1.0", "loss.prefixes=[4, 8]"),
    "chunks": ("training.chunk=5", "label.centroid=true"),
    "two towers": ("tower.shared=false", "tower.hidden=0"),
    "transformer": ("tower.kind=transformer", "transformer.device=cpu", "transformer.rate=0.001"),
    "two transformers": ("tower.kind=transformer", "transformer.device=cpu", "tower.shared=false", "training.chunk=4"),
    "fields": ('features.fields=["kind"]',),
    "separate": ("features.separate=true", "tower.row=4", "features.probes=2"),
    "separate, in chunks": ("features.separate=true", "tower.row=4", "training.chunk=5", "tower.shared=false"),
    "history": ('features.fields={kind={kind="history", top=2}}', "training.clip=0.1"),
    "separate, history": (
        "features.separate=true",
        "tower.row=4",
        'features.fields={kind={kind="history", top=1, tower="query"}}',
    ),
    "transformer with fields": (
        "tower.kind=transformer",
        "transformer.device=cpu",
        "transformer.rate=0.001",
        "training.clip=1",
        'features.fields=["kind"]',
    ),
    "fewer queries than processes": ("training.batch=1", "negatives.sampled=1"),
    "fewer queries, in chunks": ("training.batch=2", "negatives.sampled=0", "training.chunk=1", "loss.mixup=0.5"),
}
STEPS = 10

Curve = tuple[list[float], str, dict[str, float]]
"""Losses of ten steps, a checksum of all the state after them, and figures on dev."""


def settings_of(case: str, corpus: Path) -> list[str]:
    model = (
        f"transformer.model={corpus.parent / 'model'}",
        "transformer.query_tokens=32",
        "transformer.label_tokens=16",
    )
    return [*BASE, *CASES[case], *model]


def curve(corpus: Path, case: str, world: World | None = None) -> Curve:
    config = load_config(None, settings_of(case, corpus))
    trainer = Trainer(load_dataset(corpus, config), config, world=world)
    losses: list[float] = []
    epoch = 0
    while len(losses) < STEPS:
        trainer.order = trainer.batches.order(epoch, trainer._clusters())
        for batch in trainer.batches.epoch(epoch, trainer.order):
            losses.append(trainer.step(batch))
            if len(losses) == STEPS:
                break
        epoch += 1
    digest = hashlib.sha256()
    for _, tensor in sorted((trainer.model.tensors() | trainer.negatives.tensors()).items()):
        digest.update(tensor.contiguous().numpy().tobytes())
    return losses, digest.hexdigest(), trainer.dev_figures()


def work(task: str, corpus: Path, out: Path) -> None:
    """What one of the processes does."""
    torch.set_num_threads(1)
    if task == "curves":
        with joined() as world:
            results: dict[str, Any] = {case: curve(corpus, case, world) for case in CASES}
            config = load_config(None, [*BASE, "training.epochs=400"])
            dataset = load_dataset(corpus, config)
            trainer = Trainer(dataset, config, world=world, time_limit=1.5)
            trainer.train(out / "limited")
            results["limited"] = [trainer.position.epoch, trainer.position.seconds]
            (out / f"curves{world.rank}.json").write_text(json.dumps(results))
        return
    config = load_config(None, [*BASE, "training.epochs=400"])
    dataset = load_dataset(corpus, config)
    try:
        with joined() as world:
            trainer = Trainer(dataset, config, world=world)
            if task == "resume":
                trainer.resume(out)
            elif world.first:
                start_run(out, corpus, dataset, config)
            trainer.train(out)
    except LabelspaceError as error:
        sys.stderr.write(f"labelspace: {error}\n")
        sys.exit(error.exit_code)


def start(task: str, corpus: Path, out: Path, size: int = 2) -> list[subprocess.Popen[str]]:
    """Processes as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).parents[2]
    shared = os.environ | {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", TIMEOUT: "60",
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, __file__, task, str(corpus), str(out)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and standard error of each."""
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, lines) for process, lines in zip(processes, said, strict=True)]


def until(there: Path) -> None:
    deadline = time.monotonic() + 90
    while not there.exists():
        assert time.monotonic() < deadline, f"{there} did not come"
        time.sleep(0.05)


def until_changed(path: Path, marked: int) -> None:
    deadline = time.monotonic() + 90
    while path.stat().st_mtime_ns == marked:
        assert time.monotonic() < deadline, f"{path} did not change"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    write_model(folder / "model", dropout=0.0)
    corpus = write_corpus(folder / "corpus", train=200, test=5)
    path = corpus / "train.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    write_lines(path, [{**row, "fields": {"kind": place % 7}} if place % 3 else row for place, row in enumerate(rows)])
    return corpus


@dataclass(frozen=True, slots=True)
class Found:
    """What the two processes of the task "curves" have left: by rank, the curves by case, and what they have said."""

    folder: Path
    results: list[dict[str, Any]]
    said: list[str]


@pytest.fixture(scope="module")
def found(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    out = tmp_path_factory.mktemp("curves")
    processes = ended(start("curves", corpus, out))
    for code, said in processes:
        assert code == 0, said
    results = [json.loads((out / f"curves{rank}.json").read_text()) for rank in range(2)]
    return Found(out, results, [said for _, said in processes])


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_losses_of_one_and_equal_weights(corpus: Path, found: Found, case: str) -> None:
    losses, _, dev = curve(corpus, case)
    assert len(losses) == STEPS
    for result in found.results:
        assert result[case][0] == pytest.approx(losses, rel=1e-5, abs=1e-5)
        assert result[case][1] == found.results[0][case][1]
        assert result[case][2] == pytest.approx(dev)


def test_the_first_process_decides_when_time_is_up_and_alone_speaks(found: Found) -> None:
    epochs, seconds = found.results[0]["limited"]
    assert found.results[1]["limited"] == [epochs, seconds]
    assert 1 <= epochs < 400 and 1.5 <= seconds < 10
    assert "epoch 1: loss" in found.said[0]
    assert "epoch" not in found.said[1]
    _, position = load_checkpoint(found.folder / "limited")
    assert [position.epoch, position.seconds] == [epochs, seconds]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_cover_everything_once_and_differ_by_one_at_most(size: int) -> None:
    for count in (0, 1, 2, 6, 7, 8, 1000):
        parts = [Group(rank, size).part(count) for rank in range(size)]
        assert np.concatenate([np.arange(count)[part] for part in parts]).tolist() == list(range(count))
        lengths = [part.stop - part.start for part in parts]
        assert max(lengths) - min(lengths) <= 1
        assert [Group(0, size).part(count, rank) for rank in range(size)] == parts


def test_chance_is_each_processs_own_and_moves_on_alike(corpus: Path) -> None:
    for settings in ((), ("training.chunk=4",), ("tower.shared=false",)):
        config = load_config(None, [*BASE, *settings, "training.feature_dropout=0.5"])
        dataset = load_dataset(corpus, config)
        model, chunk = DualEncoder(config, dataset), config.training.chunk
        texts = dataset.queries.take(np.arange(9)), dataset.labels
        alone = np.random.default_rng(3)
        assert model.own_chance(World(), *texts, chunk, alone) is alone
        if chunk:
            for tower, side in zip((model.queries, model.labels), texts, strict=True):
                for part in chunks_of(side, chunk):
                    tower.batch(part, alone)
        else:
            model.batch(*texts, alone)
        after = alone.random(3).tolist()
        draws = []
        for rank in range(2):
            random = np.random.default_rng(3)
            draws.append(model.own_chance(Group(rank, 2), *texts, chunk, random).random())
            assert random.random(3).tolist() == after
        assert draws[0] != draws[1]


def test_a_killed_process_ends_the_others_with_one_line_and_the_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = start("endless", corpus, run)
    until(run / CHECKPOINT)
    processes[1].kill()
    (code, said), (killed, _) = ended(processes)
    assert (code, killed) == (1, -signal.SIGKILL)
    assert said.splitlines()[-1] == (
        f"labelspace: a training process has gone (rank 1); the checkpoint in {run} is whole; "
        "go on with the same command and --resume"
    )
    assert "Traceback" not in said
    _, before = load_checkpoint(run)
    assert 1 <= before.epoch < 400
    config = load_config(run / CONFIG)
    one = Trainer(load_dataset(corpus, config), config)
    one.resume(run)
    assert one.position == before
    batch = next(one.batches.epoch(before.epoch, one.batches.order(before.epoch)))
    assert np.isfinite(one.step(batch))
    # Two again; a signal to one of them stops both after the same step.
    processes = start("resume", corpus, run)
    marked = (run / CHECKPOINT).stat().st_mtime_ns
    until_changed(run / CHECKPOINT, marked)
    processes[1].send_signal(signal.SIGTERM)
    lines = [said.splitlines()[-1] for code, said in ended(processes) if code == 1]
    assert len(lines) == 2 and lines[0] == lines[1]
    assert lines[0].startswith("labelspace: stopped after step ")
    _, after = load_checkpoint(run)
    assert (after.epoch, after.step) > (before.epoch, before.step)
    assert f"stopped after step {after.step} of epoch {after.epoch + 1};" in lines[0]


def test_one_process_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (None, "1"):
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        with joined() as world:
            assert (world.rank, world.size, world.first) == (0, 1, True)
            world.wait()


def test_an_environment_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start them with torchrun"), joined():
        pass
    monkeypatch.setenv(TIMEOUT, "soon")
    with pytest.raises(InputError, match=TIMEOUT), joined():
        pass


def test_others_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), TIMEOUT: "1"}
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LabelspaceError, match="the other training processes were not reached"), joined():
        pass


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(None, ["tower.kind=transformer"])
    unified = load_config(None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed(config, Group(3, 4)).transformer.device == "cuda:3"
    assert placed(config, World()) == config
    assert placed(unified, Group(3, 4)) == unified
    fixed = load_config(None, ["tower.kind=transformer", "transformer.device=cpu"])
    assert placed(fixed, Group(3, 4)) == fixed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placed(config, Group(3, 4)) == config


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
