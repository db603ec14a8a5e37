"""Peers on a corpus: omikuji with Parabel and with Bonsai settings, and nearest neighbours in TF-IDF space.

    python benchmarks/peers.py CORPUS [--name NAME] [--peer parabel|bonsai|knn]… [--split test] [--rows 4000] [--force]

All see the same features (TF-IDF, sublinear, unigrams) of train, are asked the same rows, and are judged by the code
that judges us. Each runs in a process of its own, so that its peak memory is its own. Results are kept in
benchmarks/results/peers.json by the fingerprint of the corpus; `--force` measures again what is there.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from machine import describe
from results_table import PEERS, PeerResult, keep_rows, read_rows
from training.corpus import Split, load_corpus, split_path
from training.metrics import Judged, drawn_rows, inverse_propensity, without

NAMES = {"parabel": "omikuji Parabel", "bonsai": "omikuji Bonsai", "knn": "TF-IDF kNN"}
# omikuji's own recommendation for trees as in Bonsai; Parabel is what its defaults are.
OMIKUJI: dict[str, dict[str, Any]] = {
    "parabel": {},
    "bonsai": {"cluster_balanced": False, "cluster_k": 100, "max_depth": 3},
}
NEIGHBOURS = 30
DEPTH = 100
ROWS = 4000

# The k best labels of one query's features (1, features): label rows, best first, fewer where there are no more.
Ranker = Callable[[csr_matrix, int], NDArray[np.int64]]


def thinned(relevance: csr_matrix, rows: int) -> NDArray[np.int64]:
    """The rows that are judged, ascending: so many drawn as `labelspace evaluate --rows` draws, those with labels.

    relevance: (n, labels).
    """
    drawn = drawn_rows(relevance.shape[0], rows)
    return np.asarray(drawn[np.diff(relevance.indptr)[drawn] > 0], dtype=np.int64)


def fingerprint(folder: Path, split: str = "test") -> str:
    """Hex SHA-256 of the unpacked train, `split` and labels files."""
    digest = hashlib.sha256()
    for name in dict.fromkeys(("train", split, "labels")):
        path = split_path(folder, name)
        if path is not None:
            digest.update(f"{name}\0".encode())
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()


def judge(ranked: NDArray[np.int64], truth: csr_matrix, train: csr_matrix) -> dict[str, float]:
    """Figures in percent. ranked: (n, k) label rows, −1 for none; truth: (n, labels); train: (queries, labels)."""
    counts = np.bincount(train.indices, minlength=train.shape[1]).astype(np.int64)
    weights = inverse_propensity(counts, train.shape[0])
    judged = Judged.of(ranked, truth)
    fractions = {
        **{f"P@{k}": judged.precision(k) for k in (1, 3, 5)},
        "nDCG@5": judged.ndcg(5),
        **{f"R@{k}": judged.recall(k) for k in (5, 10, 100)},
        **{f"PSP@{k}": judged.propensity_precision(k, weights) for k in (1, 3, 5)},
        "unseen R@10": judged.restricted_recall(10, counts == 0)[0],
    }
    return {name: 100 * float(value) for name, value in fractions.items()}


def write_xc(path: Path, features: csr_matrix, relevance: csr_matrix) -> None:
    """The Extreme Classification repository's format; rows without features or labels teach a tree nothing: left out.

    features: (n, features) with ascending columns; relevance: (n, labels).
    """
    from sklearn.datasets import dump_svmlight_file

    rows = np.flatnonzero(np.diff(features.indptr) * np.diff(relevance.indptr))
    with path.open("wb") as file:
        file.write(f"{len(rows)} {features.shape[1]} {relevance.shape[1]}\n".encode())
        dump_svmlight_file(features[rows].astype(np.float64), relevance[rows], file, zero_based=True, multilabel=True)


def omikuji_ranker(
    features: csr_matrix, relevance: csr_matrix, settings: dict[str, Any], threads: int
) -> tuple[Ranker, dict[str, Any]]:
    """Train trees (the temporary file included); a ranker with beam 10, and the settings in force."""
    import omikuji

    chosen = omikuji.Model.default_hyper_param()
    for name, value in settings.items():
        setattr(chosen, name, value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        write_xc(path, features, relevance)
        model = omikuji.Model.train_on_data(str(path), chosen, n_threads=threads)
    model.init_prediction_thread_pool(threads)

    def ranker(query: csr_matrix, k: int) -> NDArray[np.int64]:
        if not query.nnz:
            return np.zeros(0, dtype=np.int64)
        pairs = list(zip(query.indices.tolist(), query.data.tolist(), strict=True))
        return np.array([label for label, _ in model.predict(pairs, top_k=k)], dtype=np.int64)

    keys = ("n_trees", "cluster_balanced", "cluster_k", "max_depth", "min_branch_size", "linear_c")
    return ranker, {**{key: getattr(chosen, key) for key in keys}, "beam_size": 10, "threads": threads}


def knn_ranker(features: csr_matrix, relevance: csr_matrix, neighbours: int = NEIGHBOURS) -> Ranker:
    """Labels of the nearest training texts by cosine, each vote the squared similarity.

    features: (n, features) of unit rows; relevance: (n, labels). Equal similarities and votes go to the lower row.
    """
    postings = features.T.tocsr()

    def ranker(query: csr_matrix, k: int) -> NDArray[np.int64]:
        found = query @ postings  # (1, n)
        found.sort_indices()
        near = np.argsort(-found.data, kind="stable")[:neighbours]
        votes = csr_matrix(found.data[near][None, :] ** 2) @ relevance[found.indices[near]]  # (1, labels)
        votes.sort_indices()
        return np.asarray(votes.indices[np.argsort(-votes.data, kind="stable")[:k]], dtype=np.int64)

    return ranker


def run_peer(peer: str, folder: Path, *, split: str, rows: int, threads: int) -> dict[str, Any]:
    """Train, ask and judge one peer in this process: the fields of PeerResult that are measured."""
    missing = [module for module in ("omikuji", "sklearn") if find_spec(module) is None]
    if missing:
        sys.exit(f"the peers need {' and '.join(missing)}: pip install 'labelspace[bench]'")
    from sklearn.feature_extraction.text import TfidfVectorizer

    corpus = load_corpus(folder, ["train", split])
    train, asked = corpus.splits["train"], corpus.splits[split]
    chosen = thinned(asked.relevance, rows)
    began = time.monotonic()
    vectoriser = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    features = vectoriser.fit_transform(train.texts)
    settings: dict[str, Any] = {"neighbours": NEIGHBOURS}
    if peer == "knn":
        ranker = knn_ranker(features, train.relevance)
    else:
        ranker, settings = omikuji_ranker(features, train.relevance, OMIKUJI[peer], threads)
    trained = time.monotonic()
    ranked = _ask(lambda text, k: ranker(vectoriser.transform([text]), k), asked, chosen)
    answered = time.monotonic()
    return {
        "judged": len(chosen),
        "figures": judge(ranked, asked.relevance[chosen], train.relevance),
        "train_seconds": round(trained - began, 2),
        "ms_per_query": round(1000 * (answered - trained) / len(chosen), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "settings": {**settings, "features": features.shape[1], "tf-idf": "sublinear, unigrams"},
    }


def measure(
    folder: Path,
    dataset: str,
    *,
    peers: Sequence[str] = tuple(NAMES),
    split: str = "test",
    rows: int = ROWS,
    force: bool = False,
    threads: int = 2,
) -> list[PeerResult]:
    """The peers' results on a corpus: those that are kept, the others measured now and kept."""
    mark = fingerprint(folder, split)
    kept = {_key(result): result for result in read_rows(PEERS, PeerResult)}
    results = []
    for peer in peers:
        wanted = (dataset, NAMES[peer], mark, split, rows)
        found = next((result for key, result in kept.items() if key == wanted), None)
        if found is None or force:
            print(f"$ {NAMES[peer]} on {folder}", flush=True)
            values = _in_process(peer, folder, split=split, rows=rows, threads=threads)
            found = PeerResult(dataset, NAMES[peer], mark, split, rows, **values, machine=_machine())
            keep_rows(PEERS, [found], _key)
        results.append(found)
    return results


def _ask(answer: Callable[[str, int], NDArray[np.int64]], asked: Split, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
    """The DEPTH best labels of each chosen row, one query at a time: (n, DEPTH), −1 where there are no more."""
    excluded = asked.excluded[chosen]
    deepest = DEPTH + int(np.diff(excluded.indptr).max(initial=0))
    ranked = np.full((len(chosen), deepest), -1, dtype=np.int64)
    for place, row in enumerate(chosen):
        labels = answer(asked.texts[row], deepest)
        ranked[place, : len(labels)] = labels
    return without(ranked, np.zeros(ranked.shape, dtype=np.float32), excluded, DEPTH)[0]


def _in_process(peer: str, folder: Path, *, split: str, rows: int, threads: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.json"
        command = [sys.executable, __file__, str(folder), "--peer", peer, "--split", split, "--rows", str(rows)]
        # omikuji reports on standard output, a line for every node of its trees.
        with (Path(scratch) / "log").open("w+b") as log:
            whole = [*command, "--threads", str(threads), "--here", str(out)]
            done = subprocess.run(whole, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode:
                log.seek(max(0, log.tell() - 2000))
                last = log.read().decode(errors="replace")
                sys.exit(f"{last}\n{NAMES[peer]} on {folder} failed with code {done.returncode}")
        values: dict[str, Any] = json.loads(out.read_text())
    return values


def _key(result: PeerResult) -> tuple[str, str, str, str, int]:
    return (result.dataset, result.peer, result.fingerprint, result.split, result.rows)


def _machine() -> dict[str, Any]:
    machine = describe()
    machine["versions"] |= {name: version(name) for name in ("omikuji", "scikit-learn", "scipy")}
    return machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--name", help="of the dataset; the folder's name if not given")
    parser.add_argument("--peer", dest="peers", action="append", choices=tuple(NAMES))
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    peers, asked = arguments.peers or list(NAMES), {"split": arguments.split, "rows": arguments.rows}
    if arguments.here is not None:
        values = run_peer(peers[0], arguments.corpus, **asked, threads=arguments.threads)
        arguments.here.write_text(json.dumps(values))
        return
    name = arguments.name or arguments.corpus.resolve().name
    for result in measure(
        arguments.corpus, name, peers=peers, **asked, force=arguments.force, threads=arguments.threads
    ):
        print(f"{result.peer:<18}", *(f"{key} {value:.1f}" for key, value in result.figures.items()), sep="  ")


if __name__ == "__main__":
    main()
