"""`labelspace bundles`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from click.testing import CliRunner, Result

from cli.bundles import bundles
from index.bundles import current_bundle
from index.errors import BundleError, ConflictError, LabelspaceError


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(bundles, [str(argument) for argument in arguments])


def test_list_promote_and_rollback(collection: Path) -> None:
    first = current_bundle(collection)
    shutil.copytree(first, first.with_name("0002-b"))
    shutil.copytree(first, first.with_name("0003-broken"))
    (first.with_name("0003-broken") / "manifest.json").write_text("{")
    done = call("promote", collection, "0002-b", "--expected", first.name)
    assert (done.exit_code, done.output) == (0, f"{collection}: bundle 0002-b is current\n")
    before, current, broken = call("list", collection).output.splitlines()
    assert before.startswith(f"- {first.name}\t") and "\t40 labels\t" in before and before.endswith(" MB")
    assert current.startswith("* 0002-b\t")
    assert broken.startswith("  0003-broken\t") and "damaged" in broken
    listed = json.loads(call("list", collection, "--json").output)
    assert [(one["name"], one["current"], one["previous"]) for one in listed] == [
        (first.name, False, True), ("0002-b", True, False), ("0003-broken", False, False)
    ]  # fmt: skip
    conflict = call("promote", collection, first.name, "--expected", first.name)
    assert isinstance(conflict.exception, ConflictError) and conflict.exception.exit_code == 1
    assert call("rollback", collection).output == f"{collection}: bundle {first.name} is current\n"
    assert isinstance(call("rollback", collection).exception, LabelspaceError)


def test_verify_and_prune(collection: Path) -> None:
    first = current_bundle(collection)
    size = sum(path.stat().st_size for path in first.iterdir())
    done = call("verify", collection)
    assert (done.exit_code, done.output) == (0, f"{first.name}: sound, {size:,} bytes\nlog: sound, 0 changes\n")
    assert call("prune", collection).output == f"{collection}: nothing to remove\n"
    (first / "query.onnx").write_bytes(b"")
    broken = call("verify", collection, first.name)
    assert isinstance(broken.exception, BundleError)
    assert str(broken.exception) == f"{collection}: 1 of 1 are damaged: {first.name}"
    assert "query.onnx: has 0 bytes" in broken.output
