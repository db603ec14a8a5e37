from __future__ import annotations

import pytest

from ablations import ABLATIONS, Ablation, Row, page, runs_of
from index.errors import InputError
from results_table import COLUMNS


def _row(group: str, name: str, *values: float) -> Row:
    figures = dict(zip((*COLUMNS, "unseen R@10"), values, strict=True))
    costs = {"train": {"seconds": 61.6, "peak_gb": 1.96}}
    return Row("small", group, name, [], 1, None, ["--set=training.epochs=2"], figures, 505, costs)


def test_every_setting_of_every_ablation_is_one_that_there_is() -> None:
    assert sum(map(len, runs_of(ABLATIONS, []))) == len(ABLATIONS)
    assert len({(ablation.group, ablation.name) for ablation in ABLATIONS}) == len(ABLATIONS)


def test_what_comes_to_the_same_settings_is_trained_once() -> None:
    one, same, prefix = Ablation("a", "one", ("tower.dim=64",)), Ablation("b", "same"), Ablation("c", "cut", dim=8)
    other, seeds = Ablation("a", "other", ("tower.dim=32",)), Ablation("d", "two", seeds=2)
    found = runs_of([one, same, other, seeds, prefix], ["tower.dim=64"])
    assert found == [[one, same, prefix], [other], [seeds]]
    assert runs_of([], []) == []


def test_a_wrong_setting_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match="colour"):
        runs_of([Ablation("a", "one"), Ablation("a", "two", ("tower.colour=1",))], [])


def test_the_page_has_a_table_for_each_group_with_the_best_in_bold() -> None:
    rows = [
        _row("loss", "softmax", 60, 50, 20, 55, 70, 3),
        _row("mixup", "off", 1, 2, 3, 4, 5, 6),
        _row("loss", "sigmoid", 59, 50.04, 21, 54, 71, 2),
    ]
    text = page(rows)
    assert "| softmax | **60.0** | **50.0** | 20.0 | **55.0** | 70.0 | **3.0** | 62 | 2.0 |" in text
    assert "| sigmoid | 59.0 | **50.0** | **21.0** | 54.0 | **71.0** | 2.0 | 62 | 2.0 |" in text
    assert text.index("## small: loss") < text.index("| sigmoid") < text.index("## small: mixup")
    assert text.count("505 dev rows; --set=training.epochs=2.") == 2
