"""The benchmark of compatibility: its figures by hand, and the parts of a corpus that versions are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compatibility import compatible_share, figures, lower_mean, matrix, met, share_of
from index.bundle import Bundle
from index.bundles import current_bundle
from index.snapshot import Snapshot
from tests_support import write_corpus
from training.corpus import load_corpus

MATRIX = [[80.0, 3.0, 1.0], [80.0, 85.0, 2.0], [79.0, 86.0, 90.0]]


def test_pairs_are_compatible_that_are_no_worse_than_the_old_version_on_itself() -> None:
    assert compatible_share(MATRIX) == pytest.approx(2 / 3)
    assert lower_mean(MATRIX) == pytest.approx((80 + 80 + 85 + 79 + 86 + 90) / 6)


def test_a_larger_share_has_the_records_of_a_smaller_one(tmp_path: Path) -> None:
    whole = write_corpus(tmp_path / "whole")
    texts = {}
    for share in (0.25, 0.5, 0.75, 1.0):
        part = load_corpus(share_of(whole, share, tmp_path / str(share)), ["train", "test"]).splits
        texts[share] = set(part["train"].texts)
        assert len(part["test"]) == 60
        assert abs(len(part["train"]) - 400 * share) < 50
    assert texts[0.25] < texts[0.5] < texts[0.75] < texts[1.0]
    assert share_of(whole, 0.5, tmp_path / "0.5") == tmp_path / "0.5"  # made once


def test_a_bundle_that_meets_itself_is_what_is_served(tiny_collection: Path, tiny_corpus: Path) -> None:
    bundle = Bundle.open(current_bundle(tiny_collection))
    served = Snapshot.of(bundle).predict(["a guide to apple pie", "日本 料理"], 5)
    found = met(bundle, bundle, memory=True).predict(["a guide to apple pie", "日本 料理"], 5)
    assert np.array_equal(served.rows, found.rows)
    assert np.array_equal(served.scores, found.scores)
    alone = met(bundle, bundle, memory=False)
    assert alone.memory is None
    for snapshot in (alone, Snapshot.of(bundle)):
        measured = figures(snapshot, tiny_corpus, "test", None)
        assert list(measured) == ["P@1", "R@10", "unseen R@10"]  # the label "s39" is in test alone
        assert all(0 <= value <= 100 for value in measured.values())
    own = matrix([bundle, bundle], tiny_corpus, "test", memory=False)
    assert own["P@1"] == [[figures(alone, tiny_corpus, "test", None)["P@1"]] * 2] * 2
