"""What a new run takes over from an earlier one: its settings, and the weights and sums of its best checkpoint."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from index.errors import BundleError, InputError
from index.features import FeatureSpec
from training.checkpoint import load_best
from training.config import Config, differing_keys, load_config
from training.members import member_runs
from training.run import CONFIG, label_ids_of, saved_config

# What gives the weights their meaning. Of a transformer, the rest says only how it is trained, and on what.
_TOWER = ("kind", "dim", "row", "hidden", "shared")
_TRANSFORMER = ("model", "pooling", "query_tokens", "label_tokens", "projection", "lora_rank", "lora_alpha")


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that another one starts from.

    tensors: of its best checkpoint, without the moments of AdamW. label_ids: of its free vectors, in their order.
    loss: the name of its loss. epochs: how many it had trained by then.
    """

    run: Path
    tensors: dict[str, Tensor]
    label_ids: list[str]
    loss: str
    epochs: int

    @classmethod
    def open(cls, run: Path, config: Config) -> Earlier:
        """The run in this folder, for one of these settings.

        Raises InputError naming the settings that have to be the same and are not, or when the run does not know its
        labels; BundleError when its checkpoint is not there or damaged.
        """
        settings = load_config(run / CONFIG)
        check_same_meaning(run, settings, config)
        ids = label_ids_of(run)
        tensors, position = load_best(run)
        if "free" not in tensors or len(tensors["free"]) != len(ids):
            raise BundleError(f"{run}: its checkpoint and its label ids are not of one run; restore it or train again")
        # Moments belong to a course of training that is over. The sums of Adagrad stay: they are how much each row has
        # learned, and keep those that have learned much from being moved by little.
        kept = {name: value for name, value in tensors.items() if ".adamw." not in f".{name}"}
        return cls(run, kept, ids, settings.loss.name, len(position.curve))

    def same_labels(self, label_ids: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of these labels, the rows of those that the run knew, here and there; both (known,)."""
        there = {label: row for row, label in enumerate(self.label_ids)}
        here = [row for row, label in enumerate(label_ids) if label in there]
        return np.array(here, dtype=np.int64), np.array([there[label_ids[row]] for row in here], dtype=np.int64)


def earlier_runs(run: Path) -> list[Path]:
    """The run in this folder, or those of its seeds. Raises InputError when there is none."""
    runs = member_runs(run)
    for member in runs:
        if not (member / CONFIG).is_file():
            raise InputError(f"{member}: no run is here ({CONFIG} is missing); `labelspace train` makes one")
    return runs


def continued_config(run: Path, file: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """The run's settings, overridden by those that a TOML file names, overridden by `section.key=value` settings.

    What was fitted to the run's corpus stays as it is. Raises InputError as load_config does, when there is no run,
    and naming the settings that have to be the same and are not.
    """
    earlier_runs(run)
    saved = saved_config(run)
    old = load_config(saved)
    if file is None:
        chosen = load_config(saved, settings)
    else:
        given = load_config(file, settings)
        named = [(section, key) for section, keys in tomllib.loads(file.read_text("utf-8")).items() for key in keys]
        for setting in settings:
            section, _, key = setting.partition("=")[0].strip().partition(".")
            named.append((section, key.strip()))
        chosen = old
        for section in dict.fromkeys(section for section, _ in named):
            over = {key: getattr(getattr(given, section), key) for one, key in named if one == section}
            chosen = replace(chosen, **{section: replace(getattr(chosen, section), **over)})
    chosen = replace(chosen, features=as_fitted(chosen.features, old.features))
    check_same_meaning(run, old, chosen)
    return chosen


def check_same_meaning(run: Path, old: Config, new: Config) -> None:
    """Raises InputError naming the settings that give the weights their meaning and are not the run's."""
    meaning = {*(f"tower.{key}" for key in _TOWER), *(f"transformer.{key}" for key in _TRANSFORMER)}
    if new.compatible.bundle:
        meaning.discard("tower.shared")  # its query tower begins where the run's has come to, shared or not
    differing = [key for key in differing_keys(old, new) if key in meaning or key.startswith("features.")]
    if differing:
        raise InputError(
            f"{run}: its weights mean nothing under other values of {', '.join(differing)}; leave them as they are "
            "there, or train anew without --init"
        )


def as_fitted(spec: FeatureSpec, fitted: FeatureSpec) -> FeatureSpec:
    """The spec with what was fitted for the other one, where it leaves that open."""
    # As a file does that the run was begun with.
    edges = {field.name: field.edges for field in fitted.fields}
    fields = tuple(
        field if field.edges or field.kind != "numeric" else replace(field, edges=edges.get(field.name, ()))
        for field in spec.fields
    )
    spec = replace(spec, fields=fields, lexicon=spec.lexicon or fitted.lexicon)
    if not spec.parts and (spec.namespaces, spec.rows) == (fitted.namespaces, fitted.rows):
        spec = replace(spec, parts=fitted.parts)
    # A row for each value: how many rows there are is fitted, too.
    return replace(spec, rows=fitted.rows) if spec.table == fitted.table == "exact" else spec
