"""`labelspace labels add --field`: values by name, several of one name, and pairs that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.labels import labels
from index.collection import Collection
from index.errors import InputError


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


def test_a_field_that_labels_do_not_have_is_refused_by_name(folder: Path) -> None:
    done = call("add", folder, "new", "--text", "x", "--field", "colour=red")
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("label 'new': field 'colour' is not read by this model")
    with Collection(folder) as opened:
        assert opened.snapshot.change == 0
