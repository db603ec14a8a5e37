"""`labelspace reindex` as it is called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import cli.main
from cli.reindexing import reindex
from cli_support import called
from index.bundles import bundle_names, current_bundle
from index.changes import PutLabel, RemoveLabel
from index.collection import Collection
from index.reindex_work import alone
from reindex_support import left_over, same, served, silent
from tests_support import write_lines
from training.export import export_run


@pytest.fixture(autouse=True)
def a_verb_that_leaves_this_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda by: 0)
    if "reindex" not in cli.main.labelspace.commands:
        cli.main.labelspace.add_command(reindex)


def put(collection: Path) -> list[dict[str, float]]:
    with Collection(collection) as opened:
        opened.write([PutLabel("new", "zebra crossing"), RemoveLabel("s3")])
        return served(opened.snapshot)


def now(collection: Path) -> list[dict[str, float]]:
    with Collection(collection) as opened:
        return served(opened.snapshot)


def test_a_collection_is_reindexed(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, figures = put(collection), tmp_path / "figures.json"
    code, out, _ = called(capsys, monkeypatch, "reindex", collection, "--processes", "1", "--json", figures)
    assert code == 0
    bundle = current_bundle(collection).name
    assert out == f"{collection}: bundle {bundle} with the changes up to 2 is current\n"
    assert bundle.startswith("0002-")
    assert same(now(collection), before)
    said = json.loads(figures.read_text())
    assert (said["bundle"], said["promoted"], said["overlap"]) == (bundle, True, 1.0)


def test_a_dry_run_says_what_would_be_done(
    collection: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(collection)
    code, out, _ = called(capsys, monkeypatch, "reindex", collection, "--dry-run", "--run", tiny_run)
    assert code == 0
    assert "up to 2 there are 2 more" in out
    assert "would have 40 labels" in out
    assert "would be exported first" in out
    assert len(bundle_names(collection)) == 1


def test_a_gate_that_is_not_passed_ends_with_1_and_says_what_to_do(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(collection)
    write_lines(tmp_path / "queries.jsonl", [{"text": "zebra", "labels": ["new"]}])
    arguments = ("reindex", collection, "--queries", tmp_path / "queries.jsonl", "--processes", "1")
    code, _, said = called(capsys, monkeypatch, *arguments, "--gate", "P@1=200")
    assert code == 1
    assert "P@1 is 0, at least 200 is asked for" in said
    assert "labelspace bundles promote" in said
    assert current_bundle(collection).name.startswith("0001-")
    assert called(capsys, monkeypatch, *arguments, "--gate", "none", "--no-promote")[0] == 0
    assert current_bundle(collection).name.startswith("0001-")
    assert called(capsys, monkeypatch, *arguments, "--gate", "none")[0] == 0
    assert current_bundle(collection).name.startswith("0002-")


def test_what_makes_no_sense_is_refused(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(collection)
    calls: list[tuple[tuple[str | Path, ...], str]] = [
        (("reindex", tmp_path / "nowhere"), "no collection here"),
        (("reindex", collection, "--upto", "9"), "the newest change is 2"),
        (("reindex", collection, "--gate", "overlap"), "gate 'overlap'"),
        (("reindex", collection, "--queries", tmp_path / "nowhere"), "could not be read"),
        (("reindex", collection, "--queries", "a", "--corpus", "b"), "give one of them"),
        (("reindex", collection, "--run", tmp_path / "nowhere"), "nowhere"),
    ]
    for arguments, reason in calls:
        code, _, said = called(capsys, monkeypatch, *arguments)
        assert (code, reason in said) == (2, True), said
    with alone(collection, "a re-index"):
        code, _, said = called(capsys, monkeypatch, "reindex", collection)
    assert (code, "another job is at work" in said) == (1, True)
    assert len(bundle_names(collection)) == 1


def test_the_dev_split_of_a_corpus_is_judged_on(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(collection)
    rows: list[dict[str, object]] = [
        {"id": f"d{number}", "text": f"zebra {number}", "labels": ["new"]} for number in range(5)
    ]
    write_lines(tmp_path / "dev.jsonl", rows)
    figures = tmp_path / "figures.json"
    code, _, said = called(
        capsys, monkeypatch, "reindex", collection, "--corpus", tmp_path, "--json", figures, "--processes", "1"
    )
    assert code == 0, said
    assert json.loads(figures.read_text())["judged"] == 5
    (tmp_path / "dev.jsonl").unlink()
    code, _, said = called(capsys, monkeypatch, "reindex", collection, "--corpus", tmp_path, "--recall", "0.9")
    assert (code, "has no dev split" in said) == (2, True)


def test_a_run_is_exported_and_the_changes_are_applied_to_it(
    collection: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(collection)
    arguments = ("reindex", collection, "--run", tiny_run, "--processes", "1")
    code, _, said = called(capsys, monkeypatch, *arguments)
    assert code == 0, said
    # 0002 was the exported one, on the way.
    names = bundle_names(collection)
    assert [name.split("-")[0] for name in names] == ["0001", "0003"]
    assert current_bundle(collection).name == names[1]
    with Collection(collection) as opened:
        assert opened.snapshot.bundle.manifest.change == 2
        assert opened.snapshot.labels.find("new") is not None
        assert opened.snapshot.labels.find("s3") is None
    assert left_over(collection) == []
    assert "already" in called(capsys, monkeypatch, *arguments)[2]


def test_a_run_without_changes_becomes_current_as_it_was_exported(
    tiny_run: Path, collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, said = called(capsys, monkeypatch, "reindex", collection, "--run", tiny_run, "--processes", "1")
    assert code == 0, said
    assert [name.split("-")[0] for name in bundle_names(collection)] == ["0001", "0002"]
    assert current_bundle(collection).name.startswith("0002-")
    assert left_over(collection) == []


def test_a_job_that_was_ended_after_the_export_does_not_export_again(
    collection: Path, tiny_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training import export

    before = put(collection)
    exported = list[int]()

    def counted(*given: object, **named: object) -> str:
        exported.append(1)
        return export_run(*given, **named)  # type: ignore[arg-type]

    def ended(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "export_run", counted)
    arguments = ("reindex", collection, "--run", tiny_run, "--processes", "1")
    with monkeypatch.context() as patch:
        patch.setattr("index.reindex.build_both", ended)
        code, _, said = called(capsys, monkeypatch, *arguments)
        assert (code, "No space left" in said) == (1, True)
    assert same(now(collection), before)
    assert called(capsys, monkeypatch, *arguments)[0] == 0
    assert len(exported) == 1
    assert [name.split("-")[0] for name in bundle_names(collection)] == ["0001", "0003"]
    assert left_over(collection) == []


def test_the_bundle_of_a_run_in_an_empty_collection(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_run(tiny_run, tmp_path / "new", report=silent, promote=False)
    assert not (tmp_path / "new" / "current").exists()
    code, _, said = called(capsys, monkeypatch, "reindex", tmp_path / "new", "--run", tiny_run, "--processes", "1")
    assert code == 0, said
    assert current_bundle(tmp_path / "new").name.startswith("0002-")
