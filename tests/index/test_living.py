"""Any interleaving of changes, restarts, re-indexing, promotion and rollback serves what a brute-force model says."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from index.bundle import Bundle
from index.bundles import list_bundles, promote, prune, rollback
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.collection import Collection
from index.label_filter import LabelFilter
from index.reindex import Settings, reindex
from reindex_support import no_meter, silent, with_votes
from snapshot_support import Model
from tests_support import SUBJECTS

TEXTS = (*SUBJECTS[:6], "notes on apple pie", "zebra crossing", "saffron tunnel", "größe übung und 日本 料理", "🚲")
IDS = ("s0", "s1", "s2", "s39", "new", "日本/ラベル")
FIELDS: tuple[dict[str, Any] | None, ...] = (None, {"lang": "de"}, {"lang": ["de", "fr"], "year": 1990}, {"year": 1990})
FILTERS: tuple[dict[str, Any], ...] = ({"lang": "de"}, {"lang": ["fr", "xx"], "year": 1990}, {"lang": "nobody's"})
_texts, _ids = st.sampled_from(TEXTS), st.sampled_from(IDS)


@pytest.fixture(scope="module")
def remembering(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection in whose memory all examples vote: no two may tie for the last vote."""
    return with_votes(tiny_run, tmp_path_factory.mktemp("remembering") / "collection", neighbours=1000)


def example_texts(bundle: Bundle, corpus: Path) -> list[str]:
    """Of each example of the memory its text: the training record that has its vector."""
    with gzip.open(corpus / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    assert bundle.memory is not None
    similar = bundle.memory.reconstruct_n(0, bundle.memory.ntotal) @ bundle.queries.texts(texts).T
    assert similar.max(axis=1) == pytest.approx(1.0, abs=1e-5)
    return [texts[place] for place in similar.argmax(axis=1)]


class Living(RuleBasedStateMachine):
    """One collection on disk, and what it should answer."""

    origin: Path
    corpus: Path

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp()) / "collection"
        shutil.copytree(self.origin, self.folder)
        self.opened = Collection(self.folder)
        bundle = self.opened.snapshot.bundle
        self.truth = Model.of(bundle, example_texts(bundle, self.corpus))

    def teardown(self) -> None:
        self.opened.close()
        shutil.rmtree(self.folder.parent)

    def write(self, change: LabelChange) -> None:
        self.opened.write([change])
        self.truth.apply(change)

    @rule(label=_ids, text=_texts, examples=st.lists(_texts, max_size=3, unique=True), fields=st.sampled_from(FIELDS))
    def put(self, label: str, text: str, examples: list[str], fields: dict[str, Any] | None) -> None:
        self.write(PutLabel(label, text, tuple(examples), fields=fields))

    @rule(label=_ids, examples=st.lists(_texts, min_size=1, max_size=2, unique=True))
    def put_by_examples(self, label: str, examples: list[str]) -> None:
        self.write(PutLabel(label, "", tuple(examples)))

    @rule(label=_ids, place=st.integers(0, 31))
    def put_by_vector(self, label: str, place: int) -> None:
        self.write(PutLabel(label, "by vector", vector=tuple(np.eye(32)[place] * 3 + 0.1)))

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        live = [label for label in (*IDS, "s7", "s8") if label in self.truth.ids]
        if live:
            self.write(RemoveLabel(data.draw(st.sampled_from(live))))

    @rule(text=_texts, data=st.data())
    def feed_back(self, text: str, data: st.DataObject) -> None:
        live = [label for label in (*IDS, "s5", "s6") if label in self.truth.ids]
        said = data.draw(st.lists(st.sampled_from(live), min_size=1, max_size=3, unique=True))
        cut = data.draw(st.integers(0, len(said)))
        self.write(Feedback(text, tuple(said[:cut]), tuple(said[cut:])))

    @rule(text=_texts, data=st.data())
    def forget(self, text: str, data: st.DataObject) -> None:
        live = [label for label in (*IDS, "s5", "s6") if label in self.truth.ids]
        self.write(RemoveExample(text, data.draw(st.sampled_from([None, *live]))))

    @rule()
    def restart(self) -> None:
        self.opened.close()
        self.opened = Collection(self.folder)

    @rule()
    def write_the_next_bundle(self) -> None:
        reindex(self.folder, Settings(gate="none"), report=silent, meter=no_meter)
        self.opened.follow_bundle()

    @precondition(lambda self: len(list_bundles(self.folder)) > 1)
    @rule(data=st.data())
    def promote_another(self, data: st.DataObject) -> None:
        promote(self.folder, data.draw(st.sampled_from([entry.name for entry in list_bundles(self.folder)])))
        self.opened.follow_bundle()

    @precondition(lambda self: any(entry.previous for entry in list_bundles(self.folder)))
    @rule()
    def roll_back(self) -> None:
        rollback(self.folder)
        assert self.opened.follow_bundle()

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        prune(self.folder, keep)

    @rule(text=_texts, k=st.sampled_from([1, 3, 10, 60]), asked=st.sampled_from([None, None, *FILTERS]))
    def predict(self, text: str, k: int, asked: dict[str, Any] | None) -> None:
        snapshot = self.opened.snapshot
        only = None if asked is None else LabelFilter.parse(asked)
        predictions = snapshot.predict([text], k, None, only)
        served = {
            snapshot.labels[row].id: score
            for row, score in zip(predictions.rows[0].tolist(), predictions.scores[0].tolist(), strict=True)
            if row >= 0
        }
        query = snapshot.bundle.queries.texts([text])[0]
        ranked = self.truth.ranked(query, self.truth.vectors(), asked)
        names = {row: label for label, row in self.truth.ids.items()}
        scores = {names[row]: score for row, score in ranked}
        assert len(served) == min(k, len(scores))
        assert served == pytest.approx({label: scores[label] for label in served}, abs=2e-5)
        left_out = [score for label, score in scores.items() if label not in served]
        assert max(left_out, default=0.0) <= min(served.values(), default=1.0) + 2e-5
        assert [label.id for _, label in snapshot.labels.after(None)] == [names[row] for row in sorted(names)]


def test_whatever_happens_the_answers_are_those_of_the_model(remembering: Path, tiny_corpus: Path) -> None:
    machine = type("Machine", (Living,), {"origin": remembering, "corpus": tiny_corpus})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # Shrinking a history takes minutes: what failed is told as it is.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
        ),
    )
