"""The token store: a second run opens what the first has made, and what is another text or tokenizer is made anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from index.errors import InputError
from index.tokens import Tokenizer, Tokens
from training.token_store import prepare_texts, stored_tokens
from training.transformer_config import TransformerConfig
from transformer_support import ODD, write_tokenizer

TEXTS = [*ODD, "apple pie", "apple pie"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder / "tokenizer.json")
    return folder


class Counted(Tokenizer):
    """A tokenizer that counts the texts that it was given."""

    texts = 0

    def __call__(self, texts: Sequence[str]) -> Tokens:
        self.texts += len(texts)
        return super().__call__(texts)


def same(one: Tokens, other: Tokens) -> bool:
    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.ids, other.ids)


def test_the_second_time_the_same_tokens_are_opened_by_memory_map(model: Path, tmp_path: Path) -> None:
    tokenizer, store = Counted(model / "tokenizer.json", 16), tmp_path / "store"
    made = stored_tokens(store, tokenizer, TEXTS)
    opened = stored_tokens(store, tokenizer, list(TEXTS))
    assert tokenizer.texts == len(TEXTS)
    assert same(made, tokenizer(TEXTS)) and same(opened, made)
    assert opened.ids.dtype == np.int32 and opened.offsets.dtype == np.int64
    assert isinstance(opened.ids.base, np.memmap)
    assert same(opened.take(np.array([12, 0])), tokenizer([TEXTS[12], TEXTS[0]]))


def test_other_texts_another_length_and_another_tokenizer_are_made_anew(model: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    path = model / "tokenizer.json"
    bare = write_tokenizer(tmp_path / "bare.json", special=False)
    cases = [(path, 16, ["ab", "c"]), (path, 16, ["a", "bc"]), (path, 16, ["ab"]), (path, 4, ["ab", "c"]),
             (bare, 16, ["ab", "c"]), (path, 16, []), (path, 16, ["", ""])]  # fmt: skip
    for _ in range(2):
        for file, longest, texts in cases:
            tokenizer = Tokenizer(file, longest)
            assert same(stored_tokens(store, tokenizer, texts), tokenizer(texts))
    assert len(list(store.iterdir())) == len(cases)


@pytest.mark.parametrize("damage", ["cut", "missing", "swapped"])
def test_a_damaged_store_is_made_again(model: Path, tmp_path: Path, damage: str) -> None:
    tokenizer, store = Counted(model / "tokenizer.json", 16), tmp_path / "store"
    stored_tokens(store, tokenizer, TEXTS)
    ids = next(store.iterdir()) / "ids.npy"
    if damage == "cut":
        ids.write_bytes(ids.read_bytes()[:100])
    elif damage == "missing":
        ids.unlink()
    else:
        np.save(ids, np.zeros(3, dtype=np.int32))
    assert same(stored_tokens(store, tokenizer, TEXTS), tokenizer(TEXTS))
    assert same(stored_tokens(store, tokenizer, TEXTS), tokenizer(TEXTS))
    assert tokenizer.texts == 4 * len(TEXTS)


def test_a_store_that_cannot_be_written_is_done_without(model: Path, tmp_path: Path) -> None:
    tokenizer, store = Tokenizer(model / "tokenizer.json", 16), tmp_path / "store"
    store.write_text("a file, not a folder")
    assert same(stored_tokens(store, tokenizer, TEXTS), tokenizer(TEXTS))


def test_each_side_has_its_own_length(model: Path, tmp_path: Path) -> None:
    config = TransformerConfig(model=str(model), query_tokens=12, label_tokens=5)
    for store in (None, tmp_path / "store"):
        assert prepare_texts(config, "query", store=store)(["apple " * 50]).lengths.tolist() == [12]
        assert prepare_texts(config, "label", store=store, threads=2)(["apple " * 50]).lengths.tolist() == [5]


def test_the_tokenizer_lies_beside_the_transformer(model: Path) -> None:
    inner = model / "0_Transformer"
    inner.mkdir()
    (model / "tokenizer.json").rename(inner / "tokenizer.json")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    (model / "modules.json").write_text(json.dumps(modules))
    assert len(prepare_texts(TransformerConfig(model=str(model)), "query")(["apple"])) == 1


def test_a_model_without_a_tokenizer_or_without_a_folder_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json: is not there; write it with transformers"):
        prepare_texts(TransformerConfig(model=str(model)), "query")
    with pytest.raises(InputError, match=r"transformer\.model: is not set"):
        prepare_texts(TransformerConfig(), "query")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"transformer\.model: 'no/such' is no folder here and cannot be fetched"):
        prepare_texts(TransformerConfig(model="no/such"), "query")


@pytest.mark.parametrize("listing", ["{", '[{"path": "0"}]', "3", '[{"type": "a.b.CNN", "path": ""}]'])
def test_a_listing_of_modules_that_makes_no_tower_is_refused(model: Path, listing: str) -> None:
    (model / "modules.json").write_text(listing)
    with pytest.raises(InputError, match=r"modules\.json: (cannot be read|does not list|has a CNN module)"):
        prepare_texts(TransformerConfig(model=str(model)), "query")
