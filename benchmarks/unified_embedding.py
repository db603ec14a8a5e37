"""Accuracy against table size: one table for all features beside a table per feature and the other ways to share rows.

    python benchmarks/unified_embedding.py [--data DIR] [--datasets NAME …] [--methods NAME …] [--sizes 0.1 1 …]
                                           [--seeds 3] [--jobs 2]
    python benchmarks/unified_embedding.py --dev --set tower.dim=128 …      # to choose settings: test is not read

Each run is a training in a process of its own core, judged by the tower alone. What is in the results already, under
the same settings, is not measured again, so that a broken call goes on where it was. After every run the results are
written to benchmarks/results/unified_embedding.json and .md, and at the end drawn to docs/images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from machine import describe
from unified_plot import PICTURE, draw
from unified_results import FILE, PAGE, Results, Row, write_page
from unified_tasks import COLLISIONLESS, DATA, METHODS, TASKS, Measured, Method, Task, inline_table, method_of, task_of

SIZES = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Job:
    """task, method: by name, for another process looks them up. counts: values of each feature on train.

    extra: settings over the task's.
    """

    task: str
    method: str
    size: float
    seed: int
    counts: tuple[int, ...]
    folder: Path
    extra: tuple[str, ...] = ()
    test: bool = True

    @property
    def vocabulary(self) -> int:
        return sum(self.counts)

    @property
    def rows(self) -> int:
        return max(1, round(self.size * self.vocabulary))

    @property
    def key(self) -> tuple[str, str, float, int]:
        return self.task, self.method, self.size, self.seed


def run_job(job: Job) -> Measured:
    """Train and judge; imports torch in the process that does it."""
    from unified_run import measure

    task, method = task_of(job.task), method_of(job.method)
    settings = task.options(method, job.rows, job.seed)
    return measure(task, job.folder, settings, extra=job.extra, test=job.test)


def jobs_of(
    task: Task, folder: Path, counts: Sequence[int], methods: Sequence[Method], sizes: Sequence[float], seeds: int
) -> list[Job]:
    """Collisionless once, the others at every size; seed by seed, so that a broken call leaves whole curves.

    counts: values of each feature. A size that has no row for each feature leaves a table per feature out.
    """
    jobs = []
    for seed in range(seeds):
        for method in methods:
            for size in (1.0,) if method is COLLISIONLESS else sizes:
                job = Job(task.name, method.name, size, seed, tuple(counts), folder)
                if method.multiplexed or method is COLLISIONLESS or job.rows >= len(counts):
                    jobs.append(job)
    return jobs


def settings_of(task: Task) -> list[str]:
    """What all rows of a dataset have in common."""
    return [*task.settings, f"features.fields={inline_table(task.fields)}", f"tower.row={task.row}"]


def finished(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Measured | Exception]]:
    """Each job with its figures, or with what it failed of, as they come."""
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = {pool.submit(run_job, job): job for job in jobs}
        for future in as_completed(waiting):
            error = future.exception()
            if isinstance(error, Exception):
                yield waiting[future], error
            else:
                yield waiting[future], future.result()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the datasets")
    parser.add_argument("--datasets", nargs="+", choices=[task.name for task in TASKS])
    parser.add_argument("--methods", nargs="+", choices=[method.name for method in METHODS])
    parser.add_argument("--sizes", nargs="+", type=float, default=SIZES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes, each of one thread")
    parser.add_argument("--dev", action="store_true", help="print dev figures, read no test, keep nothing")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="over the tasks' own; with --dev")
    parser.add_argument("--draw", action="store_true", help="draw and write the page from what is there, and stop")
    arguments = parser.parse_args()
    if arguments.settings and not arguments.dev:
        parser.error("--set is for --dev: what is kept is measured under the tasks' own settings")
    return arguments


def main() -> None:
    arguments = _arguments()
    results = Results.read(FILE)
    if not arguments.draw:
        from unified_run import vocabulary

        methods = [method for method in METHODS if method.name in (arguments.methods or [one.name for one in METHODS])]
        jobs = []
        for task in TASKS:
            if task.name not in (arguments.datasets or [one.name for one in TASKS]):
                continue
            folder = task.corpus(arguments.data)
            counts = vocabulary(task, folder, arguments.settings)
            print(f"{task.name}: {sum(counts)} distinct values of {len(counts)} features", flush=True)
            jobs += jobs_of(task, folder, counts, methods, arguments.sizes, arguments.seeds)
            if not arguments.dev:
                results.expect(task.name, task.figure, settings_of(task))
        if arguments.dev:
            _print_dev(jobs, arguments.settings, arguments.jobs)
            return
        failed = measure_missing(jobs, results, arguments.jobs)
        if failed:
            sys.exit("without a result: " + "; ".join(failed))
    write_page(results)
    draw(results)
    print(f"written to {FILE}, {PAGE} and {PICTURE}")


def measure_missing(jobs: Sequence[Job], results: Results, processes: int) -> list[str]:
    """Add the rows that are not there yet; returns what failed."""
    there = {row.key for row in results.rows}
    machine = results.machine(describe())
    missing = [job for job in jobs if job.key not in there]
    failed = []
    for number, (job, found) in enumerate(finished(missing, processes), 1):
        print(f"{number}/{len(missing)} {_line(job, found)}", flush=True)
        if isinstance(found, Exception):
            failed.append(f"{job.key} ({found})")
            continue
        assert found.test is not None
        results.add(
            Row(
                *(*job.key, found.rows, found.width, job.vocabulary, found.queries),
                *(round(found.dev, 3), round(found.test, 3), round(found.seconds, 2), machine),
            )
        )
        results.write(FILE)
        write_page(results)
    return failed


def _print_dev(jobs: Sequence[Job], settings: Sequence[str], processes: int) -> None:
    for job, found in finished([replace(job, extra=tuple(settings), test=False) for job in jobs], processes):
        print(_line(job, found), flush=True)


def _line(job: Job, found: Measured | Exception) -> str:
    where = f"{job.task}, {job.method}, {job.size:g}, seed {job.seed}"
    if isinstance(found, Exception):
        return f"{where}: {type(found).__name__} {found}"
    test = "" if found.test is None else f", test {found.test:.2f}"
    return f"{where} ({found.rows} x {found.width}, {found.seconds:.1f} s): dev {found.dev:.2f}{test}"


if __name__ == "__main__":
    main()
