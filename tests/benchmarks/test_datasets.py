from __future__ import annotations

import cProfile
import gzip
import time
from pathlib import Path

import pytest

import datasets
from datasets import configuration_of, figures_of, slug, train_options, with_dev
from tests_support import write_corpus, write_lines
from training.corpus import hold_out, load_corpus
from training_speed import profile_of, rates


def test_dev_is_what_training_would_hold_out_and_test_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "BUILD", tmp_path / "build")
    corpus = write_corpus(tmp_path / "corpus", train=200, test=5)
    whole = load_corpus(corpus, ["train"]).splits["train"]
    kept, held = hold_out(whole, 0.05, 0)
    out = with_dev(corpus, "small")
    split = load_corpus(out, ["train", "dev"])
    assert split.label_ids == load_corpus(corpus, ["train"]).label_ids
    assert split.splits["train"].ids == [whole.ids[row] for row in kept]
    assert split.splits["dev"].texts == [whole.texts[row] for row in held]
    assert len(held) > 0 and (split.splits["dev"].relevance != whole.relevance[held]).nnz == 0
    assert sorted(path.name for path in out.iterdir()) == ["dev.jsonl.gz", "labels.jsonl", "train.jsonl.gz"]
    assert with_dev(corpus, "small") == out
    assert with_dev(out, "small") == out


def test_dev_of_a_changed_corpus_is_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BUILD", tmp_path / "build")
    corpus = write_corpus(tmp_path / "corpus", train=60, test=5)
    before = with_dev(corpus, "small")
    lines = gzip.decompress((corpus / "train.jsonl.gz").read_bytes()).splitlines(keepends=True)
    (corpus / "train.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[:-1])))
    assert with_dev(corpus, "small") != before


def test_line_ends_and_a_missing_labels_file_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "BUILD", tmp_path / "build")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_lines(
        corpus / "train.jsonl",
        [{"id": str(number), "text": f"größe {number}", "labels": [f"l{number % 3}"]} for number in range(30)],
    )
    (corpus / "train.jsonl").write_bytes((corpus / "train.jsonl").read_bytes().replace(b"\n", b"\r\n").rstrip())
    split = load_corpus(with_dev(corpus, "crlf"), ["train", "dev"]).splits
    assert sorted(split["train"].ids + split["dev"].ids, key=int) == [str(number) for number in range(30)]


def test_a_configuration_is_named_by_what_differs() -> None:
    assert configuration_of([], None, 1, None) == "defaults"
    named = configuration_of(["tower.dim=64", "loss.mixup=0.4"], Path("configs/short.toml"), 2, 60.0)
    assert named == "short, loss.mixup=0.4, tower.dim=64, 2 seeds, 60 s"
    assert slug(named) == "short-loss-mixup-0-4-tower-dim-64-2-seeds-60-s"


def test_options_of_train_leave_out_what_is_not_asked_for() -> None:
    assert train_options([]) == []
    expected = ["--set=a.b=1", "--config", "c.toml", "--seeds", "2", "--time-limit", "0.5"]
    assert train_options(["a.b=1"], Path("c.toml"), 2, 0.5) == expected


def test_figures_have_the_unseen_labels_beside_the_others() -> None:
    evaluation = {"metrics": {"P@1": 60.0}, "unseen": {"R@10": 35.0, "R@100": 50.0}}
    assert figures_of(evaluation) == {"P@1": 60.0, "unseen R@10": 35.0}


def test_rates_count_what_their_name_says() -> None:
    seconds = {"import": 3.0, "load": 2.0, "build": 5.0, "train": 10.0}
    found = rates({"pairs": 4000, "queries": 1000, "seconds": seconds})
    assert found["pairs a second, training alone"] == 400
    assert found["pairs a second, loading included"] == pytest.approx(4000 / 12, abs=0.1)
    assert found["queries a second, whole process"] == 50


def test_a_profile_names_what_took_the_time() -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    time.sleep(0.05)
    hold_out_of_nothing()
    profiler.disable()
    found = profile_of(profiler, 3)
    assert "sleep" in found["own time"][0]["function"]
    assert found["own time"][0]["own_seconds"] >= 0.05 and len(found["own time"]) == 3
    assert [entry["function"].split(" ")[-1] for entry in found["parts"]] == ["hash_fraction"]


def hold_out_of_nothing() -> None:
    from training.corpus import hash_fraction

    hash_fraction("key")
