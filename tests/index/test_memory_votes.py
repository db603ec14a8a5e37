"""The votes that a served bundle counts: as many neighbours as it says, at the temperature that it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from index.collection import Collection
from index.layered import LayeredIndex
from index.memory import ExampleLabels
from index.packed import Lists
from training.corpus import read_records


@pytest.mark.parametrize(("neighbours", "temperature"), [(1, 0.05), (3, 0.5), (7, 0.1), (10_000, 0.2)])
def test_votes_are_those_of_the_nearest_examples_in_float64(
    tiny_collection: Path, tiny_corpus: Path, neighbours: int, temperature: float
) -> None:
    with Collection(tiny_collection) as opened:
        snapshot = opened.snapshot
        bundle = snapshot.bundle
        texts = [record.text for record in read_records(tiny_corpus / "train.jsonl.gz")][: len(bundle.example_labels)]
        examples = bundle.queries.texts(texts)
        memory = faiss.IndexFlatIP(bundle.manifest.dim)
        memory.add(examples)
        ranking = replace(bundle.manifest.ranking, neighbours=neighbours, memory_temperature=temperature)
        voting = replace(bundle, manifest=replace(bundle.manifest, ranking=ranking))
        changed = replace(snapshot, bundle=voting, memory=LayeredIndex.over(memory))
        queries = bundle.queries.texts(["apple pie and a coral reef", "how the ocean tide turns a wind turbine"])
        votes = changed.votes(queries)
        assert votes is not None
        for place, query in enumerate(queries):
            cosines = examples.astype(np.float64) @ query.astype(np.float64)
            nearest = np.argsort(-cosines, kind="stable")[:neighbours]
            last = cosines[nearest[-1]]
            if np.count_nonzero(cosines > last - 1e-6) != len(nearest):
                pytest.skip("a tie at the last neighbour: which one votes is not defined")
            shares = np.exp((cosines[nearest] - cosines.max()) / temperature)
            wanted = np.zeros(len(snapshot.labels))
            for example, share in zip(nearest, shares / shares.sum(), strict=True):
                wanted[bundle.example_labels[example]] += share
            found = np.zeros(len(snapshot.labels))
            found[votes.label[votes.query == place]] = votes.weight[votes.query == place]
            assert found == pytest.approx(wanted, abs=1e-5)


def test_examples_that_carry_nothing_are_left_out_of_nothing() -> None:
    labels = ExampleLabels(Lists.pack([]))
    lengths, rows, right = labels.of(np.array([0, 3], dtype=np.int64))
    assert (lengths.tolist(), rows.tolist(), right.tolist()) == ([0, 0], [], [])
    lengths, rows, right = ExampleLabels(Lists.pack([[1, 2], []])).of(np.array([1, 0, 1, 0], dtype=np.int64))
    assert (lengths.tolist(), rows.tolist(), right.tolist()) == ([0, 2, 0, 2], [1, 2, 1, 2], [True] * 4)
