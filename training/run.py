"""A run's folder: its settings, the corpus that it belongs to, and what is checked before it goes on."""

from __future__ import annotations

import json
from pathlib import Path

from index.errors import InputError, first_line
from index.files import write_json
from training.config import Config, differing_keys, load_config, save_config
from training.dataset import Dataset

CONFIG = "config.toml"
_CORPUS = "corpus.json"


def start_run(run: Path, corpus: Path, dataset: Dataset, config: Config) -> None:
    """Make the run's folder with its settings. Raises InputError when a run is there already."""
    if (run / CONFIG).exists():
        raise InputError(f"{run}: a run is there already; go on with --resume, or choose another folder with --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run}: cannot be made ({error.strerror})") from error
    save_config(config, run / CONFIG)
    write_json(run / _CORPUS, {"folder": str(corpus.resolve()), "fingerprint": dataset.fingerprint})


def saved_config(run: Path) -> Path | None:
    """The settings that a run, or the first of its seeds, was started with; None where there is none."""
    return next((path for path in (run / CONFIG, run / "seed-0" / CONFIG) if path.is_file()), None)


def check_same_settings(run: Path, config: Config) -> None:
    """Raises InputError naming the settings in which a run differs from this configuration."""
    differing = differing_keys(load_config(run / CONFIG), config)
    if differing:
        raise InputError(f"{run}: was started with other values of {', '.join(differing)}; resume with the same ones")


def corpus_of(run: Path) -> Path:
    """The corpus folder that the run was started with. Raises InputError when there is no run."""
    return Path(_corpus_note(run)["folder"])


def check_corpus_unchanged(run: Path, dataset: Dataset) -> None:
    """Raises InputError when the run was trained on another corpus: its rows would mean other labels."""
    if _corpus_note(run)["fingerprint"] != dataset.fingerprint:
        raise InputError(f"{run}: was trained on another corpus, or the corpus has changed since; train a new run")


def _corpus_note(run: Path) -> dict[str, str]:
    try:
        note = json.loads((run / _CORPUS).read_text(encoding="utf-8"))
        return {"folder": str(note["folder"]), "fingerprint": str(note["fingerprint"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: no run is here ({first_line(error)}); `labelspace train` makes one") from error
