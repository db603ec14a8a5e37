"""Settings: what is read, what is refused and how it is named, and the same again from what was saved."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from index.errors import InputError
from index.field_spec import FieldSpec
from training.config import SECTIONS, Config, differing_keys, load_config, save_config

OTHER = (
    "features.rows=999", "features.ngrams=[2, 5]", "features.pairs=false", "features.characters=77", "features.seed=3",
    'features.fields={type={kind="categorical", probes=2}, lang={}}', 'features.crosses=[["type", "lang"]]',
    "features.probes=2", "features.pieces=100", "features.separate=true", 'features.table="split"',
    'features.unseen="ignore"', f"features.parts={list(range(9))}", 'features.lexicon="abc"', "tower.row=16",
    "tower.dim=48", "tower.hidden=0", "tower.dropout=0.25", "tower.shared=false",
    "label.free=false", "label.centroid=true", "label.free_dropout=0", "label.centroid_dropout=0.9",
    "label.text_queries=true", "loss.name=soft_top_k", "loss.k=3", "loss.alpha=1.5", "loss.temperature=1",
    "loss.prefixes=[8, 16]", "loss.mixup=1", "loss.mixup_alpha=0.2",
    "negatives.kind=cached", "negatives.sampled=0", "negatives.unseen_share=1", "negatives.log_weight=true",
    "negatives.mined=1", "negatives.hardest=0", "negatives.refresh=1", "negatives.cluster_start=2",
    "negatives.cluster_end=9", "memory.mode=head", "memory.head_rows=3", "memory.neighbours=5",
    "compatible.bundle=0001-abc", "compatible.weight=0.5", "compatible.sharpness=2",
    "training.epochs=9", "training.batch=1",
    "training.table_rate=1", "training.gate_rate=0.5", "training.free_rate=2", "training.dense_rate=1e-5",
    "training.weight_decay=0", "training.warmup_steps=0", "training.clip=1", "training.feature_dropout=0",
    "training.dev_share=0.5", "training.patience=2", "training.chunk=64", "training.seed=7", "training.threads=1",
)  # fmt: skip

REFUSED = (
    ("tower.kind=tree", "tower.kind: must be one of unified, transformer, is 'tree'"),
    ("tower.dim=0", "tower.dim: must be at least 1, is 0"),
    ("tower.hidden=-1", "tower.hidden: must be at least 0"),
    ("tower.dropout=1", "tower.dropout: must be at least 0 and below 1, is 1"),
    ("tower.shared=1", "tower.shared must be of type bool, is 1"),
    ("label.free_dropout=1.0", "label.free_dropout"),
    ("label.centroid_dropout=-0.1", "label.centroid_dropout"),
    ("label.centroid=yes", "label.centroid must be of type bool, is 'yes'"),
    ("label.text_queries=1.5", "label.text_queries must be of type bool"),
    ("loss.k=0", "loss.k: must be positive"),
    ("loss.alpha=-1", "loss.alpha: must be positive"),
    ("loss.temperature=nan", "loss.temperature: must be positive, is nan"),
    ("loss.temperature=inf", "loss.temperature: must be positive, is inf"),
    ("loss.mixup_alpha=0", "loss.mixup_alpha: must be positive"),
    ("loss.mixup=1.1", "loss.mixup: must be at least 0 and at most 1"),
    ("loss.name=3", "loss.name must be of type str, is 3"),
    ("loss.prefixes=[16, 8]", "loss.prefixes: must be rising widths of at least 1, are [16, 8]"),
    ("loss.prefixes=[8, 8]", "loss.prefixes: must be rising"),
    ("loss.prefixes=[0]", "loss.prefixes: must be rising"),
    ("loss.prefixes=8", "loss.prefixes must be a list of whole numbers, is 8"),
    ("loss.prefixes=[1.5]", "loss.prefixes must be a list of whole numbers"),
    ("loss.prefixes=[true]", "loss.prefixes must be a list of whole numbers"),
    ("compatible.weight=1", "compatible.weight: must be at least 0 and below 1, is 1"),
    ("compatible.sharpness=0", "compatible.sharpness: must be positive, is 0"),
    ("compatible.bundle=1", "compatible.bundle must be of type str, is 1"),
    ("negatives.kind=hard", "negatives.kind: must be one of in_batch, uniform, clustered, mined, all, cached"),
    ("negatives.sampled=-1", "negatives.sampled: must be at least 0"),
    ("negatives.mined=0", "negatives.mined: must be at least 1"),
    ("negatives.hardest=-1", "negatives.hardest: must be at least 0"),
    ("negatives.refresh=0", "negatives.refresh: must be at least 1"),
    ("negatives.cluster_start=0", "negatives.cluster_start: must be at least 1"),
    ("negatives.cluster_end=3", "negatives.cluster_end: must be at least 4, is 3"),
    ("negatives.unseen_share=1.5", "negatives.unseen_share: must be at least 0 and at most 1"),
    ("negatives.log_weight=0", "negatives.log_weight must be of type bool"),
    ("memory.mode=maybe", "memory.mode: must be one of on, off, head, is 'maybe'"),
    ("memory.head_rows=0", "memory.head_rows: must be at least 1"),
    ("memory.neighbours=0", "memory.neighbours: must be at least 1"),
    ("training.epochs=0", "training.epochs: must be at least 1, is 0"),
    ("training.epochs=2.5", "training.epochs must be of type int, is 2.5"),
    ("training.epochs=true", "training.epochs must be of type int, is True"),
    ("training.batch=0", "training.batch: must be at least 1"),
    ("training.threads=0", "training.threads: must be at least 1"),
    ("training.clip=-1", "training.clip: must be at least 0"),
    ("training.clip=nan", "training.clip: must be at least 0"),
    ("training.patience=-1", "training.patience: must be at least 0"),
    ("training.chunk=-1", "training.chunk: must be at least 0"),
    ("training.seed=-1", "training.seed: must be at least 0"),
    ("training.seed=99999999999999999999", "training.seed: must be at most"),
    ("training.weight_decay=-0.1", "training.weight_decay: must be at least 0"),
    ("training.weight_decay=nan", "training.weight_decay: must be at least 0"),
    ("training.warmup_steps=-1", "training.warmup_steps: must be at least 0"),
    ("training.table_rate=0", "training.table_rate: must be positive"),
    ("training.gate_rate=0", "training.gate_rate: must be positive"),
    ("training.free_rate=0", "training.free_rate: must be positive"),
    ("training.dense_rate=inf", "training.dense_rate: must be positive"),
    ("training.feature_dropout=1", "training.feature_dropout: must be at least 0 and below 1"),
    ("training.dev_share=0", "training.dev_share: must be between 0 and 1"),
    ("training.dev_share=1", "training.dev_share: must be between 0 and 1"),
    ("features.rows=0", "features: rows and characters must be positive"),
    ("features.ngrams=[1]", "features: "),
    ("tree.depth=3", "--set tree.depth=3: there is no section 'tree'; sections are features, tower, transformer, "),
    ("tower.depth=3", "--set tower.depth=3: there is no setting tower.depth"),
    ("training.temperature=0.1", "there is no setting training.temperature"),
    ("epochs=3", "--set epochs=3: write it as section.key=value"),
    ("training.epochs", "--set training.epochs: write it as section.key=value"),
    ("", "--set : write it as section.key=value"),
)  # fmt: skip


@pytest.mark.parametrize(("setting", "message"), REFUSED, ids=[setting for setting, _ in REFUSED])
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(setting: str, message: str) -> None:
    with pytest.raises(InputError) as failed:
        load_config(None, [setting])
    assert message in str(failed.value)
    assert "\n" not in str(failed.value)


def test_every_setting_can_be_set_and_comes_back_from_the_file(tmp_path: Path) -> None:
    config = load_config(None, OTHER)
    named = {setting.partition("=")[0] for setting in OTHER}
    known = {
        f"{section}.{item.name}"
        for section in SECTIONS
        if section != "transformer"
        for item in fields(getattr(Config(), section))
    }
    # A transformer has no bags of its own for each field.
    assert named == known - {"features.version", "tower.kind"}
    assert load_config(None, ["tower.kind=transformer"]).tower.kind == "transformer"
    assert set(differing_keys(Config(), config)) == named
    assert config.loss.prefixes == (8, 16)
    assert config.features.ngrams == (2, 5)
    assert config.features.fields == (FieldSpec("lang"), FieldSpec("type", "categorical", probes=2))
    assert config.features.crosses == (("lang", "type"),)
    assert (config.loss.temperature, config.training.clip) == (1.0, 1.0)
    for one in (config, Config()):
        save_config(one, tmp_path / "config.toml")
        assert load_config(tmp_path / "config.toml") == one
        assert differing_keys(load_config(tmp_path / "config.toml"), one) == []


def test_every_section_is_in_the_file(tmp_path: Path) -> None:
    save_config(Config(), tmp_path / "config.toml")
    text = (tmp_path / "config.toml").read_text()
    assert [f"[{section}]" in text for section in SECTIONS] == [True] * len(SECTIONS)


def test_a_setting_overrides_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nepochs = 7\nbatch = 9\n[loss]\nprefixes = [4]\n", encoding="utf-8")
    config = load_config(path, ["training.epochs=2", " training.epochs = 3", "negatives.kind = all"])
    assert (config.training.epochs, config.training.batch, config.loss.prefixes) == (3, 9, (4,))
    assert config.negatives.kind == "all"
    assert differing_keys(config, Config()) == ["loss.prefixes", "negatives.kind", "training.epochs", "training.batch"]


def test_settings_that_are_right_only_together_are_taken() -> None:
    config = load_config(None, ["negatives.cluster_start=100", "negatives.cluster_end=200"])
    assert (config.negatives.cluster_start, config.negatives.cluster_end) == (100, 200)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training\n", "not a readable TOML file"),
        ("training = 3\n", "training must be a section, not a value"),
        ("[trainin]\nepochs = 3\n", "there is no section 'trainin'"),
        ("[training]\nepoch = 3\n", "there is no setting training.epoch"),
        ('[training]\nepochs = "3"\n', "training.epochs must be of type int, is '3'"),
        ('[loss]\nprefixes = ["a"]\n', "loss.prefixes must be a list of whole numbers"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as failed:
        load_config(path)
    assert str(failed.value).startswith(f"{path}: ")
    assert message in str(failed.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    for name in ("nowhere.toml", "bytes.toml", ""):
        with pytest.raises(InputError, match="not a readable TOML file"):
            load_config(tmp_path / name)
