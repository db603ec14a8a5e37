from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import peers
import results_table
from peers import fingerprint, judge, knn_ranker, omikuji_ranker, run_peer, thinned, write_xc
from tests_support import write_corpus, write_lines


def _random_relevance(rows: int, labels: int, seed: int) -> csr_matrix:
    chooser = np.random.default_rng(seed)
    return csr_matrix((chooser.random((rows, labels)) < 0.15).astype(np.float32))


def _unit_rows(rows: int, width: int, seed: int) -> csr_matrix:
    chooser = np.random.default_rng(seed)
    values = chooser.random((rows, width)) * (chooser.random((rows, width)) < 0.4)
    values[:, 0] += 0.1
    return csr_matrix((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32))


def test_thinning_is_the_permutation_of_all_rows_without_those_that_have_no_label() -> None:
    relevance = _random_relevance(50, 6, 1)
    labelled = {row for row in range(50) if relevance[row].nnz}
    assert len(labelled) < 50
    expected = sorted(set(np.random.default_rng(0).permutation(50)[:20].tolist()) & labelled)
    assert thinned(relevance, 20).tolist() == expected
    assert thinned(relevance, 10_000).tolist() == sorted(labelled)
    assert thinned(csr_matrix((0, 6), dtype=np.float32), 20).tolist() == []


def test_neighbours_vote_like_a_loop_over_everything() -> None:
    train, relevance, asked = _unit_rows(40, 12, 2), _random_relevance(40, 9, 3), _unit_rows(15, 12, 4)
    ranker = knn_ranker(train, relevance, neighbours=5)
    dense, truth = train.toarray().astype(np.float64), relevance.toarray()
    for row in range(15):
        cosines = dense @ asked[row].toarray()[0].astype(np.float64)
        votes = dict.fromkeys(range(9), 0.0)
        for near in sorted(range(40), key=lambda other: -cosines[other])[:5]:
            for label in np.flatnonzero(truth[near]):
                votes[int(label)] += cosines[near] ** 2
        expected = [label for label in sorted(votes, key=lambda label: -votes[label]) if votes[label] > 0]
        assert ranker(asked[row], 9).tolist() == expected
        assert ranker(asked[row], 2).tolist() == expected[:2]


def test_a_text_without_known_words_has_no_neighbours() -> None:
    ranker = knn_ranker(_unit_rows(10, 4, 5), _random_relevance(10, 3, 6))
    assert ranker(csr_matrix((1, 4), dtype=np.float32), 3).tolist() == []


def test_equal_neighbours_and_votes_go_to_the_lower_row() -> None:
    same = csr_matrix(np.ones((4, 1), dtype=np.float32))
    relevance = csr_matrix(np.eye(4, dtype=np.float32))
    assert knn_ranker(same, relevance, neighbours=3)(same[0], 4).tolist() == [0, 1, 2]


def test_the_xc_file_has_header_labels_and_ascending_features(tmp_path: Path) -> None:
    features = csr_matrix(np.array([[0.5, 0, 0.25], [0, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=np.float32))
    relevance = csr_matrix(np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float32))
    write_xc(tmp_path / "train.txt", features, relevance)
    # The second row has no label and the third no feature.
    assert (tmp_path / "train.txt").read_text().splitlines() == ["2 3 4", "0,2 0:0.5 2:0.25", "3 2:1"]


def test_figures_are_those_worked_out_by_hand() -> None:
    train = csr_matrix(np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=np.float32))
    truth = csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 1, 0]], dtype=np.float32))
    ranked = np.array([[0, 3, 1, -1], [3, 2, -1, -1]])
    found = judge(ranked, truth, train)
    assert found["P@1"] == pytest.approx(100 * (1 + 0) / 2)
    assert found["P@3"] == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)
    assert found["R@10"] == pytest.approx(100.0)
    second, third = 1 / math.log2(3), 1 / math.log2(4)
    assert found["nDCG@5"] == pytest.approx(100 * ((1 + third) / (1 + second) + second) / 2)
    weights = [1 + (math.log(3) - 1) * 2.5**0.55 * (count + 1.5) ** -0.55 for count in (3, 2, 0)]
    assert found["PSP@1"] == pytest.approx(100 * weights[0] / (weights[1] + weights[2]))
    assert found["unseen R@10"] == pytest.approx(100.0)


def test_the_fingerprint_is_of_the_content_not_of_its_packing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "one", train=20, test=5)
    before = fingerprint(corpus)
    packed = (corpus / "test.jsonl.gz").read_bytes()
    (corpus / "test.jsonl.gz").unlink()
    (corpus / "test.jsonl").write_bytes(gzip.decompress(packed))
    assert fingerprint(corpus) == before
    (corpus / "test.jsonl").write_bytes(gzip.decompress(packed).replace(b"e", b"E", 1))
    assert fingerprint(corpus) != before


@pytest.mark.parametrize("peer", ["parabel", "bonsai", "knn"])
def test_every_peer_learns_a_small_corpus(peer: str, tiny_corpus: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = run_peer(peer, tiny_corpus, split="test", rows=50, threads=1)
    capfd.readouterr()
    assert found["judged"] == 50
    assert found["figures"]["P@1"] > 60
    assert found["figures"]["unseen R@10"] == 0
    assert found["train_seconds"] >= 0 and found["ms_per_query"] > 0 and found["peak_gb"] > 0
    assert found["settings"].get("max_depth") == {"parabel": 20, "bonsai": 3, "knn": None}[peer]


def test_excluded_labels_are_taken_out_of_a_peers_answers(tmp_path: Path) -> None:
    labels: list[dict[str, object]] = [{"id": name, "text": name} for name in ("a", "b", "c")]
    train: list[dict[str, object]] = [
        {"id": "1", "text": "red apple", "labels": ["a"]},
        {"id": "2", "text": "red apple tart", "labels": ["b"]},
        {"id": "3", "text": "blue boat", "labels": ["c"]},
    ]
    asked: list[dict[str, object]] = [
        {"id": "4", "text": "red apple", "labels": ["b"], "exclude": ["a"]},
        {"id": "5", "text": "日本", "labels": ["c"]},
    ]
    write_lines(tmp_path / "labels.jsonl", labels)
    write_lines(tmp_path / "train.jsonl", train)
    write_lines(tmp_path / "test.jsonl", asked)
    found = run_peer("knn", tmp_path, split="test", rows=10, threads=1)
    # "a" would be first for the first query; the second shares no word with train.
    assert found["figures"]["P@1"] == pytest.approx(50.0)


def test_trees_rank_a_separable_problem_and_answer_nothing_for_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    features = csr_matrix(np.eye(6, dtype=np.float32)[np.arange(60) % 6])
    relevance = csr_matrix(np.eye(6, dtype=np.float32)[np.arange(60) % 6])
    ranker, settings = omikuji_ranker(features, relevance, {"n_trees": 1}, 1)
    capfd.readouterr()
    assert [int(ranker(features[row], 1)[0]) for row in range(6)] == list(range(6))
    assert ranker(csr_matrix((1, 6), dtype=np.float32), 3).tolist() == []
    assert settings["n_trees"] == 1 and settings["cluster_balanced"]


def test_results_are_kept_by_fingerprint_and_measured_again_when_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, kept = write_corpus(tmp_path / "corpus", train=20, test=5), tmp_path / "peers.json"
    asked: list[str] = []

    def in_process(peer: str, folder: Path, **options: Any) -> dict[str, Any]:
        asked.append(peer)
        figures = dict.fromkeys(results_table.COLUMNS, float(len(asked)))
        return {"judged": 5, "figures": figures, "train_seconds": 1.0, "ms_per_query": 2.0, "peak_gb": 0.5}

    monkeypatch.setattr(peers, "PEERS", kept)
    monkeypatch.setattr(peers, "_in_process", in_process)
    peers.measure(corpus, "small", peers=("knn", "parabel"))
    again = peers.measure(corpus, "small", peers=("knn", "parabel"))
    assert asked == ["knn", "parabel"] and again[1].figures["P@1"] == 2
    forced = peers.measure(corpus, "small", peers=("knn",), force=True)
    assert asked == ["knn", "parabel", "knn"] and forced[0].figures["P@1"] == 3
    (corpus / "labels.jsonl").write_text((corpus / "labels.jsonl").read_text().replace("apple", "pear"))
    peers.measure(corpus, "small", peers=("knn",))
    assert len(asked) == 4
    rows = results_table.read_rows(kept, results_table.PeerResult)
    assert [(row.peer, row.figures["P@1"]) for row in rows] == [
        ("TF-IDF kNN", 3.0),
        ("omikuji Parabel", 2.0),
        ("TF-IDF kNN", 4.0),
    ]
