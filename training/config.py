"""A run's settings: frozen dataclasses, read from one TOML file and `--set section.key=value`, saved in every run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from index.errors import InputError, first_line
from index.features import FeatureSpec


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """The unified tower: width of the table and of the output, hidden width of the residual MLP and its dropout."""

    dim: int = 256
    hidden: int = 512
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The run. Rates are for the table (row-wise Adagrad), the gates, the free vectors and the dense part (AdamW).

    sampled_labels: labels drawn for each batch beside its positives; the whole label set where it is no larger.
    unseen_share: how often a label that no training query carries is drawn, relative to one that some query does.
    feature_dropout: share of a text's features left out of a step; free_dropout: share of labels seen without their
    free vector. dev_share: held out of train, by group, when the corpus has no dev split. threads: of torch.
    """

    epochs: int = 4
    batch: int = 256
    sampled_labels: int = 4096
    unseen_share: float = 0.2
    temperature: float = 0.05
    table_rate: float = 0.1
    gate_rate: float = 0.1
    free_rate: float = 0.1
    dense_rate: float = 0.002
    weight_decay: float = 0.01
    warmup_steps: int = 50
    feature_dropout: float = 0.1
    free_dropout: float = 0.5
    dev_share: float = 0.05
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run."""

    features: FeatureSpec = field(default_factory=FeatureSpec)
    tower: TowerConfig = field(default_factory=TowerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "sampled_labels", "threads"):
            if getattr(self.training, name) < 1:
                raise InputError(f"training.{name}: must be at least 1, is {getattr(self.training, name)}")
        for section, name in (("tower", "dropout"), ("training", "feature_dropout"), ("training", "free_dropout")):
            if not 0 <= getattr(getattr(self, section), name) < 1:
                raise InputError(f"{section}.{name}: must be at least 0 and below 1")
        if not 0 <= self.training.unseen_share <= 1:
            raise InputError(f"training.unseen_share: must be 0 to 1, is {self.training.unseen_share}")
        if not 0 < self.training.dev_share < 1:
            raise InputError(f"training.dev_share: must be between 0 and 1, is {self.training.dev_share}")
        if self.training.temperature <= 0 or self.tower.dim < 1 or self.tower.hidden < 1:
            raise InputError("training.temperature, tower.dim and tower.hidden: must be positive")


def load_config(path: Path | None, settings: Sequence[str] = ()) -> Config:
    """The defaults, overridden by a TOML file, overridden by `section.key=value` settings (values as in TOML).

    Raises InputError naming the file or setting, the key, and what it takes.
    """
    config = Config()
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable TOML file ({first_line(error)})") from error
        config = _override(config, values, str(path))
    for setting in settings:
        key, equals, text = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot):
            raise InputError(f"--set {setting}: write it as section.key=value, for example training.epochs=3")
        config = _override(config, {section: {name: _value(text)}}, f"--set {setting}")
    return config


def save_config(config: Config, path: Path) -> None:
    path.write_text(tomli_w.dumps(_plain(config)), encoding="utf-8")


def differing_keys(one: Config, other: Config) -> list[str]:
    """The settings in which two configurations differ, as section.key."""
    first, second = _plain(one), _plain(other)
    keys = [(section, key) for section in first for key in first[section]]
    return [f"{section}.{key}" for section, key in keys if first[section][key] != second[section][key]]


def _plain(config: Config) -> dict[str, dict[str, Any]]:
    plain = asdict(config)
    plain["features"]["ngrams"] = list(config.features.ngrams)
    return plain


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _override(config: Config, values: Mapping[str, Any], origin: str) -> Config:
    for section, settings in values.items():
        if section not in {"features", "tower", "training"}:
            raise InputError(f"{origin}: there is no section {section!r}; sections are features, tower, training")
        if not isinstance(settings, Mapping):
            raise InputError(f"{origin}: {section} must be a section, not a value")
        old = getattr(config, section)
        kinds = {item.name: type(getattr(old, item.name)) for item in fields(old)}
        new = {key: _checked(f"{section}.{key}", value, kinds.get(key), origin) for key, value in settings.items()}
        config = replace(config, **{section: replace(old, **new)})
    return config


def _checked(key: str, value: Any, kind: type | None, origin: str) -> Any:
    if kind is None:
        raise InputError(f"{origin}: there is no setting {key}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is tuple and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if type(value) is not kind:
        wanted = "a list of whole numbers" if kind is tuple else f"of type {kind.__name__}"
        raise InputError(f"{origin}: {key} must be {wanted}, is {value!r}")
    return value
