"""A corpus made ready for training: records as items of the towers, relevance as CSR, a dev part held out of train."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity, vstack

from index.errors import InputError
from index.features import Featurizer
from index.fielded import FieldedTokenizer
from index.fields import Fields
from training.config import Config
from training.corpus import Corpus, Split, hold_out, load_corpus, split_path
from training.tower import Items

_HELD_BY = 0

Prepare = Callable[[Sequence[str], Sequence[Fields | None] | None], Items]


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
    label_fields: of each label; None where no fields are read.
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
    label_fields: Sequence[Fields | None] | None = None


def load_dataset(folder: Path, config: Config) -> Dataset:
    """Read and featurise a corpus. Where it has no dev split, one is held out of train by group, the same every time.

    Raises InputError for a corpus that cannot be read or has no positive pair to learn from.
    """
    names = ["train", "dev"] if split_path(folder, "dev") else ["train"]
    corpus = load_corpus(folder, names, config.features.fields)
    _check_fields(corpus, config.features.field_names)
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
    fields = None if train.fields is None else [train.fields[row] for row in kept]
    if config.label.text_queries:
        named = [row for row, text in enumerate(corpus.label_texts) if text.strip()]
        texts += [corpus.label_texts[row] for row in named]
        if fields is not None:
            # Fields of a label describe it, not a query that asks for it.
            fields += [None] * len(named)
        more = csr_matrix(identity(len(corpus.label_ids), dtype=np.float32, format="csr")[named])
        relevance = csr_matrix(vstack([relevance, more], format="csr"))
        excluded = csr_matrix(vstack([excluded, csr_matrix(more.shape, dtype=np.float32)], format="csr"))
    return Dataset(
        corpus.label_ids,
        corpus.label_texts,
        prepare_queries(texts, fields),
        prepare_labels(corpus.label_texts, corpus.label_fields),
        relevance,
        excluded,
        len(kept),
        dev,
        counts,
        _fingerprint(corpus),
        corpus.label_fields,
    )


def preparers(config: Config) -> tuple[Prepare, Prepare]:
    """What makes queries and labels, their texts and fields, ready for the configured towers."""
    if config.tower.kind == "transformer":
        from training.token_store import prepare_texts  # needs the tokenizers library: only where it is asked for

        store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelspace" / "tokens"
        threads = config.training.threads
        queries = prepare_texts(config.transformer, "query", threads=threads, store=store)
        labels = prepare_texts(config.transformer, "label", threads=threads, store=store)
        if config.features.fields:
            values = Featurizer(config.features)
            return FieldedTokenizer(queries, values), FieldedTokenizer(labels, values)
        return lambda texts, fields: queries(texts), lambda texts, fields: labels(texts)
    featurizer = Featurizer(config.features)
    return featurizer, featurizer


def _dev(split: Split, rows: NDArray[np.int64] | None, prepare: Prepare) -> DevSplit:
    if rows is None:
        return DevSplit(prepare(split.texts, split.fields), split.relevance, split.excluded)
    fields = None if split.fields is None else [split.fields[row] for row in rows]
    items = prepare([split.texts[row] for row in rows], fields)
    return DevSplit(items, split.relevance[rows], split.excluded[rows])


def _check_fields(corpus: Corpus, names: Sequence[str]) -> None:
    """Raises InputError for a field that is to be read and that nothing has: its name is misspelt."""
    sides = [split.fields or () for split in corpus.splits.values()]
    had = {name for side in (*sides, corpus.label_fields or ()) for fields in side for name in fields or ()}
    for name in names:
        if name not in had:
            raise InputError(f"features.fields: {corpus.folder} has no record or label with a field {name!r}")


def _fingerprint(corpus: Corpus) -> str:
    digest = hashlib.sha256()
    for label, text in zip(corpus.label_ids, corpus.label_texts, strict=True):
        digest.update(f"{label}\0{text}\0".encode())
    for name in sorted(corpus.splits):
        split = corpus.splits[name]
        for text in split.texts:
            digest.update(f"{text}\0".encode())
        digest.update(split.relevance.indptr.tobytes() + split.relevance.indices.tobytes())
    for said in (corpus.label_fields, *(corpus.splits[name].fields for name in sorted(corpus.splits))):
        for fields in said or ():
            digest.update(json.dumps(fields, sort_keys=True).encode())
    return digest.hexdigest()
