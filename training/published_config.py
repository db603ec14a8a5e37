"""The settings of a run against published label vectors: what the bundle decides, and what is left to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from index.errors import InputError
from index.features import FeatureSpec
from training.config import Config, differing_keys, load_config
from training.published import Published
from training.warm_start import as_fitted, continued_config

# What gives a published vector its meaning, beside the features; by kind of tower.
_FIXED = {"unified": ("tower.dim",), "transformer": ("transformer.query_tokens", "transformer.label_tokens")}


def published_defaults(published: Published) -> Config:
    """The settings of a run against this bundle where nothing else is asked for."""
    manifest, standard = published.manifest, Config()
    spec = manifest.features
    config = replace(standard, loss=replace(standard.loss, temperature=manifest.ranking.temperature))
    if isinstance(spec, FeatureSpec):
        config = replace(config, features=spec, tower=replace(config.tower, dim=manifest.dim))
    else:
        lengths = replace(config.transformer, query_tokens=spec.query_tokens, label_tokens=spec.label_tokens)
        kind = replace(config.tower, kind="transformer")
        config = replace(config, tower=kind, transformer=lengths, features=spec.bags or config.features)
    # Without label texts among the queries, a tower that shares nothing with the label tower has no way to learn where
    # labels are that no training query carries.
    return replace(config, label=replace(config.label, text_queries=True))


def published_config(
    published: Published, file: Path | None = None, settings: Sequence[str] = (), init: Path | None = None
) -> Config:
    """The settings of a run against this bundle: its own where a TOML file or `section.key=value` say nothing else.

    init: a run whose query tower it begins with, and whose settings are those that nothing is said of. Labels are not
    trained, whatever is said of that. Raises InputError as load_config and continued_config do, and naming the settings
    that contradict the bundle's.
    """
    wanted = published_defaults(published)
    chosen = load_config(file, settings, wanted) if init is None else continued_config(init, file, settings)
    chosen = replace(
        chosen,
        features=as_fitted(chosen.features, wanted.features),
        tower=replace(chosen.tower, shared=False),
        label=replace(chosen.label, free=False, centroid=False),
        compatible=replace(chosen.compatible, bundle=published.manifest.bundle),
    )
    fixed = ("tower.kind", *_FIXED[wanted.tower.kind])
    differing = [key for key in differing_keys(wanted, chosen) if key in fixed or key.startswith("features.")]
    if differing:
        raise InputError(
            f"{published.folder}: its label vectors mean nothing under other values of {', '.join(differing)}; leave "
            "them as they are there, or train without --against"
        )
    return chosen
