"""The steps of the demo; each leaves a file behind that tells the next run to skip it."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click

from index.errors import InputError, LabelspaceError

_START_SECONDS = 120
_NEW_LABEL = "lib-labelspace-demo-quasar"
_NEW_TEXT = "lib-labelspace-demo-quasar: quasar spectrum redshift fitting library"
_ABOUT_IT = "quasarfit: fit redshifts of quasar spectra. Command line tool that fits the redshift of a quasar spectrum."


@dataclass(frozen=True, slots=True)
class _Step:
    """A verb of the command line with its log; `done` exists once it has succeeded."""

    name: str
    done: Path
    arguments: tuple[str, ...]


def prepare(folder: Path) -> None:
    """Corpus, run, collection and metrics, each where it is not there yet. Raises LabelspaceError when one fails."""
    corpus, run, collection = folder / "corpus", folder / "run", folder / "collection"
    folder.mkdir(parents=True, exist_ok=True)
    trained, metrics = run / "trained", folder / "metrics.json"
    if not (corpus / "train.jsonl.gz").exists() and shutil.which("apt-get") is None:
        raise InputError(
            "the demo's corpus is made from apt's package lists, and there is no apt-get here. With a corpus of your "
            f"own (docs/corpus.md): labelspace train CORPUS --out {run}; labelspace export {run} --to {collection}; "
            f"labelspace serve {collection}"
        )
    resume = ("--resume",) if (run / "checkpoint.safetensors").exists() else ()
    if (run / "config.toml").exists() and not resume:
        shutil.rmtree(run)  # stopped before its first checkpoint: nothing to go on from
    _run(_Step("corpus", corpus / "train.jsonl.gz", ("corpus", "debian", str(corpus))), folder)
    _run(_Step("train", trained, ("train", str(corpus), "--out", str(run), *resume)), folder)
    trained.touch()
    _run(_Step("export", collection / "current", ("export", str(run), "--to", str(collection))), folder)
    _run(
        _Step("evaluate", metrics, ("evaluate", str(collection), str(corpus), "--json", str(metrics))),
        folder,
    )


def _run(step: _Step, folder: Path) -> None:
    if step.done.exists():
        click.echo(f"== {step.name}: done before ({step.done})")
        return
    shown = " ".join(step.arguments)
    click.echo(f"== {step.name}: labelspace {shown}")
    began = time.monotonic()
    log = folder / f"{step.name}.log"
    with log.open("w", encoding="utf-8") as file:
        code = _follow(step.arguments, file)
    if code:
        raise LabelspaceError(f"`labelspace {shown}` failed; its output is in {log}")
    click.echo(f"   {time.monotonic() - began:.0f} s")


def _follow(arguments: tuple[str, ...], log: IO[str]) -> int:
    """Run a verb in a process of its own, so that its memory goes with it; show and keep what it says."""
    command = [sys.executable, "-m", "cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        try:
            for line in process.stdout:
                click.echo(f"   {line}", nl=False)
                log.write(line)
        except KeyboardInterrupt:
            # Ctrl-C reaches the child too: it saves what it has and says so.
            process.wait()
            raise
        return process.wait()


def serve_and_show(folder: Path, port: int, *, stay: bool) -> None:
    """Start the service, predict, add a label, predict it, remove it; then stay with the service or stop it."""
    port = _free_port(port)
    command = [sys.executable, "-m", "cli", "serve", str(folder / "collection"), "--port", str(port)]
    click.echo(f"== serve: labelspace serve {folder / 'collection'} --port {port}")
    address = f"http://127.0.0.1:{port}"
    with (folder / "serve.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_ready(address, process, folder / "serve.log")
            _show(address, folder)
            if stay:
                click.echo(f"\nThe service is running at {address} (page, and API at {address}/docs). Ctrl-C stops it.")
                process.wait()
        except KeyboardInterrupt:
            pass
        finally:
            process.terminate()
            process.wait(timeout=30)


def _show(address: str, folder: Path) -> None:
    text = _a_test_text(folder / "corpus")
    click.echo(f"\nA package description of the test split:\n  {text[:300]}")
    _print_labels(_call("POST", f"{address}/v1/predict", {"inputs": [{"text": text}], "top_k": 5}))
    click.echo(f"\nA label that does not exist yet: {_NEW_LABEL}")
    began = time.monotonic()
    added = _call("PUT", f"{address}/v1/labels/{_NEW_LABEL}?wait=true", {"text": _NEW_TEXT})
    click.echo(f"  added as change {added['change']} in {1000 * (time.monotonic() - began):.0f} ms")
    click.echo(f"A text about it:\n  {_ABOUT_IT}")
    answer = _call("POST", f"{address}/v1/predict", {"inputs": [{"text": _ABOUT_IT}], "top_k": 5})
    _print_labels(answer)
    if _NEW_LABEL not in _ids(answer):
        raise LabelspaceError(f"{_NEW_LABEL} was added but is not among the first labels of a text about it")
    removed = _call("DELETE", f"{address}/v1/labels/{_NEW_LABEL}", None)
    again = _call("POST", f"{address}/v1/predict", {"inputs": [{"text": _ABOUT_IT}], "top_k": 5})
    if _NEW_LABEL in _ids(again):
        raise LabelspaceError(f"{_NEW_LABEL} was removed but is still predicted")
    click.echo(f"  removed by change {removed['change']}, and predicted no more")


def _a_test_text(corpus: Path) -> str:
    with gzip.open(corpus / "test.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts: list[str] = [json.loads(line)["text"] for line, _ in zip(lines, range(2000), strict=False)]
    return next((text for text in texts if text.startswith("gimp")), texts[len(texts) // 2])


def _ids(answer: Any) -> list[str]:
    return [label["id"] for label in answer["predictions"][0]["labels"]]


def _print_labels(answer: Any) -> None:
    for label in answer["predictions"][0]["labels"]:
        bar = "#" * max(1, round(20 * label["probability"]))
        click.echo(f"  {label['probability']:5.2f} {bar:<20} {label['text'][:70]}")


def _call(method: str, url: str, body: object) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - our own address
    try:
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())
    except HTTPError as error:
        raise LabelspaceError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')[:300]}") from error


def _wait_until_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8").strip().splitlines()
            raise LabelspaceError(f"the service did not start: {lines[-1] if lines else 'no output'}")
        try:
            with urlopen(f"{address}/readyz", timeout=5):  # noqa: S310
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise LabelspaceError(f"the service was not ready after {_START_SECONDS} s; its output is in {log}")


def _free_port(wanted: int) -> int:
    """The wanted port, or another where that one is taken (0: any)."""
    try:
        with socket.create_server(("127.0.0.1", wanted)) as probe:
            return int(probe.getsockname()[1])
    except OSError:
        return _free_port(0)
