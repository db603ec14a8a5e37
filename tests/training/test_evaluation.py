"""Evaluation of a snapshot that ranks as it is told, against loops over sets."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from index.collection import Collection
from index.errors import InputError
from index.fields import Fields
from index.labels import LabelTable, LiveLabels
from index.ranking import Predictions
from index.snapshot import Snapshot
from tests_support import write_lines
from training.evaluation import Evaluation, evaluate, format_evaluation, judge, sum_up

LABELS, TRAIN, TEST = 130, 60, 40


class Told:
    """Stands in for a snapshot: ranks the labels of query "test 7" by the scores of row 7."""

    def __init__(self, ids: list[str], scores: NDArray[np.float32]) -> None:
        self.labels = LiveLabels(LabelTable.pack(ids, ids))
        self.removed = np.zeros(0, dtype=np.int64)
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(bundle="0001-told"))
        self.scores = scores
        self.fields = ()

    def predict(self, texts: Sequence[str], k: int, fields: Sequence[Fields | None] | None) -> Predictions:
        assert fields is None
        scores = self.scores[[int(text.split()[1]) for text in texts]]
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, rows, axis=1)
        spare = ((0, 0), (0, max(0, k - rows.shape[1])))
        return Predictions(
            np.pad(rows, spare, constant_values=-1), np.pad(best, spare, constant_values=-np.inf).astype(np.float32)
        )

    def probabilities(self, predictions: Predictions) -> NDArray[np.float32]:
        return np.clip(predictions.scores, 0, 1)


class Case:
    """A corpus on disk whose test rows have labels, exclusions, both or none, and a snapshot told what to rank."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(11)
        ids = [f"l{place}" for place in range(LABELS)]
        folder.mkdir()
        self.folder = folder
        self.train = [set(random.choice(LABELS // 2, 3, replace=False).tolist()) for _ in range(TRAIN)]
        self.truth: list[set[int]] = []
        self.excluded: list[set[int]] = []
        for row in range(TEST):
            drawn = random.permutation(LABELS).tolist()
            self.truth.append(set(drawn[: row % 4]))
            self.excluded.append(set(drawn[4 : 4 + 3 * (row % 3)]))
        write_lines(folder / "labels.jsonl", [{"id": name, "text": name} for name in ids])
        lines = [
            {"id": f"r{row}", "text": f"train {row}", "labels": self.ids(has)} for row, has in enumerate(self.train)
        ]
        write_lines(folder / "train.jsonl", cast(list[dict[str, object]], lines))
        tests: list[dict[str, object]] = [
            {"id": f"t{row}", "text": f"test {row}", "labels": self.ids(has), "exclude": self.ids(without)}
            for row, (has, without) in enumerate(zip(self.truth, self.excluded, strict=True))
        ]
        write_lines(folder / "test.jsonl", tests)
        # The collection has the labels in another order, and one that the corpus does not know in front.
        self.order = random.permutation(LABELS).tolist()
        self.scores = random.random((TEST, LABELS + 1)).astype(np.float32)
        for row, has in enumerate(self.truth):
            # Some are found easily, others only by chance.
            for label in filter(lambda label: label % 3, has):
                self.scores[row, 1 + self.order.index(label)] += 0.4
        self.told = Told(["new", *(ids[label] for label in self.order)], self.scores)
        self.snapshot = cast(Snapshot, self.told)

    @staticmethod
    def ids(labels: set[int]) -> list[str]:
        return [f"l{label}" for label in sorted(labels)]

    def ranking(self, row: int) -> list[int]:
        """Corpus label rows in the order that counts; −1 for the label that the corpus does not know."""
        best = np.argsort(-self.scores[row], kind="stable").tolist()
        named = [-1 if place == 0 else self.order[place - 1] for place in best]
        return [label for label in named if label not in self.excluded[row]][:100]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("told") / "corpus")


@pytest.fixture(scope="module")
def evaluation(case: Case) -> Evaluation:
    return evaluate(case.snapshot, case.folder, a=0.6, b=2.6, bootstrap=200)


def slow(case: Case) -> dict[str, float]:
    """Some figures by loops over rows and sets."""
    counts = [sum(label in has for has in case.train) for label in range(LABELS)]
    weights = [1 + (math.log(TRAIN) - 1) * 3.6**0.6 * (count + 2.6) ** -0.6 for count in counts]
    rows = [row for row in range(TEST) if case.truth[row]]
    figures: dict[str, float] = {}
    for k in (1, 3, 5):
        hits = [[label for label in case.ranking(row)[:k] if label in case.truth[row]] for row in rows]
        best = [sorted((weights[label] for label in case.truth[row]), reverse=True)[:k] for row in rows]
        figures[f"P@{k}"] = float(np.mean([len(found) / k for found in hits]))
        figures[f"PSP@{k}"] = sum(weights[label] for found in hits for label in found) / sum(map(sum, best))
        wanted = set().union(*case.truth)
        figures[f"coverage@{k}"] = len({label for found in hits for label in found}) / len(wanted)
    for k in (5, 10, 100):
        found = [len(case.truth[row].intersection(case.ranking(row)[:k])) / len(case.truth[row]) for row in rows]
        figures[f"R@{k}"] = float(np.mean(found))
    figures["catalogue@5"] = len({label for row in rows for label in case.ranking(row)[:5]}) / (LABELS + 1)
    return {name: 100 * value for name, value in figures.items()}


def test_figures_equal_loops_with_exclusions_and_other_label_rows(case: Case, evaluation: Evaluation) -> None:
    for name, value in slow(case).items():
        assert evaluation.metrics[name] == pytest.approx(value), name
    assert (evaluation.rows, evaluation.rows_without_labels, evaluation.labels) == (TEST, TEST // 4, LABELS + 1)
    with_labels = [row for row in range(TEST) if case.truth[row]]
    assert evaluation.excluded == sum(len(case.excluded[row]) for row in with_labels)


def test_the_hundredth_place_is_filled_when_labels_are_excluded(case: Case) -> None:
    judgement = judge(case.snapshot, case.folder)
    assert judgement.judged.rows.shape == (len(judgement.texts), 100)
    assert (judgement.judged.rows >= 0).all()
    kept = [row for row in range(TEST) if case.truth[row]]
    assert judgement.texts == [f"test {row}" for row in kept]
    for place, row in enumerate(kept):
        rows = [-1 if found == 0 else case.order[found - 1] for found in judgement.judged.rows[place].tolist()]
        assert rows == case.ranking(row)
    scores = np.take_along_axis(case.scores[kept], judgement.judged.rows, axis=1)
    assert judgement.probabilities.tolist() == np.clip(scores, 0, 1).tolist()


def test_buckets_are_by_training_rows_and_their_contributions_add_up(case: Case, evaluation: Evaluation) -> None:
    counts = np.array([sum(label in has for has in case.train) for label in range(LABELS)])
    for bucket in evaluation.buckets:
        most = math.inf if bucket.most is None else bucket.most
        inside = {label for label in range(LABELS) if bucket.least <= counts[label] <= most}
        rows = [row for row in range(TEST) if case.truth[row] & inside]
        assert bucket.rows == len(rows)
        # The label that the corpus does not know has no training rows either.
        assert bucket.labels == len(inside) + (bucket.most == 0)
        shares = [
            len(case.truth[row].intersection(inside, case.ranking(row)[:10])) / len(case.truth[row] & inside)
            for row in rows
        ]
        assert bucket.figures["R@10"] == pytest.approx(100 * np.mean(shares) if rows else 0.0)
        assert (bucket.intervals == {}) == (not rows)
    for name in ("P@1", "P@5", "PSP@3", "PSP@5"):
        whole = sum(bucket.contributions[name] for bucket in evaluation.buckets)
        assert whole == pytest.approx(evaluation.metrics[name])
    assert evaluation.unseen.most == 0


def test_intervals_hold_the_figures(evaluation: Evaluation) -> None:
    exact = {name for name in evaluation.metrics if name.startswith(("coverage", "catalogue"))}
    assert set(evaluation.intervals) == set(evaluation.metrics) - exact
    for name, interval in evaluation.intervals.items():
        assert interval.low <= evaluation.metrics[name] <= interval.high
        assert 0 < interval.high - interval.low < 60


def test_calibration_is_of_the_first_ten(case: Case, evaluation: Evaluation) -> None:
    said, right = [], []
    for row in range(TEST):
        if case.truth[row]:
            at = [1 + case.order.index(label) if label >= 0 else 0 for label in case.ranking(row)[:10]]
            said += np.clip(case.scores[row, at], 0, 1).tolist()
            right += [label in case.truth[row] for label in case.ranking(row)[:10]]
    bins = np.minimum((10 * np.array(said)).astype(int), 9)
    gaps = [
        (bins == place).sum() * abs(np.mean(np.array(said)[bins == place]) - np.mean(np.array(right)[bins == place]))
        for place in set(bins.tolist())
    ]
    assert evaluation.calibration.error == pytest.approx(sum(gaps) / len(said), rel=1e-5)


def test_json_and_table_show_what_was_measured(evaluation: Evaluation) -> None:
    values = json.loads(json.dumps(evaluation.to_json()))
    assert values["propensity"] == {"A": 0.6, "B": 2.6}
    assert values["bootstrap"] == {"resamples": 200, "level": 0.95}
    assert values["corpus"] == "corpus"
    assert values["unseen"] == evaluation.unseen.figures
    assert values["unseen_rows"] == values["buckets"][0]["rows"]
    assert values["intervals"]["P@1"] == {
        "low": evaluation.intervals["P@1"].low, "high": evaluation.intervals["P@1"].high
    }  # fmt: skip
    assert sum(values["calibration"]["counts"]) == 10 * (evaluation.rows - evaluation.rows_without_labels)
    table = format_evaluation(evaluation)
    half = (evaluation.intervals["P@1"].high - evaluation.intervals["P@1"].low) / 2
    assert f"P@1         {evaluation.metrics['P@1']:6.1f} ±{half:.1f}" in table
    assert "A=0.6, B=2.6" in table
    assert f"{evaluation.excluded} excluded pairs" in table


def test_without_bootstrap_there_are_no_intervals(case: Case) -> None:
    found = evaluate(case.snapshot, case.folder, bootstrap=0)
    assert found.intervals == {}
    assert "±" not in format_evaluation(found)


def test_fewer_rows_are_those_of_the_permutation(case: Case) -> None:
    seen: list[int] = []
    judgement = judge(case.snapshot, case.folder, rows=15, advance=seen.append)
    drawn = sorted(np.random.default_rng(0).permutation(TEST)[:15].tolist())
    assert judgement.texts == [f"test {row}" for row in drawn if case.truth[row]]
    assert (judgement.rows, sum(seen)) == (15, len(judgement.texts))
    assert sum_up(judgement, case.snapshot).rows_without_labels == 15 - len(judgement.texts)
    assert judge(case.snapshot, case.folder, rows=10**9).rows == TEST


def test_a_split_that_cannot_be_judged_is_named(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_lines(folder / "train.jsonl", [{"id": "a", "text": "train 0", "labels": ["l0", "l1", "foreign"]}])
    write_lines(folder / "test.jsonl", [{"id": "a", "text": "test 0", "labels": []}])
    with pytest.raises(InputError, match="no row of test has a label"):
        judge(case.snapshot, folder)
    with pytest.raises(InputError, match="no dev split"):
        judge(case.snapshot, folder, split="dev")
    write_lines(folder / "test.jsonl", [{"id": "a", "text": "test 0", "labels": ["foreign"]}])
    with pytest.raises(InputError, match="label 'foreign' is not in the collection"):
        judge(case.snapshot, folder)


def test_an_excluded_label_that_the_collection_does_not_know_is_no_matter(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_lines(folder / "train.jsonl", [{"id": "a", "text": "train 0", "labels": ["l0", "foreign"]}])
    write_lines(folder / "test.jsonl", [{"id": "a", "text": "test 0", "labels": ["l0"], "exclude": ["foreign"]}])
    assert judge(case.snapshot, folder).excluded == 0


def test_a_real_collection_is_judged_by_what_it_serves(tiny_collection: Path, tiny_corpus: Path) -> None:
    with Collection(tiny_collection) as opened:
        found = evaluate(opened.snapshot, tiny_corpus)
        assert found.metrics["P@1"] > 90
        assert found.bundle == opened.snapshot.bundle.manifest.bundle
        assert (found.rows, found.labels, found.excluded) == (60, 40, 0)
        assert found.unseen.labels == 1
