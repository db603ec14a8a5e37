"""A thinned corpus: as many rows as asked for, of the whole, with just the labels that they carry."""

from __future__ import annotations

from pathlib import Path

from tests_support import write_corpus
from thinning import thinned_corpus
from training.corpus import load_corpus, read_records, split_path


def test_rows_are_of_the_corpus_and_labels_are_those_they_carry(tmp_path: Path) -> None:
    whole = write_corpus(tmp_path / "whole", train=60)
    (whole / "test.jsonl.gz").rename(whole / "dev.jsonl.gz")
    thin = thinned_corpus(whole, tmp_path / "thin", 20)
    path = split_path(whole, "train")
    assert path is not None
    known = {record.id: record for record in read_records(path)}
    path = split_path(thin, "train")
    assert path is not None
    kept = list(read_records(path))
    assert len(kept) == 20
    assert all(known[record.id] == record for record in kept)
    corpus = load_corpus(thin, ["train", "dev"])
    assert len(corpus.splits["dev"]) == 60
    assert all(sum(split.relevance.sum(axis=0) for split in corpus.splits.values()).A1 > 0)
    assert thinned_corpus(whole, tmp_path / "thin", 20) == thin  # made once
