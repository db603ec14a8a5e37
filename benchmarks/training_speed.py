"""How many query–label pairs a second the unified tower trains on one core, and what bounds it.

    python benchmarks/training_speed.py CORPUS [--set KEY=VALUE]… [--repeats 3]

A corpus of short texts is meant. Each repeat is a process of its own, held to one core with one thread: it reads and
featurises the corpus, then trains. One more runs under Python's profiler, whose figures show where time goes and are
slower in all. A pair is one label of one training query in one epoch. Writes benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from index.files import write_json
from machine import RESULTS, describe

WANTED, AIM = 5_000, 10_000
TOP = 20
_OURS = ("training", "index")
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def train_once(corpus: Path, settings: list[str], *, profile: bool) -> dict[str, Any]:
    """Read, featurise and train in this process; seconds of each part, and the profile's top where it is asked for."""
    began = time.perf_counter()
    from training.config import load_config
    from training.dataset import load_dataset
    from training.run import start_run
    from training.trainer import Trainer

    imported = time.perf_counter()
    config = load_config(None, [*settings, "training.threads=1"])
    profiler = cProfile.Profile()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if profile:
            profiler.enable()
        start = time.perf_counter()
        dataset = load_dataset(corpus, config)
        loaded = time.perf_counter()
        start_run(run, corpus, dataset, config)
        trainer = Trainer(dataset, config)
        built = time.perf_counter()
        trainer.train(run)
        trained = time.perf_counter()
        profiler.disable()
    epochs = config.training.epochs
    return {
        "queries": epochs * dataset.relevance.shape[0],
        "pairs": epochs * int(dataset.relevance.nnz),
        "labels": len(dataset.label_ids),
        "epochs": epochs,
        "seconds": {
            "import": imported - began,
            "load": loaded - start,
            "build": built - loaded,
            "train": trained - built,
        },
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        **(profile_of(profiler) if profile else {}),
    }


def profile_of(profiler: cProfile.Profile, count: int = TOP) -> dict[str, list[dict[str, Any]]]:
    """ "own time": the functions of any code with the most time of their own; "parts": ours with the most in all."""
    # What it keeps is not in the type: {(file, line, name): (_, calls, own seconds, seconds with callees, _)}.
    found: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = vars(pstats.Stats(profiler))["stats"]
    whole = sum(entry[2] for entry in found.values()) or 1.0
    entries: list[dict[str, Any]] = [
        {
            "function": name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}:{line} {name}",
            "calls": calls,
            "own_seconds": round(own, 3),
            "seconds": round(cumulative, 3),
            "own_percent": round(100 * own / whole, 1),
            "ours": Path(file).parent.name in _OURS and "site-packages" not in file,
        }
        for (file, line, name), (_, calls, own, cumulative, _) in found.items()
    ]
    ours = [entry for entry in entries if entry.pop("ours")]
    return {
        "own time": sorted(entries, key=lambda entry: -entry["own_seconds"])[:count],
        "parts": sorted(ours, key=lambda entry: -entry["seconds"])[:count],
    }


def rates(child: dict[str, Any]) -> dict[str, float]:
    """Pairs and queries a second: of training alone, with reading and featurising, and of the whole process.

    The last has Python's imports and the drawing of the first weights in it, which do not grow with the corpus.
    """
    seconds = child["seconds"]
    spans = {
        "training alone": seconds["train"],
        "loading included": seconds["load"] + seconds["train"],
        "whole process": sum(seconds.values()),
    }
    return {
        f"{what} a second, {name}": round(child[what] / span, 1)
        for name, span in spans.items()
        for what in ("pairs", "queries")
    }


def _in_process(corpus: Path, settings: list[str], *, profile: bool) -> dict[str, Any]:
    core = str(min(os.sched_getaffinity(0)))
    with tempfile.NamedTemporaryFile(mode="r") as out:
        command = [sys.executable, __file__, str(corpus), *(f"--set={setting}" for setting in settings)]
        command += ["--here", out.name, "--core", core, *(["--profile"] if profile else [])]
        environment = {**os.environ, **dict.fromkeys(_VARIABLES, "1")}
        if subprocess.run(command, env=environment, check=False).returncode:
            sys.exit("the training failed; see above")
        values: dict[str, Any] = json.load(out)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "training_speed.json")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--profile", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here is not None:
        os.sched_setaffinity(0, {arguments.core})
        values = train_once(arguments.corpus, arguments.settings, profile=arguments.profile)
        arguments.here.write_text(json.dumps(values))
        return
    children = [_in_process(arguments.corpus, arguments.settings, profile=False) for _ in range(arguments.repeats)]
    found = [rates(child) for child in children]
    profiled = _in_process(arguments.corpus, arguments.settings, profile=True)
    middle = {name: statistics.median(rate[name] for rate in found) for name in found[0]}
    result = {
        "machine": describe(),
        "corpus": arguments.corpus.resolve().name,
        "settings": arguments.settings,
        "wanted pairs a second": WANTED,
        "aim": AIM,
        "median": middle,
        "repeats": children,
        "profile": {key: profiled[key] for key in ("seconds", "own time", "parts")},
    }
    write_json(arguments.out, result)
    for name, rate in middle.items():
        print(f"{rate:10,.0f}  {name}")
    for entry in profiled["own time"]:
        print(f"{entry['own_percent']:5.1f} %  {entry['own_seconds']:7.2f} s  {entry['calls']:8}  {entry['function']}")
    print("with callees, ours:")
    for entry in profiled["parts"]:
        print(f"{entry['seconds']:16.2f} s  {entry['calls']:8}  {entry['function']}")
    reached = middle["pairs a second, loading included"]
    print(f"wanted {WANTED}, aim {AIM}: {'ok' if reached >= WANTED else 'SHORT'}")


if __name__ == "__main__":
    main()
