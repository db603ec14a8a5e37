"""A run's folder: its settings, the corpus and labels that it belongs to, and what is checked before it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from index.errors import BundleError, InputError, first_line
from index.files import write_json
from index.lexicon import Lexicon
from training.config import Config, differing_keys, load_config, save_config
from training.dataset import Dataset

if TYPE_CHECKING:
    from training.published import Published

CONFIG = "config.toml"
# What is needed of the bundle that it is trained against, when the collection has moved on.
PUBLISHED = "published"
_CORPUS = "corpus.json"
_LABELS = "labels.json"


def start_run(
    run: Path,
    corpus: Path,
    dataset: Dataset,
    config: Config,
    begun_from: Path | None = None,
    published: Published | None = None,
) -> None:
    """Make the run's folder with its settings, what was learned of features, and the ids of its labels.

    begun_from: the run whose weights it starts with, which is noted. published: what it is trained against, of which
    all is kept that it needs. Raises InputError when a run is there already.
    """
    if (run / CONFIG).exists():
        raise InputError(f"{run}: a run is there already; go on with --resume, or choose another folder with --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run}: cannot be made ({error.strerror})") from error
    write_json(run / _LABELS, dataset.label_ids)
    if dataset.lexicon is not None:
        dataset.lexicon.save(run)
    note = {"folder": str(corpus.resolve()), "fingerprint": dataset.fingerprint}
    if begun_from is not None:
        note["begun_from"] = str(begun_from.resolve())
    write_json(run / _CORPUS, note)
    if published is not None:
        shutil.rmtree(run / PUBLISHED, ignore_errors=True)  # of a start that was cut off
        published.keep(run / PUBLISHED, queries=config.compatible.weight > 0)
    # Last: where it is, everything that a run needs to be gone on with is there, too.
    save_config(config, run / CONFIG)


def saved_config(run: Path) -> Path | None:
    """The settings that a run, or the first of its seeds, was started with; None where there is none."""
    return next((path for path in (run / CONFIG, run / "seed-0" / CONFIG) if path.is_file()), None)


def run_lexicon(run: Path, config: Config) -> Lexicon | None:
    """What the run learned of features beside numbers; None for nothing. Raises BundleError when it is damaged."""
    return Lexicon.open(run, config.features.lexicon) if config.features.lexicon else None


def check_same_settings(run: Path, config: Config) -> None:
    """Raises InputError naming the settings in which a run differs from this configuration."""
    differing = differing_keys(load_config(run / CONFIG), config)
    if differing:
        raise InputError(f"{run}: was started with other values of {', '.join(differing)}; resume with the same ones")


def corpus_of(run: Path) -> Path:
    """The corpus folder that the run was started with. Raises InputError when there is no run."""
    return Path(_corpus_note(run)["folder"])


def begun_from(run: Path) -> Path | None:
    """The run whose weights it started with; None where it started anew."""
    found = _corpus_note(run).get("begun_from")
    return None if found is None else Path(found)


def label_ids_of(run: Path) -> list[str]:
    """The ids of the labels that the run was started with, in the order of its free vectors.

    Raises InputError when it does not have them, BundleError when they are damaged.
    """
    path = run / _LABELS
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{run}: has no {_LABELS}, the ids of its labels, as runs of earlier versions have not; train it again"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: is damaged ({first_line(error)}); restore it or train the run again") from error
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids) or len(set(ids)) < len(ids):
        raise BundleError(f"{path}: is damaged (no list of different ids); restore it or train the run again")
    return ids


def check_corpus_unchanged(run: Path, dataset: Dataset) -> None:
    """Raises InputError when the run was trained on another corpus: its rows would mean other labels."""
    if _corpus_note(run)["fingerprint"] != dataset.fingerprint:
        raise InputError(f"{run}: was trained on another corpus, or the corpus has changed since; train a new run")


def _corpus_note(run: Path) -> dict[str, str]:
    try:
        note = json.loads((run / _CORPUS).read_text(encoding="utf-8"))
        begun = {"begun_from": str(note["begun_from"])} if "begun_from" in note else {}
        return {"folder": str(note["folder"]), "fingerprint": str(note["fingerprint"]), **begun}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run}: no run is here ({first_line(error)}); `labelspace train` makes one") from error
