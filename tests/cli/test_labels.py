"""`labelspace labels add --field`: values by name, several of one name, and pairs that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.labels import labels
from index.collection import Collection
from index.label_filter import LabelFilter


@pytest.fixture
def folder(field_collection: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(field_collection, tmp_path / "own"))


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(labels, [str(argument) for argument in arguments])


def test_fields_are_values_or_lists_and_are_shown_again(folder: Path) -> None:
    added = call(
        "add",
        folder,
        "new",
        "--field",
        "type=größe=日本",
        "--field",
        "lang=en",
        "--field",
        "lang=",
        "--field",
        "lang=7",
    )
    assert (added.exit_code, added.output) == (0, "label new: stored as change 1\n")
    fields = {"type": "größe=日本", "lang": ["en", "", "7"]}
    with Collection(folder) as opened:
        snapshot = opened.snapshot
        assert snapshot.labels[8].fields == fields
        assert snapshot.predict([""], 1, [fields]).rows.tolist() == [[8]]
    assert call("show", folder, "new").output == f"new\t\t{json.dumps(fields, ensure_ascii=False)}\n"
    assert call("edit", folder, "new", "--text", "zebra").exit_code == 0
    assert call("show", folder, "new").output == "new\tzebra\n"


@pytest.mark.parametrize("pair", ["type", "=book", " =book", ""])
def test_what_is_no_pair_is_a_wrong_call(folder: Path, pair: str) -> None:
    done = call("add", folder, "new", "--text", "x", "--field", pair)
    assert done.exit_code == 2
    assert f"{pair!r} is not NAME=VALUE" in done.output


def test_a_field_that_no_model_reads_is_kept_to_filter_by(folder: Path) -> None:
    assert call("add", folder, "new", "--text", "x", "--field", "colour=red").exit_code == 0
    with Collection(folder) as opened:
        (row,) = opened.snapshot.labels.matching(LabelFilter.parse({"colour": "red"})).tolist()
        assert opened.snapshot.labels[row].id == "new"
