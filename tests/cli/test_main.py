"""The command as a user calls it: output, exit codes, one-line errors, and how fast it starts."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cli_support import called
from index.bundles import current_bundle
from index.collection import Collection
from tests_support import TINY, write_corpus, write_lines

COMMAND = Path(sys.executable).with_name("labelspace")
Call = Callable[..., tuple[int, str]]


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


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Exit code and last line of standard error of a call in this process."""

    def coded(*arguments: str | Path) -> tuple[int, str]:
        code, _, error = called(capsys, monkeypatch, *arguments)
        return code, error

    return coded


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


def test_bad_calls_name_what_is_wrong(
    tiny_corpus: Path, tiny_run: Path, collection: Path, tmp_path: Path, call: Call
) -> None:
    def refused(*arguments: str | Path) -> str:
        code, line = call(*arguments)
        assert code == 2, line
        return line

    run = tmp_path / "run"
    assert "nowhere" in refused("train", tmp_path / "nowhere", "--out", run)
    assert "no setting training.epoch" in refused("train", tiny_corpus, "--out", run, "--set", "training.epoch=3")
    assert "must be of type int" in refused("train", tiny_corpus, "--out", run, "--set", "training.epochs=many")
    assert "section.key=value" in refused("train", tiny_corpus, "--out", run, "--set", "epochs")
    assert "training.epochs: must be at least 1" in refused(
        "train", tiny_corpus, "--out", run, "--set", "training.epochs=0"
    )
    assert not run.exists()
    assert "no run is here" in refused("train", tiny_corpus, "--out", run, "--resume")
    assert "nowhere" in refused("export", tmp_path / "nowhere", "--to", tmp_path / "c")
    assert "no collection here" in refused("evaluate", tmp_path / "nowhere", tiny_corpus)
    assert "no dev split" in refused("evaluate", collection, tiny_corpus, "--split", "dev")
    assert "no such file" in refused("predict", collection, tmp_path / "nowhere.txt")
    assert "Missing argument" in refused("predict")
    assert "No such command" in refused("predikt")
    assert "no collection here" in refused("serve", tmp_path / "nowhere")
    bundle = current_bundle(collection)
    (bundle / "vectors.npy").write_bytes((bundle / "vectors.npy").read_bytes()[:-1] + b"\x01")
    for arguments in (("predict", collection), ("serve", collection, "--port", "0"), ("labels", "list", collection)):
        assert "vectors.npy" in refused(*arguments)


def test_a_broken_corpus_is_named_by_file_and_line(tiny_corpus: Path, tmp_path: Path, call: Call) -> None:
    folder = Path(shutil.copytree(tiny_corpus, tmp_path / "broken"))
    lines = gzip.decompress((folder / "train.jsonl.gz").read_bytes()).splitlines()
    lines[11] = b'{"id": "x", "text": "y", "labels": ["s1"'
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    for arguments in (("corpus", "check", folder), ("train", folder, "--out", tmp_path / "run")):
        code, line = call(*arguments)
        assert (code, "train.jsonl.gz:12: is not valid JSON" in line) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_reader_that_goes_away_is_no_traceback(tiny_collection: Path) -> None:
    call = f"yes 'apple pie' | head -20000 | {COMMAND} predict {tiny_collection} | head -1"
    done = subprocess.run(["bash", "-c", call], capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


SHORT = [f"--set={setting}" for setting in (*TINY, "training.epochs=2")]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", train=20, test=1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tower.kind=tree", "tower.kind: must be one of unified, transformer, is 'tree'"),
        ("tower.kind=transformer", "transformer.model"),
        ("tower.shared=perhaps", "tower.shared must be of type bool"),
        ("label.free_dropout=1", "label.free_dropout: must be at least 0 and below 1"),
        ("label.centroid=3", "label.centroid must be of type bool"),
        ("loss.name=hinge", "loss: there is no 'hinge'; choose one of decoupled_softmax, soft_top_k"),
        ("loss.temperature=0", "loss.temperature: must be positive"),
        ("loss.prefixes=[16,8]", "loss.prefixes: must be rising widths"),
        ("loss.mixup=2", "loss.mixup: must be at least 0 and at most 1"),
        ("negatives.kind=none", "negatives.kind: must be one of in_batch, uniform, clustered, mined, all, cached"),
        ("negatives.cluster_end=1", "negatives.cluster_end: must be at least 4, is 1"),
        ("negatives.unseen_share=-1", "negatives.unseen_share: must be at least 0"),
        ("memory.mode=full", "memory.mode: must be one of on, off, head"),
        ("training.clip=nan", "training.clip: must be at least 0"),
        ("training.weight_decay=-1", "training.weight_decay: must be at least 0"),
        ("training.seed=1e3", "training.seed must be of type int"),
        ("training.temperature=0.1", "there is no setting training.temperature"),
        ("negative.kind=all", "there is no section 'negative'; sections are features, tower"),
    ],
)
def test_a_wrong_setting_is_one_line_and_no_run(
    setting: str, message: str, call: Call, corpus: Path, tmp_path: Path
) -> None:
    code, line = call("train", corpus, "--out", tmp_path / "run", *SHORT, "--set", setting)
    assert (code, message in line) == (2, True), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--seeds", "17"], "--seeds"),
        (["--seeds", "two"], "--seeds"),
        (["--time-limit", "0"], "--time-limit"),
        (["--time-limit", "-5"], "--time-limit"),
        (["--config", "nowhere.toml"], "nowhere.toml: not a readable TOML file"),
        (["--resume"], "no run is here"),
    ],
)
def test_a_wrong_option_is_one_line_and_no_run(
    options: list[str], message: str, call: Call, corpus: Path, tmp_path: Path
) -> None:
    code, line = call("train", corpus, "--out", tmp_path / "run", *options)
    assert (code, message in line) == (2, True), line
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_gone_on_with_is_named(call: Call, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert call("train", corpus, "--out", run, *SHORT)[0] == 0
    code, line = call("train", corpus, "--out", run, "--resume", *SHORT, "--set", "loss.mixup=0.5", "--set=tower.dim=8")
    assert code == 2
    assert "was started with other values of tower.dim, loss.mixup; resume with the same ones" in line
    code, line = call("train", corpus, "--out", run, "--seeds", "2", "--resume")
    assert (code, "holds a run of one seed" in line) == (2, True)
    code, line = call("export", run, "--to", tmp_path / "collection", "--dim", "33")
    assert (code, "--dim 33: the run's vectors have 32 dimensions; give 1 to 32" in line) == (2, True)
    assert "--dim" in call("export", run, "--to", tmp_path / "collection", "--dim", "0")[1]
    other = write_corpus(tmp_path / "other", train=21)
    code, line = call("train", other, "--out", run, "--resume")
    assert (code, "another corpus" in line) == (2, True)
    assert not (tmp_path / "collection").exists()


def test_one_label_is_refused_and_two_are_enough(call: Call, tmp_path: Path) -> None:
    for count, code in ((1, 2), (2, 0)):
        folder = tmp_path / f"corpus{count}"
        folder.mkdir()
        write_lines(folder / "labels.jsonl", [{"id": f"l{place}", "text": "a label"} for place in range(count)])
        write_lines(folder / "train.jsonl", [{"id": "q", "text": "a question", "labels": ["l0"]}])
        found, line = call("train", folder, "--out", tmp_path / f"run{count}", *SHORT)
        assert found == code, line
        assert (tmp_path / f"run{count}").exists() == (code == 0)
        if code:
            assert "has fewer than 2 labels (1); a corpus needs at least 2" in line


def test_queries_without_labels_and_labels_of_one_text_are_trained_and_served(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_lines(folder / "labels.jsonl", [{"id": f"l{place}", "text": "the same"} for place in range(5)])
    rows: list[dict[str, object]] = [
        {"id": f"q{row}", "text": f"question {row % 5}", "labels": [f"l{row % 5}"] if row % 3 else []}
        for row in range(60)
    ]
    write_lines(folder / "train.jsonl", rows)
    run, collection = tmp_path / "run", tmp_path / "collection"
    several = ["--seeds", "2", "--set", "label.centroid=true", "--set", "negatives.kind=cached"]
    assert call("train", folder, "--out", run, *SHORT, *several)[0] == 0
    assert call("export", run, "--to", collection)[0] == 0
    with Collection(collection) as opened:
        assert opened.snapshot.bundle.manifest.dim == 64
        assert sorted(opened.snapshot.predict(["question 3"], 5).rows[0].tolist()) == [0, 1, 2, 3, 4]
    write_lines(folder / "train.jsonl", [{**row, "labels": []} for row in rows])
    code, line = call("train", folder, "--out", tmp_path / "nothing", *SHORT)
    assert (code, "no training record has a label; there is nothing to learn" in line) == (2, True)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    call: Call, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from training.checkpoint import load_checkpoint

    run, saved = tmp_path / "run", list[Path]()

    def full(tensors: dict[str, torch.Tensor], path: Path, meta: dict[str, str]) -> None:
        saved.append(path)
        if len(saved) > 1:
            path.write_bytes(b"half")
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        save_file(tensors, path, meta)

    monkeypatch.setattr("training.checkpoint.save_file", full)
    code, line = call("train", corpus, "--out", run, *SHORT)
    assert code == 1
    assert "checkpoint.safetensors: could not be written (I/O error: No space left on device (os error 28))" in line
    assert len(load_checkpoint(run)[1].curve) == 1
    assert not list(run.glob(".*"))
    monkeypatch.setattr("training.checkpoint.save_file", save_file)
    assert call("train", corpus, "--out", run, "--resume")[0] == 0
    assert len(load_checkpoint(run)[1].curve) == 2


def test_a_time_limit_ends_a_run_that_can_be_exported(call: Call, corpus: Path, tmp_path: Path) -> None:
    run, began = tmp_path / "run", time.monotonic()
    long = [*SHORT, "--set", "training.epochs=1000000", "--time-limit", "0.5", "--tensorboard"]
    assert call("train", corpus, "--out", run, *long)[0] == 0
    assert time.monotonic() - began < 8
    assert list((run / "tensorboard").iterdir())
    assert call("export", run, "--to", tmp_path / "collection")[0] == 0
