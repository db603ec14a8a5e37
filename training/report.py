"""The evaluation report: one page that needs nothing from elsewhere, and the same figures as JSON beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.build import IndexReport
from index.errors import InputError
from index.files import write_json, write_text
from index.snapshot import Snapshot
from training.bootstrap import LEVEL
from training.evaluation import DEPTH, SERVED, Evaluation, Judgement, bucket_name
from training.report_plots import (
    CurvePoint,
    plot_frequency,
    plot_learning,
    plot_probabilities,
    plot_reliability,
)

_TEMPLATE = "report.html.j2"
_PACKAGES = ("jinja2", "matplotlib")
_EXAMPLES = 10
_SHOWN_LABELS, _SHOWN_MISSED = 5, 8
_TEXT, _LABEL = 280, 90
_TILES = (
    ("P@1", "first label right"),
    ("nDCG@5", "order of the first 5"),
    ("R@10", "found in the first 10"),
    ("PSP@5", "first 5, rare labels weigh more"),
    ("coverage@5", "of the labels in use hit at least once"),
)
_FAMILIES = (
    ("P", "of the first k labels, the share that is right"),
    ("nDCG", "the same, with earlier places worth more"),
    ("R", "of a row's labels, the share that is among the first k"),
    ("PSP", "precision with hits worth their inverse propensity: rare labels count more"),
    ("PSnDCG", "nDCG with hits worth their inverse propensity"),
    ("coverage", "of all labels that the rows have, the share that is rightly predicted at least once"),
    ("catalogue", "of all labels there are, the share that is predicted at least once, right or wrong"),
)
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")


@dataclass(frozen=True, slots=True)
class Guess:
    """A predicted label: its probability in percent, and whether it is right."""

    name: str
    id: str
    percent: float
    right: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """A label of the row that is not among those shown: its place, None beyond 100, and how many rows trained it."""

    name: str
    id: str
    place: int | None
    training_rows: int


@dataclass(frozen=True, slots=True)
class Example:
    """A judged row: its text, cut short; the first labels that are predicted; its labels that are not among them.

    more: how many of these there are beyond the ones in `missed`.
    """

    text: str
    guesses: list[Guess]
    missed: list[Missed]
    more: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric in percent with its interval; best: the most that any ranking could reach on these rows."""

    name: str
    value: float
    low: float | None
    high: float | None
    best: float
    says: str = ""


def check_report_extra() -> None:
    """Raises InputError when what draws the report is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"a report needs {' and '.join(missing)}; install with: pip install 'labelspace[report]'")


def read_curve(run: Path) -> list[CurvePoint]:
    """The learning curve of a run. Raises BundleError when it has no checkpoint or that is damaged."""
    from training.checkpoint import load_checkpoint

    _, position = load_checkpoint(run)
    return [CurvePoint(point.epoch + 1, point.loss, point.dev) for point in position.curve]


def write_report(
    folder: Path,
    evaluation: Evaluation,
    judgement: Judgement,
    snapshot: Snapshot,
    curve: Sequence[CurvePoint] = (),
) -> Path:
    """Write report.html and metrics.json into `folder`; returns the page's path.

    The same input gives the same bytes. Raises InputError when the extra `report` is not installed, LabelspaceError
    when the files cannot be written.
    """
    check_report_extra()
    page = render(evaluation, judgement, snapshot, curve)
    write_json(folder / "metrics.json", evaluation.to_json())
    write_text(folder / "report.html", page)
    return folder / "report.html"


def render(evaluation: Evaluation, judgement: Judgement, snapshot: Snapshot, curve: Sequence[CurvePoint] = ()) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    positives = judgement.judged.positives
    shown = judgement.judged.rows[:, :SERVED] >= 0
    probabilities = judgement.probabilities[:, :SERVED][shown]
    hits = judgement.judged.hits[:, :SERVED][shown]
    right, wrong = _hit_rows(judgement)
    return environment.get_template(_TEMPLATE).render(
        evaluation=evaluation,
        judged=len(judgement.texts),
        level=f"{LEVEL:.0%}",
        tiles=[_figure(evaluation, positives, name, says) for name, says in _TILES],
        families=_families(evaluation, positives),
        frequency=plot_frequency(evaluation.buckets),
        buckets=[(bucket_name(bucket), bucket) for bucket in evaluation.buckets if bucket.labels],
        calibration=[plot_reliability(evaluation.calibration, SERVED), plot_probabilities(probabilities, hits)],
        learning=plot_learning(curve),
        right_rows=len(right),
        wrong_rows=len(wrong),
        right=[_example(judgement, snapshot, row) for row in _chosen(right)],
        wrong=[_example(judgement, snapshot, row) for row in _chosen(wrong)],
        first=_SHOWN_LABELS,
        depth=DEPTH,
        facts=_bundle_facts(snapshot),
        data=_data_facts(evaluation, judgement),
        versions=dict(snapshot.bundle.manifest.versions),
    )


def best_possible(name: str, positives: NDArray[np.int64]) -> float:
    """The most that a metric, named as P@5, can be in percent on rows with so many positives (n,)."""
    family, _, depth = name.partition("@")
    counted = positives[positives > 0]
    if family not in ("P", "R") or not len(counted):
        return 100.0
    reached = np.minimum(counted, int(depth))
    return float(100 * (reached / (int(depth) if family == "P" else counted)).mean())


def _figure(evaluation: Evaluation, positives: NDArray[np.int64], name: str, says: str = "") -> Figure:
    interval = evaluation.intervals.get(name)
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return Figure(name, evaluation.metrics[name], low, high, best_possible(name, positives), says)


def _families(evaluation: Evaluation, positives: NDArray[np.int64]) -> list[tuple[str, str, dict[int, Figure]]]:
    """Metrics that differ in k only, by name: what they say, and the figure for each k."""
    found: dict[str, dict[int, Figure]] = {name: {} for name, _ in _FAMILIES}
    for name in evaluation.metrics:
        family, _, depth = name.partition("@")
        found[family][int(depth)] = _figure(evaluation, positives, name)
    return [(name, says, found[name]) for name, says in _FAMILIES]


def _hit_rows(judgement: Judgement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows whose first label is right, and those that have no right one among the first five."""
    hits = judgement.judged.hits[:, :_SHOWN_LABELS]
    return np.flatnonzero(hits[:, :1].any(axis=1)), np.flatnonzero(~hits.any(axis=1))


def _chosen(rows: NDArray[np.int64]) -> list[int]:
    """Some of them at random, in their order; the same ones every time."""
    return [int(row) for row in np.sort(np.random.default_rng(0).permutation(rows)[:_EXAMPLES])]


def _example(judgement: Judgement, snapshot: Snapshot, row: int) -> Example:
    judged = judgement.judged
    ranked = judged.rows[row]
    guesses = []
    for at in np.flatnonzero(ranked[:_SHOWN_LABELS] >= 0):
        label = snapshot.labels[int(ranked[at])]
        percent = 100 * float(judgement.probabilities[row, at])
        guesses.append(Guess(_short(label.text or label.id, _LABEL), label.id, percent, bool(judged.hits[row, at])))
    positives = judged.truth.indices[judged.truth.indptr[row] : judged.truth.indptr[row + 1]]
    missed = []
    for positive in positives:
        found = np.flatnonzero(ranked == positive)
        place = int(found[0]) + 1 if len(found) else None
        if place is None or place > _SHOWN_LABELS:
            label = snapshot.labels[int(positive)]
            trained = int(judgement.counts[positive])
            missed.append(Missed(_short(label.text or label.id, _LABEL), label.id, place, trained))
    missed.sort(key=lambda label: label.place or DEPTH + 1)
    return Example(_short(judgement.texts[row], _TEXT), guesses, missed[:_SHOWN_MISSED], len(missed[_SHOWN_MISSED:]))


def _short(text: str, most: int) -> str:
    """One line of a text, without control characters."""
    line = _NO_TEXT.sub(" ", text[: 8 * most]).strip()
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _bundle_facts(snapshot: Snapshot) -> dict[str, str]:
    """What a reader wants to know about what was measured."""
    manifest = snapshot.bundle.manifest
    facts = {
        "bundle": manifest.bundle,
        "model": manifest.model,
        "written": manifest.created,
        "labels": f"{len(snapshot.labels):,}",
        "vector size": f"{manifest.dim:,}",
        "label index": _index_fact(manifest.index),
        "example memory": "none",
        "on disk": _size(sum(seal.bytes for seal in manifest.files.values())),
    }
    if manifest.memory is not None:
        weight = manifest.ranking.memory_weight
        facts["example memory"] = f"{_index_fact(manifest.memory)}; {weight:.0%} of the score"
    if snapshot.change > manifest.change:
        facts["changes since"] = f"{snapshot.change - manifest.change:,}"
    return facts


def _data_facts(evaluation: Evaluation, judgement: Judgement) -> dict[str, str]:
    per_row = judgement.judged.positives.mean()
    return {
        "corpus": f"{evaluation.corpus}, split {evaluation.split}",
        "rows judged": f"{len(judgement.texts):,}",
        "rows without labels, left out": f"{evaluation.rows_without_labels:,}",
        "labels per row": f"{per_row:.2f}",
        "excluded pairs, taken out": f"{evaluation.excluded:,}",
        "training rows": f"{judgement.training_rows:,}",
        "propensity": f"A = {evaluation.a}, B = {evaluation.b}",
        "intervals": f"{LEVEL:.0%}, {evaluation.bootstrap:,} resamples of the rows" if evaluation.bootstrap else "none",
    }


def _index_fact(report: IndexReport) -> str:
    return f"{report.factory} over {report.vectors:,} vectors, recall@10 {report.recall:.4f}"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
