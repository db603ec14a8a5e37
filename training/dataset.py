"""A corpus made ready for training: records as items of the towers, relevance as CSR, a dev part held out of train."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity, vstack

from index.errors import InputError
from index.features import FeatureSpec, Featurizer
from index.field_spec import FieldSpec
from index.fielded import FieldedTokenizer
from index.fields import Fields
from index.lexicon import Lexicon
from index.packed import PackedStrings
from training.bag_store import prepare_bags
from training.config import Config
from training.corpus import Corpus, Split, hold_out, load_corpus, split_path
from training.feature_fitting import Records, fit_features, of_tower
from training.tower import Items

# The seed by which dev is held out of train, the same for every run.
HELD_BY = 0

KnownRows = Mapping[str, NDArray[np.bool_]]
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
    features, lexicon: what was configured, with all that was fitted to train, and what was learned beside it.
    label_fields: of each label, those that its tower reads; None where no fields are read. kept_fields: as the corpus
    has them, for the bundle alone: no run depends on them.
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
    features: FeatureSpec
    lexicon: Lexicon | None = None
    label_fields: Sequence[Fields | None] | None = None
    kept_fields: PackedStrings | None = None


def load_dataset(
    folder: Path, config: Config, lexicon: Lexicon | None = None, known: KnownRows | None = None
) -> Dataset:
    """Read a corpus, fit to it what its features still need, and featurise it.

    Where it has no dev split, one is held out of train by group, the same every time. lexicon: what an earlier run,
    which the configured features are of, has learned. known: by tower, the rows of the table that training touched;
    then values of others are left out, as a bundle leaves them out.
    Raises InputError for a corpus that cannot be read or has no positive pair to learn from.
    """
    names = ["train", "dev"] if split_path(folder, "dev") else ["train"]
    corpus = load_corpus(folder, names, config.features.fields)
    _check_fields(corpus, config.features.fields)
    train = corpus.splits["train"]
    if "dev" in corpus.splits:
        kept, held = np.arange(len(train)), None
    else:
        # Whatever the seed of the run: those of several seeds are one model, and each of them may be exported alone.
        kept, held = hold_out(train, config.training.dev_share, HELD_BY)
    relevance, excluded = train.relevance[kept], train.excluded[kept]
    if not relevance.nnz:
        raise InputError(f"{folder}: no training record has a label; there is nothing to learn")
    counts = np.bincount(relevance.indices, minlength=len(corpus.label_ids)).astype(np.int64)
    texts = [train.texts[row] for row in kept]
    fields = None if train.fields is None else [train.fields[row] for row in kept]
    if not any(text.strip() for text in texts) and not any(fields or ()):
        raise InputError(
            f"{folder}: no training record has a text, or a field that is read; name some in features.fields"
        )
    labels = Records(corpus.label_texts, of_tower(corpus.label_fields, config.features.fields, "label"))
    features, lexicon = _fitted(config, Records(texts, fields), labels, lexicon)
    prepare_queries, prepare_labels = preparers(replace(config, features=features), lexicon, known)
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
        label_ids=corpus.label_ids,
        label_texts=corpus.label_texts,
        queries=prepare_queries(texts, fields),
        labels=prepare_labels(labels.texts, labels.fields),
        relevance=relevance,
        excluded=excluded,
        examples=len(kept),
        dev=_dev(corpus.splits.get("dev", train), held, prepare_queries),
        counts=counts,
        fingerprint=_fingerprint(corpus),
        features=features,
        lexicon=lexicon,
        label_fields=labels.fields,
        kept_fields=corpus.kept_fields,
    )


def preparers(
    config: Config, lexicon: Lexicon | None = None, known: KnownRows | None = None
) -> tuple[Prepare, Prepare]:
    """What makes queries and labels, their texts and fields, ready for the configured towers.

    config: with features that are fitted (training.feature_fitting). Fields that a tower does not read are left out.
    """
    spec, threads = config.features, config.training.threads
    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labelspace"
    if config.tower.kind != "transformer":
        kept = store / "bags" if known is None else None  # else they are of one model, and not worth it
        of_queries, of_labels = (
            prepare_bags(
                Featurizer(spec, tower, lexicon, None if known is None else known[tower]), threads=threads, store=kept
            )
            for tower in ("query", "label")
        )
        return _reading(spec, "query", of_queries), _reading(spec, "label", of_labels)
    from training.token_store import prepare_texts  # needs the tokenizers library: only where it is asked for

    queries = prepare_texts(config.transformer, "query", threads=threads, store=store / "tokens")
    labels = prepare_texts(config.transformer, "label", threads=threads, store=store / "tokens")
    if not spec.fields:
        return lambda texts, fields: queries(texts), lambda texts, fields: labels(texts)
    return (
        _reading(spec, "query", FieldedTokenizer(queries, Featurizer(spec, "query", lexicon))),
        _reading(spec, "label", FieldedTokenizer(labels, Featurizer(spec, "label", lexicon))),
    )


def _reading(spec: FeatureSpec, tower: str, prepare: Prepare) -> Prepare:
    """`prepare` with the fields of one tower only."""
    return lambda texts, fields: prepare(texts, of_tower(fields, spec.fields, tower))


def _fitted(
    config: Config, queries: Records, labels: Records, lexicon: Lexicon | None
) -> tuple[FeatureSpec, Lexicon | None]:
    if config.tower.kind != "transformer":
        return fit_features(config.features, queries, labels, lexicon)
    if config.features.pieces:
        raise InputError("features.pieces: a transformer tower has a tokenizer of its own; leave it 0")
    if not config.features.fields:
        return config.features, None
    # Its bags are of fields only (index.fielded).
    queries, labels = (replace(records, texts=[""] * len(records.texts)) for records in (queries, labels))
    return fit_features(config.features, queries, labels, lexicon)


def _dev(split: Split, rows: NDArray[np.int64] | None, prepare: Prepare) -> DevSplit:
    if rows is None:
        return DevSplit(prepare(split.texts, split.fields), split.relevance, split.excluded)
    fields = None if split.fields is None else [split.fields[row] for row in rows]
    items = prepare([split.texts[row] for row in rows], fields)
    return DevSplit(items, split.relevance[rows], split.excluded[rows])


def _check_fields(corpus: Corpus, specs: Sequence[FieldSpec]) -> None:
    """Raises InputError for a field that is to be read and that nothing has which its tower reads: it is misspelt."""
    sides = {
        "query": [fields for split in corpus.splits.values() for fields in split.fields or ()],
        "label": corpus.label_fields or [],
    }
    had = {tower: {name for fields in side for name in fields or ()} for tower, side in sides.items()}
    for spec in specs:
        if not any(spec.of(tower) and spec.name in names for tower, names in had.items()):
            what = {"query": "record", "label": "label", "both": "record or label"}[spec.tower]
            raise InputError(f"features.fields: {corpus.folder} has no {what} with a field {spec.name!r}")


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
