"""Re-indexing: nobody who asks can tell that it happened, and no end of it leaves the collection otherwise."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from index import reindex, reindex_build
from index.bundle import read_manifest
from index.bundles import bundle_names, current_bundle
from index.changes import Feedback, LabelChange, PutLabel, RemoveExample, RemoveLabel
from index.collection import Collection
from index.comparison import compare
from index.dev_queries import DevQuery
from index.errors import ConflictError, InputError
from index.files import write_json
from index.plan import Calibration
from index.reindex import Settings
from index.reindex_plan import plan_reindex
from index.reindex_work import alone
from reindex_support import CHANGES, changed, copied, done, left_over, now, same, silent

TEXTS = ("zebra crossing", "saffron tunnel", "velvet glove", "umbrella stand", "xylophone song", "notes on roman road")


def test_the_new_bundle_serves_what_was_served(voting: Path) -> None:
    before = changed(voting)
    outcome = done(voting)
    assert outcome.promoted
    assert outcome.change == len(CHANGES)
    assert outcome.comparison is not None
    assert outcome.comparison.overlap == 1.0
    assert same(now(voting), before)
    with Collection(voting) as opened:
        bundle, labels = opened.snapshot.bundle, opened.snapshot.labels
        assert bundle.manifest.change == opened.snapshot.change == len(CHANGES)
        # 40 of training, three new, one removed: all in the table, and none beside it.
        assert len(bundle.labels) == len(labels) == labels.rows == bundle.index.ntotal == 42
        assert [label.id for _, label in labels.after(None)][:5] == ["s0", "s1", "s2", "s4", "s5"]
        assert opened.snapshot.labels[labels.find("n1") or 0].fields == {"lang": "de"}
        assert bundle.memory is not None
        assert bundle.memory.ntotal == bundle.manifest.examples
    assert left_over(voting) == []
    assert (current_bundle(voting) / "metrics.json").exists()


def random_change(chooser: random.Random, live: set[str]) -> LabelChange:
    some = sorted(live)
    kind = chooser.choice(("put", "put", "remove", "feedback", "feedback", "forget", "forget one"))
    text, label = chooser.choice(TEXTS), chooser.choice(some)
    match kind:
        case "put":
            name = chooser.choice([*some[:6], *(f"n{number}" for number in range(3))])
            examples = tuple(chooser.sample(TEXTS, chooser.choice((0, 0, 1, 2))))
            vector = tuple(chooser.gauss(0, 1) for _ in range(32)) if chooser.random() < 0.15 else None
            live.add(name)
            return PutLabel(name, chooser.choice(TEXTS), examples, vector)
        case "remove" if len(live) > 30:
            live.discard(label)
            return RemoveLabel(label)
        case "forget":
            return RemoveExample(text)
        case "forget one":
            return RemoveExample(text, label)
    others = chooser.sample(some, 3)
    return Feedback(text, tuple(others[:2]), tuple(others[2:]))


@pytest.mark.parametrize("seed", range(3))
def test_any_changes_before_and_after_serve_the_same_as_without_a_reindex(
    seed: int, voting_collection: Path, tmp_path: Path
) -> None:
    plain, indexed = (copied(voting_collection, tmp_path / name) for name in ("plain", "indexed"))
    chooser, live = random.Random(seed), {f"s{number}" for number in range(40)}
    for _ in range(3):
        block = [random_change(chooser, live) for _ in range(8)]
        for collection in (plain, indexed):
            with Collection(collection) as opened:
                opened.write(block)
        # Now and then all that was there, now and then without the last ones.
        newest = read_manifest(current_bundle(indexed)).change
        upto = chooser.choice((None, newest + 5))
        done(indexed, Settings(upto=upto, gate="none"))
        assert same(now(indexed), now(plain))


def test_a_training_example_taken_back_stays_away(voting: Path) -> None:
    with Collection(voting) as opened:
        examples = opened.snapshot.bundle.example_labels
    text = next(
        json.loads(line)["text"]
        for line in (current_bundle(voting) / "dev.jsonl").read_text().splitlines()
        if json.loads(line)["labels"]
    )
    before = changed(voting, (RemoveExample(text), RemoveLabel("s1"), RemoveLabel("s2")))
    done(voting)
    assert same(now(voting), before)
    with Collection(voting) as opened:
        assert len(opened.snapshot.bundle.example_labels) < len(examples)


def test_changes_that_are_logged_meanwhile_are_in_the_log_still(voting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(voting)
    built = reindex_build.build_both

    def and_meanwhile(*given: object, **named: object) -> object:
        with Collection(voting) as opened:
            opened.write([PutLabel("late", "yacht"), RemoveLabel("n1")])
        return built(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(reindex, "build_both", and_meanwhile)
    assert done(voting).change == len(CHANGES)
    with Collection(voting) as opened:
        assert opened.snapshot.bundle.manifest.change == len(CHANGES)
        assert opened.snapshot.change == len(CHANGES) + 2
        assert opened.snapshot.labels.find("n1") is None
        assert opened.snapshot.labels.find("late") is not None


def test_a_second_reindex_of_the_same_changes_has_nothing_to_do(voting: Path) -> None:
    changed(voting)
    first = done(voting)
    said = list[str]()
    assert done(voting, said=said).bundle == first.bundle
    assert "has all changes up to 6 already" in said[-1]
    assert done(voting, Settings(recall=0.9)).bundle != first.bundle


def test_a_factory_string_says_what_is_built(voting: Path) -> None:
    before = changed(voting)
    outcome = done(voting, Settings(index="HNSW16,Flat"))
    assert outcome.promoted
    assert read_manifest(current_bundle(voting)).index.factory == "HNSW16,Flat"
    # In a graph of 42 nothing is missed.
    assert same(now(voting), before)


def test_without_queries_in_the_bundle_stored_vectors_stand_in(voting: Path, tmp_path: Path) -> None:
    before = changed(voting)
    folder = current_bundle(voting)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["dev.jsonl"]
    (folder / "dev.jsonl").unlink()
    write_sealed(folder, manifest)
    said = list[str]()
    outcome = done(voting, said=said)
    assert any("tuned on stored vectors with noise" in line for line in said)
    assert outcome.comparison is not None
    assert (outcome.comparison.judged, outcome.comparison.old.quality) == (0, {})
    assert outcome.comparison.queries > 10
    assert same(now(voting), before)


def write_sealed(folder: Path, manifest: dict[str, object]) -> None:
    from index.files import sha256_of, write_text

    write_json(folder / "manifest.json", manifest)
    write_text(folder / "manifest.sha256", sha256_of(folder / "manifest.json") + "\n")


def test_a_gate_that_is_not_reached_leaves_what_is_current(voting: Path) -> None:
    before, first = changed(voting), current_bundle(voting)
    queries = (DevQuery("zebra", None, ("n1",)),)
    outcome = done(voting, Settings(gate="P@1=101", queries=queries))
    assert not outcome.promoted
    assert outcome.failures == ("P@1 is 0, at least 101 is asked for",)
    assert current_bundle(voting) == first
    assert bundle_names(voting) == [first.name, outcome.bundle]
    assert same(now(voting), before)
    assert left_over(voting) == []
    # With another gate the bundle that is there is judged again, and not written again.
    again = done(voting, Settings(gate="none", queries=queries))
    assert again.promoted
    assert again.bundle == outcome.bundle
    assert same(now(voting), before)


def test_no_promote_leaves_what_is_current(voting: Path) -> None:
    first = current_bundle(voting)
    changed(voting)
    outcome = done(voting, Settings(promote=False))
    assert (outcome.promoted, outcome.failures) == (False, ())
    assert current_bundle(voting) == first


def test_a_bundle_that_became_current_meanwhile_stays_current(
    voting: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.export import export_run

    changed(voting)

    def and_meanwhile(*given: object) -> object:
        export_run(tiny_run, voting, report=silent)
        return compare(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(reindex, "compare", and_meanwhile)
    with pytest.raises(ConflictError, match="is current by now"):
        done(voting)
    assert current_bundle(voting).name.startswith("0003-")


def test_a_second_job_is_refused_and_told_who_is_at_work(voting: Path) -> None:
    with (
        alone(voting, "a re-index"),
        pytest.raises(ConflictError, match=rf"a re-index, process {os.getpid()} on "),
    ):
        done(voting)
    done(voting)


def test_changes_that_are_not_there_are_refused(voting: Path) -> None:
    changed(voting)
    with pytest.raises(InputError, match="upto 7: the newest change is 6"):
        done(voting, Settings(upto=7))
    done(voting)
    with pytest.raises(InputError, match=r"upto 2: bundle 0002-\w+ has the changes up to 6 already"):
        done(voting, Settings(upto=2))
    with pytest.raises(InputError, match="HNSW-of-sorts"):
        done(voting, Settings(index="HNSW-of-sorts"))
    with pytest.raises(InputError, match="gate 'speed=1'"):
        done(voting, Settings(gate="speed=1"))


def test_all_labels_removed_and_then_one(voting: Path) -> None:
    changed(voting, tuple(RemoveLabel(f"s{number}") for number in range(40)))
    done(voting, Settings(gate="none"))
    assert now(voting) == [{}] * 10
    changed(voting, (PutLabel("only", "zebra"),))
    done(voting, Settings(gate="none"))
    with Collection(voting) as opened:
        assert [label.id for _, label in opened.snapshot.labels.after(None)] == ["only"]


def test_a_dry_run_counts_and_writes_nothing(voting: Path) -> None:
    changed(voting)
    before = sorted(path.relative_to(voting) for path in voting.rglob("*") if "sqlite" not in path.name)
    plan = plan_reindex(voting, calibrate=lambda spec, dim, effort: Calibration(0.0, 1.0, 1, 0.0, 0.0, 0.0))
    # At a second for each vector that is added: 42 labels, and 315 examples beside those that were given.
    assert (plan.index, plan.building_seconds) == ("Flat", 42 + 315 + 3)
    assert (plan.after, plan.upto, plan.changes) == (0, 6, 6)
    assert (plan.puts, plan.removals, plan.feedback, plan.labels) == (4, 1, 1, 42)
    assert sorted(path.relative_to(voting) for path in voting.rglob("*") if "sqlite" not in path.name) == before
    assert done(voting).change == 6
    new = sum(seal.bytes for seal in read_manifest(current_bundle(voting)).files.values())
    assert plan.bytes == pytest.approx(new, rel=0.25)


def test_the_meter_is_told_of_every_text(voting: Path) -> None:
    changed(voting)
    told = list[int]()

    def meter(what: str, total: int, before: int) -> object:
        told.append(-total)
        return _Meter(told)

    reindex.reindex(voting, Settings(), report=silent, meter=meter)  # type: ignore[arg-type]
    assert sum(told) == 0
    assert told[0] < 0


class _Meter:
    def __init__(self, told: list[int]) -> None:
        self.told = told

    def __enter__(self) -> Callable[[int], None]:
        return self.told.append

    def __exit__(self, *raised: object) -> None:
        pass
