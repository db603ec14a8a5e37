"""A corpus made ready for training: texts as bags of features, relevance as CSR, a dev part held out of train."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from index.errors import InputError
from index.features import Bags, Featurizer
from training.config import Config
from training.corpus import Corpus, hold_out, load_corpus, split_path


@dataclass(frozen=True, slots=True)
class DevSplit:
    """Held-out queries: bags (n), relevance (n, labels)."""

    bags: Bags
    relevance: csr_matrix


@dataclass(frozen=True, slots=True)
class Dataset:
    """queries: bags of the training texts; labels: bags of the label texts; relevance: (queries, labels) CSR.

    counts: (labels,) training queries of each label. fingerprint: hex SHA-256 of all that the run depends on.
    """

    label_ids: list[str]
    label_texts: list[str]
    queries: Bags
    labels: Bags
    relevance: csr_matrix
    dev: DevSplit
    counts: NDArray[np.int64]
    fingerprint: str


def load_dataset(folder: Path, config: Config) -> Dataset:
    """Read and featurise a corpus. Where it has no dev split, one is held out of train by group, the same every time.

    Raises InputError for a corpus that cannot be read or has no positive pair to learn from.
    """
    names = ["train", "dev"] if split_path(folder, "dev") else ["train"]
    corpus = load_corpus(folder, names)
    train = corpus.splits["train"]
    featurize = Featurizer(config.features)
    if "dev" in corpus.splits:
        kept = np.arange(len(train))
        dev = DevSplit(featurize(corpus.splits["dev"].texts), corpus.splits["dev"].relevance)
    else:
        kept, held = hold_out(train, config.training.dev_share, config.training.seed)
        dev = DevSplit(featurize([train.texts[row] for row in held]), train.relevance[held])
    relevance = train.relevance[kept]
    if not relevance.nnz:
        raise InputError(f"{folder}: no training record has a label; there is nothing to learn")
    return Dataset(
        corpus.label_ids,
        corpus.label_texts,
        featurize([train.texts[row] for row in kept]),
        featurize(corpus.label_texts),
        relevance,
        dev,
        np.bincount(relevance.indices, minlength=len(corpus.label_ids)).astype(np.int64),
        _fingerprint(corpus),
    )


def _fingerprint(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for label, text in zip(corpus.label_ids, corpus.label_texts, strict=True):
        digest.update(f"{label}\0{text}\0".encode())
    for name in sorted(corpus.splits):
        split = corpus.splits[name]
        for text in split.texts:
            digest.update(f"{text}\0".encode())
        digest.update(split.relevance.indptr.tobytes() + split.relevance.indices.tobytes())
    return digest.hexdigest()
