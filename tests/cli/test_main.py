"""The command as a user calls it: output, exit codes, one-line errors, and how fast it starts."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index.collection import current_bundle

COMMAND = Path(sys.executable).with_name("labelspace")


def labelspace(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    return subprocess.run([COMMAND, *arguments], input=given, capture_output=True, env=environment, check=False)


def fails(code: int, *arguments: str | Path, given: bytes = b"") -> str:
    """The one line on standard error of a call that exits with `code`."""
    done = labelspace(*arguments, given=given)
    text = done.stderr.decode()
    assert done.returncode == code, text
    assert "Traceback" not in text
    return text


def test_help_answers_in_half_a_second() -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        done = labelspace("--help")
        times.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert b"serve" in done.stdout
    assert min(times) < 0.5


@pytest.mark.parametrize("module", ["index", "service", "cli.main"])
def test_importing_what_serves_imports_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'training')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_predicting_leaves_nothing_in_the_home_folder(tiny_collection: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    call: list[str | Path] = [COMMAND, "predict", tiny_collection]
    done = subprocess.run(call, input=b"apple pie\n", capture_output=True, env=environment, check=True)
    assert b"telemetry" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_packages_are_those_of_this_checkout() -> None:
    code = "import cli, index, service, training; print(*(m.__file__ for m in (cli, index, service, training)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    root = Path(__file__).parents[2]
    assert [Path(name).parent.parent for name in done.stdout.split()] == [root] * 4


def test_train_export_evaluate_predict_and_labels_the_whole_way(tiny_corpus: Path, tmp_path: Path) -> None:
    run, collection, metrics = tmp_path / "run", tmp_path / "collection", tmp_path / "metrics.json"
    tiny = [f"--set={key}" for key in ("features.rows=4096", "tower.dim=32", "training.epochs=8", "training.batch=32")]
    trained = labelspace("train", tiny_corpus, "--out", run, *tiny)
    assert trained.returncode == 0, trained.stderr
    assert b"epoch 8" in trained.stderr
    again = labelspace("train", tiny_corpus, "--out", run, "--resume")
    assert (again.returncode, b"trained, 8 epochs" in again.stdout) == (0, True)
    assert "already" in fails(2, "train", tiny_corpus, "--out", run)
    exported = labelspace("export", run, "--to", collection)
    assert exported.returncode == 0, exported.stderr
    assert current_bundle(collection).name in exported.stdout.decode()

    evaluated = labelspace("evaluate", collection, tiny_corpus, "--json", metrics)
    assert evaluated.returncode == 0, evaluated.stderr
    figures = json.loads(metrics.read_text())
    assert {"split", "rows", "rows_without_labels", "labels", "metrics", "unseen", "buckets", "propensity"} <= set(
        figures
    )
    assert (figures["rows"], figures["labels"], figures["split"]) == (60, 40, "test")
    assert figures["propensity"] == {"A": 0.55, "B": 1.5}
    assert figures["metrics"]["P@1"] > 90
    assert f"{figures['metrics']['nDCG@5']:6.1f}" in evaluated.stdout.decode()

    assert labelspace("labels", "add", collection, "zebra", "--text", "zebra crossing").returncode == 0
    answer = json.loads(labelspace("predict", collection, "-k", "2", given=b"a zebra crossing\n").stdout)
    assert (answer["labels"][0]["id"], len(answer["labels"])) == ("zebra", 2)
    assert labelspace("labels", "show", collection, "zebra").stdout == b"zebra\tzebra crossing\n"
    assert len(labelspace("labels", "list", collection).stdout.splitlines()) == 41
    assert labelspace("labels", "remove", collection, "zebra").returncode == 0
    assert "no such label" in fails(2, "labels", "show", collection, "zebra")
    assert "no such label" in fails(2, "labels", "remove", collection, "zebra")


def test_predict_reads_lines_and_json_and_answers_bad_lines_in_place(tiny_collection: Path, tmp_path: Path) -> None:
    lines = (
        b'apple pie\n{"id": "q", "text": "bicycle repair"}\n\n{"text": 3}\n{oops\n\xff\xfe\n{"id": 1, "text": "x"}\n'
        + "日本 料理\r\n".encode()
        + b"chess\x00opening"
    )
    done = labelspace("predict", tiny_collection, "-k", "1", given=lines)
    assert done.returncode == 2
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 9
    assert [answer["labels"][0]["id"] for answer in answers if "labels" in answer] == ["s0", "s1", "s39", "s2"]
    assert answers[1]["id"] == "q"
    assert [answer["line"] for answer in answers if "error" in answer] == [3, 4, 5, 6, 7]
    assert b"5 of the lines were not predicted; the first is -:3: is empty" in done.stderr
    file = tmp_path / "texts.txt"
    file.write_bytes(b"apple pie\n" * 300)
    many = labelspace("predict", tiny_collection, file)
    assert (many.returncode, len(many.stdout.splitlines())) == (0, 300)
    assert labelspace("predict", tiny_collection, given=b"").stdout == b""


def test_a_threshold_leaves_out_the_improbable(tiny_collection: Path) -> None:
    def count(threshold: str) -> int:
        done = labelspace("predict", tiny_collection, "-k", "40", "--threshold", threshold, given=b"apple pie\n")
        return len(json.loads(done.stdout)["labels"])

    assert count("0") == 40
    assert 1 <= count("0.5") <= 3


def test_a_text_of_10_megabytes_is_predicted(tiny_collection: Path) -> None:
    done = labelspace("predict", tiny_collection, "-k", "1", given=b"apple pie " * 1_000_000 + b"\nbicycle repair\n")
    assert [json.loads(line)["labels"][0]["id"] for line in done.stdout.splitlines()] == ["s0", "s1"]


def test_bad_calls_name_what_is_wrong(tiny_corpus: Path, tiny_run: Path, collection: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "nowhere" in fails(2, "train", tmp_path / "nowhere", "--out", run)
    assert "no setting training.epoch" in fails(2, "train", tiny_corpus, "--out", run, "--set", "training.epoch=3")
    assert "must be of type int" in fails(2, "train", tiny_corpus, "--out", run, "--set", "training.epochs=many")
    assert "section.key=value" in fails(2, "train", tiny_corpus, "--out", run, "--set", "epochs")
    assert "training.epochs: must be at least 1" in fails(
        2, "train", tiny_corpus, "--out", run, "--set", "training.epochs=0"
    )
    assert not run.exists()
    assert "no run is here" in fails(2, "train", tiny_corpus, "--out", run, "--resume")
    assert "nowhere" in fails(2, "export", tmp_path / "nowhere", "--to", tmp_path / "c")
    assert "no collection here" in fails(2, "evaluate", tmp_path / "nowhere", tiny_corpus)
    assert "no dev split" in fails(2, "evaluate", collection, tiny_corpus, "--split", "dev")
    assert "no such file" in fails(2, "predict", collection, tmp_path / "nowhere.txt")
    assert "Missing argument" in fails(2, "predict")
    assert "No such command" in fails(2, "predikt")
    assert "no collection here" in fails(2, "serve", tmp_path / "nowhere")
    bundle = current_bundle(collection)
    (bundle / "vectors.npy").write_bytes((bundle / "vectors.npy").read_bytes()[:-1] + b"\x01")
    for arguments in (("predict", collection), ("serve", collection, "--port", "0"), ("labels", "list", collection)):
        assert "vectors.npy" in fails(2, *arguments)


def test_a_broken_corpus_is_named_by_file_and_line(tiny_corpus: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_corpus, tmp_path / "broken"))
    lines = gzip.decompress((folder / "train.jsonl.gz").read_bytes()).splitlines()
    lines[11] = b'{"id": "x", "text": "y", "labels": ["s1"'
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    for arguments in (("corpus", "check", folder), ("train", folder, "--out", tmp_path / "run")):
        assert "train.jsonl.gz:12: is not valid JSON" in fails(2, *arguments)
    assert not (tmp_path / "run").exists()


def test_a_reader_that_goes_away_is_no_traceback(tiny_collection: Path) -> None:
    call = f"yes 'apple pie' | head -20000 | {COMMAND} predict {tiny_collection} | head -1"
    done = subprocess.run(["bash", "-c", call], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1
