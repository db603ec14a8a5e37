"""The lexicon: pieces in their order with the hashes of their strings, and files that are what the digest says."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace

from index.errors import BundleError, LabelspaceError
from index.features import normalise
from index.hashing import digest
from index.lexicon import PIECES_FILE, VOCABULARY_FILE, Lexicon, lexicon_digest

VOCABULARY = np.array([3, 17, 1 << 63, (1 << 64) - 1], dtype=np.uint64)


def pieces() -> str:
    """Of the letters a, b, n and 日, with "an" and "▁b" merged."""
    places = {piece: place for place, piece in enumerate(["▁", "a", "b", "n", "日", "an", "▁b"])}
    library = Tokenizer(BPE(vocab=places, merges=[("a", "n"), ("▁", "b")]))
    library.pre_tokenizer = Metaspace(prepend_scheme="never")
    content: str = library.to_str()
    return content


def merged(text: str) -> list[str]:
    """The pieces of a normalised text by hand: both merges from left to right, in their order; others dropped."""
    found = []
    for word in text.split():
        signs = [sign for sign in "▁" + word if sign in "▁abn日"]
        for first, second in (("a", "n"), ("▁", "b")):
            place = 0
            while place < len(signs) - 1:
                if (signs[place], signs[place + 1]) == (first, second):
                    signs[place : place + 2] = [first + second]
                place += 1
        found += signs
    return found


TEXTS = ["Banana", "", " ", "ban an", "日本 nab", "xyz", "b" * 3000, "😀 a", "\ud800 b", "a-b+b"]


def test_pieces_are_those_of_the_merges_with_the_hash_of_their_string() -> None:
    normal = [normalise(text, 4000) for text in TEXTS]
    texts, hashes = Lexicon(pieces()).pieces_of(normal)
    expected = [(place, digest(piece)) for place, text in enumerate(normal) for piece in merged(text)]
    assert merged(normal[0]) == ["▁b", "an", "an", "a"]
    assert list(zip(texts.tolist(), hashes.tolist(), strict=True)) == expected
    assert texts.dtype == np.int64 and hashes.dtype == np.uint64


def test_no_texts_and_texts_without_pieces_have_none() -> None:
    for normal in ([], [" "], [" ", " "]):
        texts, hashes = Lexicon(pieces()).pieces_of(normal)
        assert texts.shape == hashes.shape == (0,)
        assert texts.dtype == np.int64 and hashes.dtype == np.uint64


def test_the_digest_tells_all_contents_apart() -> None:
    contents = [(None, None), (pieces(), None), (None, VOCABULARY), (pieces(), VOCABULARY), (pieces() + " ", None),
                (None, VOCABULARY[:2]), (None, VOCABULARY[:0]), ("", None)]  # fmt: skip
    digests = [lexicon_digest(*content) for content in contents]
    assert digests[0] == "" and Lexicon().digest == ""
    assert len(set(digests)) == len(contents)
    # Of known bytes, so that models of today are known tomorrow.
    expected = hashlib.sha256(b"pieces 0\nvocabulary\n" + VOCABULARY.astype("<u8").tobytes()).hexdigest()
    assert Lexicon(None, VOCABULARY).digest == expected


@pytest.mark.parametrize(
    "lexicon", [Lexicon(pieces()), Lexicon(None, VOCABULARY), Lexicon(pieces(), VOCABULARY), Lexicon()]
)
def test_what_is_saved_opens_the_same(lexicon: Lexicon, tmp_path: Path) -> None:
    # What an earlier one has left is not part of it.
    Lexicon(pieces().replace("日", "月"), VOCABULARY[:1]).save(tmp_path)
    lexicon.save(tmp_path)
    opened = Lexicon.open(tmp_path, lexicon.digest)
    assert opened.digest == lexicon.digest and opened.pieces == lexicon.pieces
    assert (opened.vocabulary is None) == (lexicon.vocabulary is None)
    if lexicon.vocabulary is not None:
        assert np.array_equal(opened.vocabulary, lexicon.vocabulary)  # type: ignore[arg-type]
    if lexicon.pieces is not None:
        for one, other in zip(opened.pieces_of([" ban "]), lexicon.pieces_of([" ban "]), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("damage", ["other pieces", "no pieces", "no vocabulary", "cut", "no text", "an object"])
def test_files_that_are_not_those_of_the_digest_are_refused(tmp_path: Path, damage: str) -> None:
    lexicon = Lexicon(pieces(), VOCABULARY)
    lexicon.save(tmp_path)
    pieces_path, vocabulary_path = tmp_path / PIECES_FILE, tmp_path / VOCABULARY_FILE
    if damage == "other pieces":
        pieces_path.write_text(pieces().replace("日", "月"), encoding="utf-8")
    elif damage == "no pieces":
        pieces_path.unlink()
    elif damage == "no vocabulary":
        vocabulary_path.unlink()
    elif damage == "cut":
        vocabulary_path.write_bytes(vocabulary_path.read_bytes()[:-3])
    elif damage == "no text":
        pieces_path.write_bytes(b"\xff\xfe")
    else:
        vocabulary_path.write_bytes(pickle.dumps([1]))
    with pytest.raises(BundleError, match=r"pieces\.json (and|or) vocabulary\.npy .*restore them"):
        Lexicon.open(tmp_path, lexicon.digest)


def test_nothing_where_something_should_be_and_the_other_way_round_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there: neither; expected digest abc"):
        Lexicon.open(tmp_path, "abc")
    Lexicon(pieces()).save(tmp_path)
    with pytest.raises(BundleError, match=r"there: pieces\.json; expected digest of none"):
        Lexicon.open(tmp_path, "")


def test_pieces_that_no_library_reads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^pieces\.json: not a tokenizer"):
        Lexicon("{}")
    (tmp_path / PIECES_FILE).write_text("{}")
    with pytest.raises(BundleError, match=rf"^{tmp_path}/pieces\.json: not a tokenizer"):
        Lexicon.open(tmp_path, lexicon_digest("{}", None))


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LabelspaceError, match="could not be written"):
        Lexicon(pieces()).save(tmp_path / "file")
