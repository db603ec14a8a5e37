"""Tokens: the ids told by hand and by the library text by text, whatever the text and however many there are."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from index.errors import BundleError, InputError
from index.tokens import Tokenizer, Tokens, TokenSpec, length_runs, stack_tokens
from transformer_support import FIRST, IDS, LAST, ODD, UNKNOWN, VOCABULARY, write_tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokens") / "tokenizer.json")


def lists(tokens: Tokens) -> list[list[int]]:
    bounds = tokens.offsets.tolist()
    return [tokens.ids[start:stop].tolist() for start, stop in pairwise(bounds)]


def test_ids_are_those_told_by_hand(path: Path) -> None:
    texts = ["Apple pie", "", "applez", "日本", "pie\ud800"]
    wanted = [
        [FIRST, IDS["apple"], IDS["pie"], LAST],
        [FIRST, LAST],
        [FIRST, IDS["apple"], IDS["##z"], LAST],
        [FIRST, UNKNOWN, UNKNOWN, LAST],
        [FIRST, IDS["pie"], LAST],  # BERT drops U+FFFD
    ]
    tokens = Tokenizer(path, 16)(texts)
    assert lists(tokens) == wanted
    assert tokens.ids.dtype == np.int32 and tokens.offsets.dtype == np.int64
    assert tokens.lengths.tolist() == [4, 2, 4, 4, 3]


def test_a_long_text_is_cut_and_keeps_its_special_tokens(path: Path) -> None:
    tokens = Tokenizer(path, 5)(["apple pie chess opening", "apple " * 100_000])
    assert lists(tokens)[0] == [FIRST, IDS["apple"], IDS["pie"], IDS["chess"], LAST]
    assert lists(tokens)[1] == [FIRST, *[IDS["apple"]] * 3, LAST]


@pytest.mark.parametrize("threads", [1, 3])
def test_many_texts_are_each_text_alone(path: Path, threads: int) -> None:
    random = np.random.default_rng(0)
    known = [word for word in VOCABULARY if word.isalpha()]
    texts = [" ".join(random.choice(known, size=random.integers(0, 9))) for _ in range(2500)]
    texts[700:711] = [text.replace("\ud800", "�") for text in ODD]
    library = Library.from_file(str(path))
    library.enable_truncation(12)
    wanted = [library.encode(text[:192]).ids for text in texts]
    texts[700:711] = ODD
    assert lists(Tokenizer(path, 12, threads=threads)(texts)) == wanted


def test_no_texts_are_no_tokens(path: Path) -> None:
    tokens = Tokenizer(path, 12)([])
    assert len(tokens) == 0 and tokens.offsets.tolist() == [0] and not len(tokens.ids)
    ids, mask = tokens.padded(3)
    assert ids.shape == mask.shape == (0, 3)


def test_a_text_without_any_token_has_one(tmp_path: Path) -> None:
    bare = Tokenizer(write_tokenizer(tmp_path / "tokenizer.json", special=False), 4)
    assert lists(bare(["", "pie", " "])) == [[0], [IDS["pie"]], [0]]


def test_lengths_saved_with_the_tokenizer_do_not_count(tmp_path: Path) -> None:
    saved = Tokenizer(write_tokenizer(tmp_path / "tokenizer.json", saved_lengths=True), 16)
    assert saved(["pie", "apple pie chess opening garden"]).lengths.tolist() == [3, 7]


def test_take_padded_and_stack_are_loops_over_texts(path: Path) -> None:
    tokens = Tokenizer(path, 8)(["apple", "", "apple pie soil", "bread", "bread"])
    chosen = np.array([3, 0, 0, 2])
    assert lists(tokens.take(chosen)) == [lists(tokens)[text] for text in chosen]
    assert lists(stack_tokens(tokens, tokens.take(chosen))) == lists(tokens) + lists(tokens.take(chosen))
    assert lists(stack_tokens()) == []
    ids, mask = tokens.padded(6)
    assert ids.dtype == mask.dtype == np.int64
    for row, text in enumerate(lists(tokens)):
        assert ids[row].tolist() == text + [0] * (6 - len(text))
        assert mask[row].tolist() == [1] * len(text) + [0] * (6 - len(text))


@pytest.mark.parametrize("cells", [1, 10, 64, 1000])
def test_runs_cover_all_lengths_within_the_bounds_and_are_as_long_as_they_allow(cells: int) -> None:
    lengths = np.sort(np.random.default_rng(cells).integers(0, 40, size=200))
    runs = length_runs(lengths, cells, texts=50)
    assert np.concatenate([np.arange(200)[run] for run in runs]).tolist() == list(range(200))
    for run in runs:
        size = run.stop - run.start
        assert size == 1 or (size <= 50 and size * lengths[run.stop - 1] <= cells)
        if run.stop < 200:
            assert size == 50 or (size + 1) * lengths[run.stop] > cells
    assert length_runs(np.zeros(0, dtype=np.int64), cells) == []


def test_the_spec_survives_json_and_refuses_another_version() -> None:
    spec = TokenSpec(128, 64, "ab" * 32)
    assert TokenSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(InputError, match="tokens of version 9"):
        TokenSpec(128, 64, "", version=9)
    with pytest.raises(InputError, match="at least 1 token"):
        TokenSpec(128, 0, "")


def test_what_is_no_tokenizer_is_refused(tmp_path: Path, path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer(broken, 16)
    broken.write_text('{"model": 3}')
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer(broken, 16)
    with pytest.raises(InputError, match="adds 2 special tokens to a text; 2 tokens leave it no room"):
        Tokenizer(path, 2)


def test_the_vocabulary_and_the_digest_are_the_files(path: Path) -> None:
    tokenizer = Tokenizer(path, 16)
    assert tokenizer.vocabulary == len(VOCABULARY)
    found = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert tokenizer.digest == found


def test_the_index_alone_loads_neither_the_tokenizer_library_nor_torch() -> None:
    code = "import sys, index.bundle; print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
