from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from results_table import (
    COLUMNS,
    PeerResult,
    Result,
    differences,
    keep_rows,
    means,
    page,
    peers_of,
    read_rows,
    strongest,
)


def _figures(*values: float) -> dict[str, float]:
    return dict(zip(COLUMNS, values, strict=True))


def _peer(name: str, *values: float, dataset: str = "small", fingerprint: str = "f", split: str = "test") -> PeerResult:
    return PeerResult(dataset, name, fingerprint, split, 100, 100, _figures(*values), 11.0, 2.5, 0.4)


def _result(*values: float, dataset: str = "small", configuration: str = "defaults", rows: int = 100) -> Result:
    evaluation: dict[str, Any] = {
        "rows": 1300,
        "rows_without_labels": 66,
        "metrics": _figures(1, 2, 3, 4, 5),
        "intervals": {"P@1": {"low": 0.5, "high": 2.1}},
    }
    return Result(
        dataset,
        configuration,
        "f",
        rows,
        100,
        _figures(*values),
        evaluation,
        {"train": {"seconds": 123.4, "peak_gb": 2.04}},
        0.75,
        {"train": 45304, "test": 1300, "labels": 36677},
        [],
        {},
        {},
        {},
    )


PARABEL = _peer("omikuji Parabel", 60.0, 50.0, 17.0, 52.0, 65.0)
KNN = _peer("TF-IDF kNN", 58.0, 51.0, 16.0, 49.0, 66.0)


def _cells(text: str, title: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_strongest_peer_is_found_by_column() -> None:
    assert strongest([PARABEL, KNN]) == _figures(60.0, 51.0, 17.0, 52.0, 66.0)
    assert strongest([]) == {}
    found = differences(_figures(61.0, 50.5, 24.0, 52.0, 70.0), [PARABEL, KNN])
    assert found == pytest.approx(_figures(1.0, -0.5, 7.0, 0.0, 4.0))
    assert differences(_figures(1, 2, 3, 4, 5), []) == {}


def test_means_are_of_the_columns_that_all_have() -> None:
    assert means([_figures(1, 2, 3, 4, 5), _figures(3, 4, 5, 6, 7)]) == _figures(2, 3, 4, 5, 6)
    assert means([{"P@1": 1.0}, {"P@1": 2.0, "R@10": 9.0}]) == {"P@1": 1.5}
    assert means([]) == {}


def test_a_table_has_peers_differences_and_the_best_in_bold() -> None:
    text = page([_result(61.04, 50.5, 24.0, 52.0, 70.0)], [KNN, PARABEL])
    assert "45,304 training queries, 1,300 test queries, 36,677 labels." in text
    assert _cells(text, "100 test rows") == [*COLUMNS, "train s", "train GB", "ms a query"]
    assert _cells(text, "omikuji Parabel") == ["60.0", "50.0", "17.0", "**52.0**", "65.0", "11.0", "0.4", "2.5"]
    assert _cells(text, "TF-IDF kNN")[1] == "**51.0**"
    ours = _cells(text, "labelspace, defaults")
    assert ours == ["**61.0**", "50.5", "**24.0**", "**52.0**", "**70.0**", "123", "2.0", "0.8"]
    assert _cells(text, "– against the strongest peer")[:5] == ["+1.0", "-0.5", "+7.0", "+0.0", "+4.0"]
    assert _cells(text, "– on all 1,234 rows")[:5] == ["1.0 ± 0.8", "2.0", "3.0", "4.0", "5.0"]


def test_only_peers_on_the_same_rows_of_the_same_corpus_count() -> None:
    others = [
        _peer("other corpus", 99, 99, 99, 99, 99, fingerprint="g"),
        _peer("dev", 99, 99, 99, 99, 99, split="dev"),
        _peer("other set", 99, 99, 99, 99, 99, dataset="large"),
    ]
    result = _result(61, 50, 24, 52, 70)
    assert peers_of(result, [*others, PARABEL]) == [PARABEL]
    assert peers_of(_result(61, 50, 24, 52, 70, rows=50), [PARABEL]) == []
    assert [peer.peer for peer in peers_of(_result(1, 2, 3, 4, 5, dataset="eurlex57k", rows=4000), [])] == [
        "PECOS XR-Linear (quoted)"
    ]


def test_a_dataset_without_peers_still_has_its_table() -> None:
    text = page([_result(61, 50, 24, 52, 70)], [])
    assert _cells(text, "labelspace, defaults")[0] == "**61.0**"
    assert "against the strongest" not in text and "Mean of" not in text
    assert page([], []).startswith("# Quality beside peers")


def test_averages_are_over_the_sets_that_have_both() -> None:
    one = _result(62, 52, 20, 55, 70, dataset="eurlex57k")
    two = _result(41, 30, 26, 50, 60, dataset="yso-finna-en")
    elsewhere = _result(99, 99, 99, 99, 99, dataset="banking77")
    beside = [
        _peer("omikuji Parabel", 60, 50, 21, 50, 60, dataset="eurlex57k"),
        _peer("omikuji Parabel", 40, 34, 20, 40, 50, dataset="yso-finna-en"),
        _peer("TF-IDF kNN", 64, 40, 10, 40, 50, dataset="eurlex57k"),
        _peer("omikuji Parabel", 1, 1, 1, 1, 1, dataset="banking77"),
    ]
    text = page([one, two, elsewhere], beside)
    text = text[text.index("## Mean of 2 sets: defaults") :]
    assert "Over eurlex57k, yso-finna-en." in text
    assert _cells(text, "omikuji Parabel") == ["50.0", "**42.0**", "20.5", "45.0", "55.0"]
    assert _cells(text, "labelspace, defaults") == ["**51.5**", "41.0", "**23.0**", "**52.5**", "**65.0**"]
    # kNN has one of the two sets only: no mean of its own, yet it is the strongest there.
    assert "| TF-IDF kNN |" not in text
    assert _cells(text, "– mean difference to the strongest peer of each set") == [
        "-0.5",
        "-1.0",
        "+2.5",
        "+7.5",
        "+10.0",
    ]
    assert _cells(text, "– sets ahead of the strongest peer") == ["1 of 2", "1 of 2", "1 of 2", "2 of 2", "2 of 2"]


def test_a_row_takes_the_place_of_the_one_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "results" / "datasets.json"

    def keep(*rows: Result) -> list[Result]:
        return keep_rows(path, rows, lambda row: (row.dataset, row.configuration))

    assert read_rows(path, Result) == [] and keep() == [] and not path.exists()
    keep(_result(1, 1, 1, 1, 1), _result(2, 2, 2, 2, 2, configuration="two seeds"))
    rows = keep(_result(3, 3, 3, 3, 3), _result(4, 4, 4, 4, 4, dataset="日本"))
    assert [(row.dataset, row.figures["P@1"]) for row in rows] == [("small", 3), ("small", 2), ("日本", 4)]
    assert read_rows(path, Result) == rows
    assert len(json.loads(path.read_text())) == 3


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[{"dataset": "small", "colour": "red"}]')
    with pytest.raises(TypeError):
        read_rows(tmp_path / "rows.json", PeerResult)
