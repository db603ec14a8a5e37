"""The tasks of the table-size benchmark: a corpus, what is read of it, and how a tower on it is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from machine import run

DATA = Path("..") / "shared" / "data"
BUILD = Path("build") / "unified"
# Train records of a MovieLens user, the newest: with all of them, a few users would be most of train.
NEWEST = 50
# Films before each.
HISTORY = 5
Settings = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Method:
    """How features share the table. halves: two look-ups of rows of half the width, side by side: the bytes of one."""

    look_up: str
    sharing: str
    table: str
    halves: bool = False
    probes: int = 1

    @property
    def name(self) -> str:
        return f"{self.look_up}, {self.sharing}" if self.sharing else self.look_up

    @property
    def multiplexed(self) -> bool:
        return self.sharing == "multiplexed"


def _sharings(look_up: str, apart: str, together: str, *, halves: bool = False, probes: int = 1) -> list[Method]:
    return [
        Method(look_up, "table per feature", apart, halves, probes),
        Method(look_up, "multiplexed", together, halves, probes),
    ]


METHODS = (
    Method("collisionless", "", "exact"),
    *_sharings("hashing", "split", "shared"),
    *_sharings("multihash", "split", "shared", halves=True, probes=2),
    *_sharings("quotient-remainder", "quotient_split", "quotient", halves=True),
)
COLLISIONLESS = METHODS[0]


@dataclass(frozen=True, slots=True)
class Task:
    """A dataset. fields: settings of each field by its name. row: width of a row that is looked up once.

    settings: of training, equal for all methods; they were chosen on dev. corpus: makes or finds the corpus folder,
    given the folder of the data. positive: the label whose score against the other's is judged by AUC; "": not by AUC.
    """

    name: str
    figure: str
    corpus: Callable[[Path], Path]
    settings: tuple[str, ...]
    fields: Mapping[str, Settings]
    row: int
    positive: str = ""

    def options(self, method: Method, rows: int, seed: int) -> list[str]:
        """The settings of one training. rows: of the whole width; methods of halves have twice as many. The seed is of
        the hashes, too: which values collide is chance."""
        times = 2 if method.halves else 1
        fields = {name: {**settings, "probes": method.probes} for name, settings in self.fields.items()}
        return [
            *self.settings,
            "features.separate=true",
            f"features.table={method.table}",
            f"features.probes={method.probes}",
            f"features.rows={rows * times}",
            f"features.fields={inline_table(fields)}",
            f"features.seed={seed}",
            f"tower.row={self.row // times}",
            f"training.seed={seed}",
            "training.threads=1",
        ]

    def judge(self, scores: NDArray[np.float32], relevance: csr_matrix, label_ids: Sequence[str]) -> float:
        """Percent. scores: (queries, labels) of queries with labels; relevance: the same shape, CSR."""
        if self.positive:
            column = label_ids.index(self.positive)
            other = 1 - column
            return 100 * auc(
                scores[:, column] - scores[:, other], np.asarray(relevance[:, [column]].todense())[:, 0] > 0
            )
        return 100 * hit_rate(scores, relevance, 10 if self.figure.endswith("@10") else 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """rows, width: of the table. dev, test: the task's figure in percent; test is None where it was not read.

    queries: of test, that were judged. seconds: of training alone.
    """

    rows: int
    width: int
    dev: float
    test: float | None
    queries: int
    seconds: float


def auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The chance that a positive's score is above a negative's, ties counting half (Mann and Whitney 1947).

    scores, positive: (n,), with at least one of either kind.
    """
    ranks = rankdata(scores)
    positives = int(positive.sum())
    above = float(ranks[positive].sum()) - positives * (positives + 1) / 2
    return above / (positives * (len(scores) - positives))


def hit_rate(scores: NDArray[np.floating], relevance: csr_matrix, depth: int) -> float:
    """The share of queries that have one of their labels among the `depth` best of all."""
    depth = min(depth, scores.shape[1])
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    hits = np.zeros(len(scores), dtype=np.bool_)
    for row, columns in enumerate(best):
        own = relevance.indices[relevance.indptr[row] : relevance.indptr[row + 1]]
        hits[row] = bool(np.isin(own, columns).any())
    return float(hits.mean())


def inline_table(values: Mapping[str, Settings]) -> str:
    """TOML on one line, for `--set`."""
    parts = []
    for name, settings in values.items():
        inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        parts.append(f"{json.dumps(name)} = {{{inside}}}")
    return f"{{{', '.join(parts)}}}"


def adult(data: Path) -> Path:
    """Census records as fields alone, imported once."""
    out = BUILD / "adult-income"
    if not out.exists():
        columns = [f"--field-column={name}" for name in ADULT_FIELDS]
        table = ("--format", "table", "--labels-column", "classification", "--missing", "?")
        run("corpus", "import", data / "adult-income", out, *table, *columns)
    return out


def movielens(data: Path, history: int = HISTORY) -> Path:
    """The next film of a user, out of the `history` films that they rated last; imported once."""
    out = BUILD / f"movielens-latest-small-{NEWEST}-{history}"
    if not out.exists():
        folder = data / "movielens-latest-small"
        interactions = ("--format", "interactions", "--history", str(history), "--per-user", str(NEWEST))
        items = ("--items", folder / "movies.csv.gz", "--list-column", "genres", "|")
        run("corpus", "import", folder / "ratings.csv.gz", out, *interactions, *items)
    return out


def _folder(name: str) -> Callable[[Path], Path]:
    return lambda data: data / name


ADULT_FIELDS: dict[str, Settings] = {
    **{
        name: {"kind": "categorical"}
        for name in (
            "workclass",
            "education",
            "marital-status",
            "occupation",
            "relationship",
            "race",
            "sex",
            "native-country",
        )
    },
    **{
        name: {"kind": "numeric"}
        for name in ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
    },
}
MOVIELENS_FIELDS: dict[str, Settings] = {
    "user": {"kind": "categorical", "tower": "query"},
    "history": {"kind": "multivalent", "tower": "query"},
    "item": {"kind": "categorical", "tower": "label"},
    "genres": {"kind": "multivalent", "tower": "label"},
}
_TEXT = ("tower.dim=128", "negatives.kind=all", "training.epochs=6", "training.feature_dropout=0.3")
_ADULT = (
    "tower.dim=64",
    "tower.dropout=0.1",
    "negatives.kind=all",
    "label.free_dropout=0.0",
    "training.dev_share=0.1",
    "training.epochs=3",
    # No record has a text, and the texts of both labels are one to the featurizer.
    "features.ngrams=[]",
    "features.pairs=false",
)
TASKS = (
    Task("adult-income", "AUC", adult, _ADULT, ADULT_FIELDS, 8, positive=">50K"),
    Task(
        "movielens-latest-small",
        "HR@10",
        movielens,
        (
            "tower.dim=64",
            # Else every label would have a vector of its own beside the table that is measured.
            "label.free=false",
            "negatives.sampled=1024",
            "training.epochs=5",
            "features.ngrams=[]",
            "features.pairs=false",
        ),
        MOVIELENS_FIELDS,
        32,
    ),
    Task("banking77", "accuracy", _folder("banking77"), (*_TEXT, "training.dev_share=0.1"), {}, 64),
    Task("clinc150", "accuracy", _folder("clinc150"), _TEXT, {}, 64),
)


def task_of(name: str) -> Task:
    return next(task for task in TASKS if task.name == name)


def method_of(name: str) -> Method:
    return next(method for method in METHODS if method.name == name)
