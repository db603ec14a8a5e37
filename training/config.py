"""A run's settings: frozen dataclasses, read from one TOML file and `--set section.key=value`, saved in every run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import tomli_w

from index.errors import InputError, first_line
from index.features import FeatureSpec
from index.field_spec import parse_fields
from index.files import write_text
from training.transformer_config import TransformerConfig

# torch takes 64 bits; several seeds count up from it.
_LARGEST_SEED = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """The towers. kind: "unified" (one hashed table) or "transformer" ([transformer] has its settings).

    dim, hidden, dropout: of the unified tower: width of the output, hidden width of the residual MLP (0: none) and its
    dropout. row: width of the table's rows where features.separate gives every feature a reader; else rows are as wide
    as the output. shared: whether queries and label texts go through the same weights.
    """

    kind: str = "unified"
    dim: int = 256
    row: int = 32
    hidden: int = 128
    dropout: float = 0.0
    shared: bool = True

    def __post_init__(self) -> None:
        _one_of("tower.kind", self.kind, ("unified", "transformer"))
        _at_least("tower.dim", self.dim, 1)
        _at_least("tower.row", self.row, 1)
        _at_least("tower.hidden", self.hidden, 0)
        _share("tower.dropout", self.dropout)


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The loss over a pool of labels (training.losses).

    k, alpha: of soft top-k. temperature: of the scores. prefixes: nested widths (Matryoshka) that are trained beside
    the whole vector, each a number of leading dimensions. mixup: weight of the loss on mixed query vectors (0: off);
    mixup_alpha: of the Beta distribution that they are mixed by.
    """

    name: str = "decoupled_softmax"
    k: float = 5.0
    alpha: float = 2.0
    temperature: float = 0.05
    prefixes: tuple[int, ...] = ()
    mixup: float = 0.0
    mixup_alpha: float = 2.0

    def __post_init__(self) -> None:
        for key in ("k", "alpha", "temperature", "mixup_alpha"):
            _positive(f"loss.{key}", getattr(self, key))
        _share("loss.mixup", self.mixup, including_1=True)
        if any(width < 1 for width in self.prefixes) or list(self.prefixes) != sorted(set(self.prefixes)):
            raise InputError(f"loss.prefixes: must be rising widths of at least 1, are {list(self.prefixes)}")


@dataclass(frozen=True, slots=True)
class NegativesConfig:
    """The pool of labels that a batch's queries are compared with, beside the positives of all of them.

    kind: "in_batch", no others; "uniform", `sampled` labels drawn at random; "clustered", batches of queries that are
    near each other, and `sampled` labels; "mined", the `mined` nearest wrong labels of each query, and `sampled`
    labels; "all", every label, encoded anew in every step; "cached", every label, by vectors of an earlier step but for
    the positives and the `hardest` labels of the batch.
    unseen_share: how often a label that no training query carries is drawn, relative to one that some query does.
    log_weight: whether drawn labels stand for those that were not. refresh: steps between two encodings of all labels
    (mined, cached) or all queries (clustered). cluster_start, cluster_end: queries in a cluster, at first and at last.
    """

    kind: str = "uniform"
    sampled: int = 4096
    unseen_share: float = 0.2
    log_weight: bool = False
    mined: int = 10
    hardest: int = 1024
    refresh: int = 200
    cluster_start: int = 4
    cluster_end: int = 64

    def __post_init__(self) -> None:
        _one_of("negatives.kind", self.kind, ("in_batch", "uniform", "clustered", "mined", "all", "cached"))
        for key, least in (("sampled", 0), ("mined", 1), ("hardest", 0), ("refresh", 1), ("cluster_start", 1)):
            _at_least(f"negatives.{key}", getattr(self, key), least)
        _at_least("negatives.cluster_end", self.cluster_end, self.cluster_start)
        _share("negatives.unseen_share", self.unseen_share, including_1=True)


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """The parts of a label's vector beside its text (index.label_vector), and their dropout in training.

    text_queries: whether label texts are training queries of their own labels, too.
    """

    free: bool = True
    centroid: bool = False
    free_dropout: float = 0.5
    centroid_dropout: float = 0.3
    text_queries: bool = False

    def __post_init__(self) -> None:
        _share("label.free_dropout", self.free_dropout)
        _share("label.centroid_dropout", self.centroid_dropout)


@dataclass(frozen=True, slots=True)
class CompatibleConfig:
    """A query tower for label vectors that are published (training.published).

    bundle: whose label vectors stay as they are; `labelspace train --against` says it, "" for a run that trains its own
    labels. weight: share in the loss of the term that keeps queries near where the bundle's own query tower has them
    (training.compatibility; 0: off). sharpness: what its cosines are multiplied by.
    """

    bundle: str = ""
    weight: float = 0.3
    sharpness: float = 10.0

    def __post_init__(self) -> None:
        _share("compatible.weight", self.weight)
        _positive("compatible.sharpness", self.sharpness)


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """The example memory of the bundle. mode: "on", "off", or "head": votes only for labels of at least `head_rows`
    training queries. neighbours: examples that vote; more cost time in every prediction. Weight and temperature of the
    votes are chosen on dev at export."""

    mode: str = "on"
    head_rows: int = 10
    neighbours: int = 32

    def __post_init__(self) -> None:
        _one_of("memory.mode", self.mode, ("on", "off", "head"))
        _at_least("memory.head_rows", self.head_rows, 1)
        _at_least("memory.neighbours", self.neighbours, 1)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """The run. Rates are for the table (row-wise Adagrad), the gates, the free vectors and the dense part (AdamW).

    clip: the longest gradient of a step (0: no limit). feature_dropout: share of a text's features left out of a step.
    dev_share: held out of train, by group, when the corpus has no dev split. patience: epochs without a better nDCG@5
    on dev after which training stops (0: never). chunk: texts whose activations are in memory at once (0: all of a
    step); threads: of torch.
    """

    epochs: int = 4
    batch: int = 256
    table_rate: float = 0.1
    gate_rate: float = 0.1
    free_rate: float = 0.1
    dense_rate: float = 0.002
    weight_decay: float = 0.01
    warmup_steps: int = 50
    clip: float = 0.0
    feature_dropout: float = 0.1
    dev_share: float = 0.05
    patience: int = 0
    chunk: int = 0
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        for key in ("epochs", "batch", "threads"):
            _at_least(f"training.{key}", getattr(self, key), 1)
        for key in ("warmup_steps", "patience", "chunk", "seed", "clip", "weight_decay"):
            _at_least(f"training.{key}", getattr(self, key), 0)
        if self.seed > _LARGEST_SEED:
            raise InputError(f"training.seed: must be at most {_LARGEST_SEED}, is {self.seed}")
        for key in ("table_rate", "gate_rate", "free_rate", "dense_rate"):
            _positive(f"training.{key}", getattr(self, key))
        _share("training.feature_dropout", self.feature_dropout)
        if not 0 < self.dev_share < 1:
            raise InputError(f"training.dev_share: must be between 0 and 1, is {self.dev_share}")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run, by section."""

    features: FeatureSpec = field(default_factory=FeatureSpec)
    tower: TowerConfig = field(default_factory=TowerConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    negatives: NegativesConfig = field(default_factory=NegativesConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    compatible: CompatibleConfig = field(default_factory=CompatibleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if self.tower.kind == "transformer" and (self.features.separate or self.features.histories):
            what = "features.separate" if self.features.separate else f"history {self.features.histories[0].name!r}"
            raise InputError(f"{what}: needs tower.kind unified; a transformer takes the other kinds of fields")


SECTIONS = tuple(item.name for item in fields(Config))


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{key}: must be one of {', '.join(choices)}, is {value!r}")


def _at_least(key: str, value: float, least: float) -> None:
    if not value >= least:
        raise InputError(f"{key}: must be at least {least}, is {value}")


def _positive(key: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"{key}: must be positive, is {value}")


def _share(key: str, value: float, *, including_1: bool = False) -> None:
    if not (0 <= value < 1 or (including_1 and value == 1)):
        raise InputError(f"{key}: must be at least 0 and {'at most' if including_1 else 'below'} 1, is {value}")


def load_config(path: Path | None, settings: Sequence[str] = (), defaults: Config | None = None) -> Config:
    """The defaults, overridden by a TOML file, overridden by `section.key=value` settings (values as in TOML).

    defaults: None for those of this program. Raises InputError naming the file or setting, the key, and what it takes.
    """
    config = defaults or Config()
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable TOML file ({first_line(error)})") from error
        config = _override(config, {name: _known(config, name, given, str(path)) for name, given in values.items()})
    chosen: dict[str, dict[str, Any]] = {}  # all at once, for a pair of settings may be right only together
    for setting in settings:
        key, equals, text = setting.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot):
            raise InputError(f"--set {setting}: write it as section.key=value, for example training.epochs=3")
        known = _known(config, section, {name.strip(): _value(text)}, f"--set {setting}")
        chosen.setdefault(section, {}).update(known)
    return _override(config, chosen)


def save_config(config: Config, path: Path) -> None:
    """Replace `path` by these settings in one step."""
    write_text(path, tomli_w.dumps(_plain(config)))


def differing_keys(one: Config, other: Config) -> list[str]:
    """The settings in which two configurations differ, as section.key."""
    first, second = _plain(one), _plain(other)
    keys = [(section, key) for section in first for key in first[section]]
    return [f"{section}.{key}" for section, key in keys if first[section][key] != second[section][key]]


def _plain(config: Config) -> dict[str, dict[str, Any]]:
    plain = {
        section: {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
        for section, settings in asdict(config).items()
    }
    plain["features"]["fields"] = [spec.to_json() for spec in config.features.fields]
    return plain


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _override(config: Config, values: Mapping[str, Mapping[str, Any]]) -> Config:
    return replace(config, **{section: replace(getattr(config, section), **new) for section, new in values.items()})


def _known(config: Config, section: str, settings: Any, origin: str) -> dict[str, Any]:
    """The settings of one section, each of them known and of the right type."""
    if section not in SECTIONS:
        raise InputError(f"{origin}: there is no section {section!r}; sections are {', '.join(SECTIONS)}")
    if not isinstance(settings, Mapping):
        raise InputError(f"{origin}: {section} must be a section, not a value")
    old = getattr(config, section)
    kinds = get_type_hints(type(old))
    return {key: _checked(f"{section}.{key}", value, kinds.get(key), origin) for key, value in settings.items()}


def _crosses(value: Any, origin: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or any(
        not isinstance(cross, list) or any(not isinstance(name, str) for name in cross) for cross in value
    ):
        raise InputError(f"{origin}: features.crosses must be a list of lists of field names, is {value!r}")
    return tuple(tuple(cross) for cross in value)


def _checked(key: str, value: Any, kind: Any, origin: str) -> Any:
    if kind is None:
        raise InputError(f"{origin}: there is no setting {key}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if key == "features.fields":
        return parse_fields(value)
    if key == "features.crosses":
        return _crosses(value, origin)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, list) and all(type(one) is item for one in value):
            return tuple(value)
        wanted = "a list of whole numbers" if item is int else "a list of strings"
    else:
        if type(value) is kind:
            return value
        wanted = f"of type {kind.__name__}"
    raise InputError(f"{origin}: {key} must be {wanted}, is {value!r}")
