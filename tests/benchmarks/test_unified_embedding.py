"""Which trainings are asked for, that a broken call goes on, and that one that fails costs the others nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import unified_embedding
from unified_embedding import Job, jobs_of
from unified_results import Results
from unified_tasks import COLLISIONLESS, METHODS, Measured, method_of, task_of

TASK = task_of("banking77")


def test_collisionless_is_trained_at_one_size_and_the_others_at_each() -> None:
    jobs = jobs_of(TASK, Path("corpus"), (500, 300, 200), METHODS, (0.01, 1.0, 2.0), 2)
    assert len(jobs) == 2 * (1 + 6 * 3)
    assert len({job.key for job in jobs}) == len(jobs)
    assert {job.size for job in jobs if job.method == COLLISIONLESS.name} == {1.0}
    assert {job.rows for job in jobs} == {10, 1000, 2000}
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)


def test_a_table_per_feature_needs_a_row_for_each() -> None:
    jobs = jobs_of(TASK, Path("corpus"), (990, *[1] * 10), METHODS, (0.01,), 1)
    left = {method_of(job.method).table for job in jobs}
    assert left == {"exact", "shared", "quotient"}
    assert jobs_of(TASK, Path("corpus"), (10,), [METHODS[2]], (0.001,), 1)[0].rows == 1


def test_rows_are_kept_after_each_run_and_those_there_are_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unified_embedding, "FILE", tmp_path / "found.json")
    monkeypatch.setattr(unified_embedding, "write_page", lambda results: None)
    asked: list[Job] = []

    def trained(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Measured | Exception]]:
        for job in jobs:
            asked.append(job)
            yield job, ValueError("broken") if job.seed == 1 else Measured(job.rows, 16, 50, 60 + job.size, 9, 1.25)

    monkeypatch.setattr(unified_embedding, "finished", trained)
    jobs = jobs_of(TASK, Path("corpus"), (500, 300, 200), METHODS[3:4], (0.1, 1.0), 2)
    results = Results(figures={TASK.name: TASK.figure})
    failed = unified_embedding.measure_missing(jobs, results, 1)
    assert len(failed) == 2
    assert all("broken" in text for text in failed)
    again = Results.read(tmp_path / "found.json")
    assert [(row.size, row.seed, row.rows, row.test) for row in again.rows] == [(0.1, 0, 100, 60.1), (1.0, 0, 1000, 61)]
    asked.clear()
    unified_embedding.measure_missing(jobs, again, 1)
    assert [job.seed for job in asked] == [1, 1]
