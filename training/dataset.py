"""A corpus made ready for training: texts as items of the towers, relevance as CSR, a dev part held out of train."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity, vstack

from index.errors import InputError
from index.features import Featurizer
from training.config import Config
from training.corpus import Corpus, Split, hold_out, load_corpus, split_path
from training.tower import Items

_HELD_BY = 0

Prepare = Callable[[Sequence[str]], Items]


@dataclass(frozen=True, slots=True)
class DevSplit:
    """Held-out queries: items (n), relevance and excluded (n, labels)."""

    items: Items
    relevance: csr_matrix
    excluded: csr_matrix


@dataclass(frozen=True, slots=True)
class Dataset:
    """queries: items of the training texts; labels: of the label texts; relevance, excluded: (queries, labels) CSR.

    examples: the first so many queries are records; any after them are label texts (label.text_queries).
    counts: (labels,) training records of each label. fingerprint: hex SHA-256 of all that the run depends on.
    """

    label_ids: list[str]
    label_texts: list[str]
    queries: Items
    labels: Items
    relevance: csr_matrix
    excluded: csr_matrix
    examples: int
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
    prepare_queries, prepare_labels = preparers(config)
    if "dev" in corpus.splits:
        kept = np.arange(len(train))
        dev = _dev(corpus.splits["dev"], None, prepare_queries)
    else:
        # Whatever the seed of the run: those of several seeds are one model, and each of them may be exported alone.
        kept, held = hold_out(train, config.training.dev_share, _HELD_BY)
        dev = _dev(train, held, prepare_queries)
    relevance, excluded = train.relevance[kept], train.excluded[kept]
    if not relevance.nnz:
        raise InputError(f"{folder}: no training record has a label; there is nothing to learn")
    counts = np.bincount(relevance.indices, minlength=len(corpus.label_ids)).astype(np.int64)
    texts = [train.texts[row] for row in kept]
    if config.label.text_queries:
        named = [row for row, text in enumerate(corpus.label_texts) if text.strip()]
        texts += [corpus.label_texts[row] for row in named]
        more = csr_matrix(identity(len(corpus.label_ids), dtype=np.float32, format="csr")[named])
        relevance = csr_matrix(vstack([relevance, more], format="csr"))
        excluded = csr_matrix(vstack([excluded, csr_matrix(more.shape, dtype=np.float32)], format="csr"))
    return Dataset(
        corpus.label_ids,
        corpus.label_texts,
        prepare_queries(texts),
        prepare_labels(corpus.label_texts),
        relevance,
        excluded,
        len(kept),
        dev,
        counts,
        _fingerprint(corpus),
    )


def preparers(config: Config) -> tuple[Prepare, Prepare]:
    """What makes query texts and label texts ready for the configured towers."""
    if config.tower.kind == "transformer":
        from training.token_store import prepare_texts  # needs the tokenizers library: only where it is asked for

        store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelspace" / "tokens"
        threads = config.training.threads
        return (
            prepare_texts(config.transformer, "query", threads=threads, store=store),
            prepare_texts(config.transformer, "label", threads=threads, store=store),
        )
    featurizer = Featurizer(config.features)
    return featurizer, featurizer


def _dev(split: Split, rows: NDArray[np.int64] | None, prepare: Prepare) -> DevSplit:
    if rows is None:
        return DevSplit(prepare(split.texts), split.relevance, split.excluded)
    return DevSplit(prepare([split.texts[row] for row in rows]), split.relevance[rows], split.excluded[rows])


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
