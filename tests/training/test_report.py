"""The report: a page that needs nothing from elsewhere, shows the figures as they are, and is the same every time."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from index.build import IndexReport
from index.errors import BundleError, InputError
from index.labels import LabelTable, LiveLabels
from index.snapshot import Snapshot
from training import report
from training.bootstrap import Interval
from training.evaluation import Bucket, Evaluation, Judgement, sum_up
from training.metrics import Judged, Reliability
from training.report import best_possible, read_curve, render, write_report
from training.report_plots import (
    CurvePoint,
    plot_frequency,
    plot_learning,
    plot_probabilities,
    plot_reliability,
    short_name,
)

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """The page taken apart; raises on an element that is closed wrongly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


CURVE = (CurvePoint(1, 2.0, {"P@1": 40.0}), CurvePoint(2, 1.0, {"P@1": 50.0}))
NAMES = ["<b>bold</b> & co", "日本 料理", "short", "w" * 300, "עברית", ""]


def a_snapshot() -> Snapshot:
    manifest = SimpleNamespace(
        bundle="0003-abc", model="abc123", created="2026-01-02T03:04:05+00:00", dim=32, change=2, labels=6,
        index=IndexReport("Flat", 0, 1.0, 9, 6), memory=IndexReport("HNSW32,Flat", 64, 0.9934, 9, 500),
        ranking=SimpleNamespace(memory_weight=0.3), versions={"python": "3.11.7"},
        files={"vectors.npy": SimpleNamespace(bytes=2_500_000), "table.bin": SimpleNamespace(bytes=500_000)},
    )  # fmt: skip
    labels = LiveLabels(LabelTable.pack([f"l{place}" for place in range(6)], NAMES))
    bundle = SimpleNamespace(manifest=manifest)
    return cast(Snapshot, SimpleNamespace(bundle=bundle, labels=labels, removed=np.zeros(0, dtype=np.int64), change=4))


def a_judgement() -> Judgement:
    """Row 1: first label right, one more missed at place 6; row 2: nothing right; row 3: only one label predicted."""
    rows = np.full((3, 100), -1, dtype=np.int64)
    rows[0, :6] = [0, 1, 2, 3, 4, 5]
    rows[1, :5] = [1, 2, 3, 4, 5]
    rows[2, :1] = [2]
    truth = np.zeros((3, 6), dtype=np.float32)
    truth[0, [0, 5]] = truth[1, 0] = truth[2, 2] = 1
    probabilities = np.linspace(0.9, 0.001, 100, dtype=np.float32)[None].repeat(3, axis=0)
    return Judgement(
        corpus="toys",
        split="test",
        texts=["<script>alert(1)</script> \x00\x1b[31m one", "long " * 500, "שלום 日本\nline"],
        judged=Judged.of(rows, csr_matrix(truth)),
        probabilities=probabilities,
        counts=np.array([0, 1, 3, 20, 200, 5000]),
        training_rows=6000,
        rows=4,
        excluded=0,
    )


@functools.cache
def a_page() -> tuple[Evaluation, str]:
    judgement, snapshot = a_judgement(), a_snapshot()
    evaluation = sum_up(judgement, snapshot, bootstrap=100)
    return evaluation, render(evaluation, judgement, snapshot, CURVE)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere() -> None:
    _, html = a_page()
    page = Page(html)
    assert page.tags["svg"] == 7
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    for name, value in page.attributes:
        if name in ("href", "src") or "url(" in value:
            assert "#" in value
        assert not name.startswith("on")
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for wanted in re.findall(r'(?:url\(|href=")#([^)"]+)', html):
        assert wanted in ids
    assert sum(name == "aria-label" for name, _ in page.attributes) >= 7
    # Colours come from the page, so that they follow its mode.
    assert not re.search(r"#0000\d\d", html)


def test_texts_are_shown_as_they_are_and_run_nothing() -> None:
    _, html = a_page()
    page = Page(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [31m one" in html
    assert "<b>bold</b> & co" in page.text
    assert "שלום 日本 line" in page.text
    assert "w" * 89 + "…" in page.text
    assert "\x00" not in html
    # A label without text goes by its id.
    assert "l5" in page.text


def test_examples_say_what_was_right_and_what_was_missed() -> None:
    _, html = a_page()
    text = " ".join(Page(html).text.split())
    assert "2 rows (66.7%) have a right label in first place" in text
    assert "1 rows (33.3%) have no right label among the first 5" in text
    assert "missed: l5 (at place 6; 5,000 training rows)" in text
    assert "missed: <b>bold</b> & co (not in the first 100; unseen in training)" in text
    assert html.count('<li class="right">') == 2
    assert html.count('class="mark"') == 5 + 5 + 1


def test_figures_and_facts_are_on_the_page() -> None:
    evaluation, html = a_page()
    text = " ".join(Page(html).text.split())
    for name in ("P@1", "PSP@5", "coverage@5"):
        assert f"{name} {evaluation.metrics[name]:.1f}" in text
    low, high = evaluation.intervals["R@10"].low, evaluation.intervals["R@10"].high
    assert f"{low:.1f} – {high:.1f}" in text
    # Two positives, one, one: at most (2 + 1 + 1) / 3 of five.
    assert f"of {100 * 4 / 15:.1f}" in text
    for fact in ("abc123", "Flat over 6 vectors, recall@10 1.0000", "HNSW32,Flat over 500 vectors, recall@10 0.9934",
                 "30% of the score", "3.0 MB", "A = 0.55, B = 1.5", "changes since 2"):  # fmt: skip
        assert fact in text
    assert f"(ECE) over the first 10 labels: {100 * evaluation.calibration.error:.1f} points" in text


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    judgement, snapshot = a_judgement(), a_snapshot()
    evaluation = sum_up(judgement, snapshot, bootstrap=10)
    first = write_report(tmp_path / "a" / "b", evaluation, judgement, snapshot)
    second = write_report(tmp_path / "c", evaluation, judgement, snapshot)
    assert first == tmp_path / "a" / "b" / "report.html"
    assert first.read_bytes() == second.read_bytes()
    assert json.loads((tmp_path / "c" / "metrics.json").read_text()) == json.loads(json.dumps(evaluation.to_json()))
    shutil.rmtree(tmp_path / "a")
    assert "Training loss" not in second.read_text()


def test_without_intervals_there_is_no_plus_minus() -> None:
    judgement, snapshot = a_judgement(), a_snapshot()
    html = render(sum_up(judgement, snapshot, bootstrap=0), judgement, snapshot)
    assert "±" not in html
    Page(html)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(InputError, match=r"needs matplotlib; install with: pip install 'labelspace\[report\]'"):
        report.check_report_extra()


def test_best_possible_by_hand() -> None:
    positives = np.array([1, 2, 8, 0])
    assert best_possible("P@5", positives) == pytest.approx(100 * (1 + 2 + 5) / 15)
    assert best_possible("R@5", positives) == pytest.approx(100 * (1 + 1 + 5 / 8) / 3)
    assert best_possible("PSP@5", positives) == 100.0
    assert best_possible("P@1", np.zeros(3, dtype=np.int64)) == 100.0


def test_plots_say_their_numbers_to_those_who_cannot_see_them() -> None:
    points = [CurvePoint(1, 2.5, {}), CurvePoint(2, 1.25, {"P@1": 61.0, "R@10": 80.5})]
    loss, dev = plot_learning(points)
    assert "2.500 at epoch 1, 1.250 at epoch 2" in loss.svg
    assert "P@1 61.0, R@10 80.5" in dev.svg
    assert len(plot_learning(points[:1])) == 1
    assert plot_learning([]) == []
    figures, parts = {"R@10": 12.5, "R@100": 20.0}, {"P@5": 3.0, "PSP@5": 4.5}
    buckets = [
        Bucket(0, 0, 4, 2, figures, parts, {"R@10": Interval(10.0, 14.0)}),
        Bucket(1, 1, 0, 0, figures, parts, {}),
        Bucket(1000, None, 1_200_000, 1, figures, parts, {}),
    ]
    recall, plain, weighted = plot_frequency(buckets)
    assert "unseen: 12.5; 1000+: 12.5." in recall.svg
    assert ("unseen: 3.0" in plain.svg, "unseen: 4.5" in weighted.svg) == (True, True)
    assert ">1.2m<" in recall.svg
    assert [short_name(Bucket(*ends, 1, 1, {}, {}, {})) for ends in ((1, 1), (2, 4))] == ["1", "2–4"]
    Page(recall.svg)


def test_plots_of_nothing_are_drawn_too() -> None:
    probabilities, hits = np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.bool_)
    Page(plot_probabilities(probabilities, hits).svg)
    Page(plot_reliability(Reliability.of(probabilities, hits), 10).svg)
    for plot in plot_frequency([]):
        Page(plot.svg)


def test_the_curve_is_that_of_the_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    curve = read_curve(tiny_run)
    assert [point.x for point in curve] == list(range(1, 13))
    assert curve[-1].loss < curve[0].loss
    assert set(curve[-1].dev) == {"P@1", "nDCG@5", "R@10"}
    with pytest.raises(BundleError, match="no checkpoint"):
        read_curve(tmp_path)
