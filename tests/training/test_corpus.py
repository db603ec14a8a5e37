"""training.corpus: what is read, by value, and what is refused, by message."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from index.errors import InputError
from index.field_spec import FieldSpec
from index.labels import Label
from training.corpus import Record, Split, hold_out, json_line, load_corpus, read_labels, read_records, split_path

GOOD = '{"id": "q1", "text": "one", "labels": ["a"]}'


def write(path: Path, lines: Iterable[str | bytes]) -> Path:
    data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def record(name: str, text: str, labels: list[str], group: str | None = None) -> str:
    return json.dumps({"id": name, "text": text, "labels": labels, "group": group}, ensure_ascii=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "labels.jsonl", ['{"id": "b", "text": "Bee"}', '{"id": "a", "text": ""}', '{"id": "c"}'])
    train = [record("q1", "one", ["a", "b", "a"], "g"), record("q2", "two", []), record("q3", "drei ü 三", ["c"])]
    write(tmp_path / "train.jsonl.gz", train)
    write(tmp_path / "test.jsonl", [record("q1", "four", ["b"])])
    return tmp_path


def test_a_corpus_is_read_by_value(folder: Path) -> None:
    corpus = load_corpus(folder, ["train", "test"])
    train, test = corpus.splits["train"], corpus.splits["test"]
    assert corpus.label_ids == ["b", "a", "c"]
    assert corpus.label_texts == ["Bee", "", ""]
    assert train.ids == ["q1", "q2", "q3"]
    assert train.texts == ["one", "two", "drei ü 三"]
    assert train.groups == ["g", None, None]
    assert train.relevance.toarray().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert train.relevance.dtype == np.float32
    assert test.relevance.toarray().tolist() == [[1, 0, 0]]
    assert (len(train), len(test)) == (3, 1)
    assert (train.excluded.shape, train.excluded.nnz, train.excluded.dtype) == ((3, 3), 0, np.float32)


def test_excluded_labels_are_read_by_value(folder: Path) -> None:
    lines = [
        '{"id": "1", "text": "x", "labels": ["a"], "exclude": ["c", "b", "c"]}',
        '{"id": "2", "text": "x", "labels": ["c"], "exclude": null}',
        '{"id": "3", "text": "x", "labels": [], "exclude": ["b"]}',
        '{"id": "4", "text": "x", "labels": ["b", "c"], "exclude": []}',
    ]
    records = list(read_records(write(folder / "dev.jsonl", lines)))
    assert [record.exclude for record in records] == [("c", "b"), (), ("b",), ()]
    split = load_corpus(folder, ["dev"]).splits["dev"]
    assert split.excluded.toarray().tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert split.relevance.toarray().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert isinstance(split.excluded, csr_matrix)
    assert split.excluded.dtype == np.float32


def test_an_excluded_label_must_be_listed_too(folder: Path) -> None:
    write(folder / "dev.jsonl", [GOOD, '{"id": "2", "text": "x", "labels": ["a"], "exclude": ["b", "z"]}'])
    with pytest.raises(InputError, match=r"dev\.jsonl:2: label id 'z' is not in the labels file; add it there"):
        load_corpus(folder, ["dev"])


def test_without_a_labels_file_excluded_labels_have_rows_too(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [record("1", "x", ["z", "y"])])
    write(tmp_path / "test.jsonl", ['{"id": "4", "text": "x", "labels": ["u"], "exclude": ["z", "t"]}'])
    corpus = load_corpus(tmp_path, ["train", "test"])
    assert corpus.label_ids == ["z", "y", "u", "t"]
    assert corpus.splits["train"].excluded.toarray().tolist() == [[0, 0, 0, 0]]
    assert corpus.splits["test"].excluded.toarray().tolist() == [[1, 0, 0, 1]]


def test_a_written_line_reads_back(tmp_path: Path) -> None:
    records = [Record("1", "a\n\u2028ü", ("x",), "g", ("y",)), Record("2", "b", ())]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(map(json_line, records)), encoding="utf-8", newline="")
    assert list(read_records(path)) == records
    assert path.read_text(encoding="utf-8").splitlines()[-1] == '{"id":"2","text":"b","labels":[]}'
    labels = [Label("x", "X"), Label("y", "")]
    path.write_text("".join(map(json_line, labels)), encoding="utf-8", newline="")
    assert list(read_labels(path)) == labels


@pytest.mark.parametrize("text", ['"text": null, ', '"text": " ", ', ""])
@pytest.mark.parametrize("field", ['"ä"', "0", "false", '""', "[null]", '["a", "a"]'])
def test_a_record_may_have_fields_alone(tmp_path: Path, text: str, field: str) -> None:
    line = f'{{"id": "q", {text}"labels": ["a", "b"], "fields": {{"none": null, "x": {field}}}}}'
    path = write(tmp_path / "train.jsonl", [GOOD, line])
    found = list(read_records(path))[1]
    assert (found.text, found.fields) == ("", None)
    train = load_corpus(tmp_path, ["train"]).splits["train"]
    assert (train.texts, train.fields) == (["one", ""], None)


def test_values_that_records_share_are_kept_once(tmp_path: Path) -> None:
    rows = [{"id": f"q{row}", "labels": ["a", "b"], "fields": {"h": ["x1!", "ö!"][:row], "u": "n!"}} for row in (1, 2)]
    path = write(tmp_path / "train.jsonl", [json.dumps(row) for row in rows])
    fields: list[Any] = [record.fields for record in read_records(path, (FieldSpec("h"), FieldSpec("u")))]
    one, two = fields
    assert one == {"h": ["x1!"], "u": "n!"}
    assert two == {"h": ["x1!", "ö!"], "u": "n!"}
    assert one["h"][0] is two["h"][0]
    assert one["u"] is two["u"]


def test_a_written_record_of_fields_alone_reads_back(tmp_path: Path) -> None:
    record = Record("q", "", ("a",), fields={"x": ["1", 2.5], "日本": True})
    line = json_line(record)
    assert line == '{"id":"q","fields":{"x":["1",2.5],"日本":true},"labels":["a"]}\n'
    path = write(tmp_path / "train.jsonl", [line.strip()])
    assert list(read_records(path, (FieldSpec("x"), FieldSpec("日本")))) == [record]
    label = Label("a", "", {"x": "1"})
    path = write(tmp_path / "labels.jsonl", [json_line(label).strip()])
    assert list(read_labels(path, (FieldSpec("x"),))) == [label]


def test_only_the_splits_asked_for_are_read(folder: Path) -> None:
    write(folder / "train.jsonl", ["not JSON"])
    (folder / "train.jsonl.gz").unlink()
    assert set(load_corpus(folder, ["test"]).splits) == {"test"}


def test_without_a_labels_file_rows_follow_first_appearance(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [record("1", "x", ["z", "y"]), record("2", "y", ["y", "w"])])
    write(tmp_path / "dev.jsonl", [record("3", "x", ["v"])])
    write(tmp_path / "test.jsonl", [record("4", "x", ["u", "z"])])
    for splits in (["train", "dev", "test"], ["test"], ["train"]):
        corpus = load_corpus(tmp_path, splits)
        assert corpus.label_ids == corpus.label_texts == ["z", "y", "w", "v", "u"]
        assert list(corpus.splits) == splits
        assert all(split.relevance.shape == (len(split), 5) for split in corpus.splits.values())
    assert load_corpus(tmp_path, ["test"]).splits["test"].relevance.toarray().tolist() == [[1, 0, 0, 0, 1]]


def test_records_ignore_unknown_keys_and_keep_the_order_of_labels(tmp_path: Path) -> None:
    line = '{"id": "q", "text": " t ", "labels": ["c", "a", "c"], "fields": {"n": NaN}, "more": [1], "group": null}'
    assert list(read_records(write(tmp_path / "train.jsonl", [line]))) == [Record("q", " t ", ("c", "a"), None)]


def test_labels_may_lack_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl.gz", ['{"id": "a", "text": null}', '{"id": "b", "text": "  "}', '{"id":"ü"}'])
    assert list(read_labels(path)) == [Label("a", ""), Label("b", ""), Label("ü", "")]


def test_fields_of_labels_are_kept_whatever_is_asked_for_and_only_asked_ones_are_read(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [record("q", "x", ["a"])])
    fields = [{"lang": "de", "n": [1, "1", True], "deep": {"x": 1}, "none": None}, None, {"日本": "größe", "long": 1.5}]
    labels: list[dict[str, Any]] = [{"id": name, "fields": said} for name, said in zip("abc", fields, strict=True)]
    write(tmp_path / "labels.jsonl", [json.dumps(label) for label in labels])
    kept = ['{"lang":"de","n":[1,"1",true]}', "", '{"日本":"größe","long":1.5}']
    plain = load_corpus(tmp_path, ["train"])
    assert plain.label_fields is None and plain.kept_fields is not None and list(plain.kept_fields) == kept
    asked = load_corpus(tmp_path, ["train"], (FieldSpec("n"), FieldSpec("lang", tower="query")))
    assert asked.label_fields == [{"lang": "de", "n": [1, "1", True]}, None, None]
    assert asked.kept_fields is not None and list(asked.kept_fields) == kept
    # What the model reads is kept even where nobody could filter by it.
    many = [{"id": "a", "fields": {"seen": ["x"] * 1001, "other": ["x"] * 1001}}, {"id": "b"}]
    write(tmp_path / "labels.jsonl", [json.dumps(label) for label in many])
    history = load_corpus(tmp_path, ["train"], (FieldSpec("seen", kind="history"),)).kept_fields
    assert history is not None and json.loads(history[0]) == {"seen": ["x"] * 1001}


def test_nothing_is_kept_of_labels_without_fields(folder: Path, tmp_path: Path) -> None:
    assert load_corpus(folder, ["train"]).kept_fields is None
    (tmp_path / "labels.jsonl").unlink()
    assert load_corpus(folder, ["train"]).kept_fields is None


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "\n \n"])
def test_one_blank_line_at_the_end_is_no_fault(tmp_path: Path, end: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(GOOD + end, encoding="utf-8", newline="")
    assert [found.id for found in read_records(path)] == ["q1"]


def test_a_text_of_ten_megabytes_is_read_whole(tmp_path: Path) -> None:
    text = "größe " * (10 * 2**20 // 8)
    path = write(tmp_path / "train.jsonl.gz", [record("q", text, ["a"]), GOOD])
    assert next(read_records(path)).text == text


def test_reading_streams(tmp_path: Path) -> None:
    records = read_records(write(tmp_path / "train.jsonl", [GOOD, "broken", "broken"]))
    assert next(records).id == "q1"


def test_an_escaped_pair_of_surrogates_is_one_character(tmp_path: Path) -> None:
    line = r'{"id": "q", "text": "\ud83d\ude00 \\ud800 \u0000", "labels": []}'
    assert next(read_records(write(tmp_path / "train.jsonl", [line]))).text == "😀 \\ud800 \x00"


FAULTS = {
    '{"id": "q2", "text": "two", "labels": ["a"]': "is not valid JSON",
    "": "is blank; write one JSON object a line",
    "[1, 2]": "is a list; write one JSON object a line",
    "null": "is null",
    "[" * 100_000: "is JSON that cannot be taken",
    '{"id": ' + "1" * 5000 + "}": "is JSON that cannot be taken",
    '{"id": "q2", "text": "a\0b", "labels": []}': "is not valid JSON (Invalid control character at, character 24)",
    '{"text": "two", "labels": []}': "has no id",
    '{"id": 7, "text": "two", "labels": []}': "id must be a string, is a number",
    '{"id": " ", "text": "two", "labels": []}': "id is blank",
    r'{"id": "a\u0000b", "text": "two", "labels": []}': "has control characters",
    '{"id": "' + "ü" * 257 + '", "text": "two", "labels": []}': "has 514 bytes; at most 512 are taken",
    '{"id": "q2", "labels": []}': "has no text",
    '{"id": "q2", "text": null, "labels": []}': "text is null, and no field says anything; give the record a text or",
    '{"id": "q2", "text": " \\n", "labels": []}': "text is blank, and no field says anything",
    '{"id": "q2", "labels": [], "fields": {}}': "has no text, and no field says anything",
    '{"id": "q2", "labels": [], "fields": null}': "has no text, and no field says anything; give the record",
    '{"id": "q2", "text": "", "labels": [], "fields": {"x": null, "y": []}}': "text is blank, and no field",
    '{"id": "q2", "text": 7, "labels": [], "fields": {"x": 1}}': "text must be a string, is a number",
    '{"id": "q2", "text": "two"}': "has no labels; give a list",
    '{"id": "q2", "text": "two", "labels": "a"}': "labels must be a list of label ids, is a string",
    '{"id": "q2", "text": "two", "labels": {"a": 1}}': "labels must be a list of label ids, is an object",
    '{"id": "q2", "text": "two", "labels": ["a", true]}': "label id must be a string, is true or false",
    '{"id": "q2", "text": "two", "labels": [""]}': "label id is blank",
    '{"id": "q2", "text": "two", "labels": ["a", "b", "c"], "exclude": ["d", "c", "b"]}': "label id 'b' is in both",
    '{"id": "q2", "text": "two", "labels": [], "exclude": "a"}': "exclude must be a list of label ids, is a string",
    '{"id": "q2", "text": "two", "labels": [], "exclude": ["a", 1]}': "label id must be a string, is a number",
    '{"id": "q2", "text": "two", "labels": [], "fields": [1]}': "fields must be an object, is a list",
    '{"id": "q2", "text": "two", "labels": [], "group": 3}': "group must be a string, is a number",
    '{"id": "q2", "text": "two", "labels": [], "group": ""}': "group is blank",
    '{"id": "q2", "id": "q3", "text": "two", "labels": []}': "has the key 'id' twice",
    '{"id": "q2", "text": "two", "labels": [], "fields": {"x": 1, "x": 1}}': "has the key 'x' twice",
    r'{"id": "q2", "text": "\ud800", "labels": []}': "has a lone surrogate",
    r'{"id": "q2", "text": "two", "labels": [], "fields": {"\uDFFF": 1}}': "has a lone surrogate",
    '{"id": "q1", "text": "two", "labels": []}': "the id 'q1' is already on line 1",
}


@pytest.mark.parametrize(("line", "message"), FAULTS.items(), ids=[message[:30] for message in FAULTS.values()])
def test_a_faulty_record_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "train.jsonl", [GOOD, line, GOOD])
    with pytest.raises(InputError) as caught:
        list(read_records(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl.gz", [GOOD, b'{"id": "\xff"}'])
    with pytest.raises(InputError, match=r"train\.jsonl\.gz:2: is not valid UTF-8 \(byte 9\)"):
        list(read_records(path))


@pytest.mark.parametrize("line", ['{"text": "x"}', '{"id": "a"}', '{"id": "b", "text": 5}', "{", '{"id": "a\\tb"}'])
def test_a_faulty_label_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "labels.jsonl", ['{"id": "a", "text": "A"}', line])
    with pytest.raises(InputError, match=r"labels\.jsonl:2: "):
        list(read_labels(path))


def test_a_truncated_or_false_gzip_file_is_named(tmp_path: Path) -> None:
    lines = [record(str(number), hashlib.sha256(b"%d" % number).hexdigest(), ["a"]) for number in range(2000)]
    whole = write(tmp_path / "train.jsonl.gz", lines).read_bytes()
    flipped = whole[:20_000] + bytes([whole[20_000] ^ 255]) + whole[20_001:]
    for damaged in (whole[:-1], whole[: len(whole) // 2], flipped, b"no gzip", whole[:5]):
        (tmp_path / "train.jsonl.gz").write_bytes(damaged)
        # What is flipped may also come out as a faulty line before the checksum tells.
        with pytest.raises(InputError, match=r"train\.jsonl\.gz"):
            list(read_records(tmp_path / "train.jsonl.gz"))


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="could not be read"):
        list(read_records(tmp_path / "none.jsonl"))


def test_split_path_finds_either_form_and_refuses_both(tmp_path: Path) -> None:
    assert split_path(tmp_path, "dev") is None
    packed = write(tmp_path / "dev.jsonl.gz", [])
    assert split_path(tmp_path, "dev") == packed
    write(tmp_path / "dev.jsonl", [])
    with pytest.raises(InputError, match=r"both dev\.jsonl and dev\.jsonl\.gz"):
        split_path(tmp_path, "dev")


def test_an_unknown_label_is_named_by_file_line_and_id(folder: Path) -> None:
    write(folder / "dev.jsonl", [record("1", "x", ["a"]), record("2", "x", ["ä?"])])
    with pytest.raises(InputError, match=r"dev\.jsonl:2: label id 'ä\?' is not in the labels file"):
        load_corpus(folder, ["dev"])


def test_missing_and_empty_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        load_corpus(tmp_path / "none", ["train"])
    with pytest.raises(InputError, match=r"has no dev split; looked for dev\.jsonl and dev\.jsonl\.gz"):
        load_corpus(folder, ["train", "dev"])
    write(folder / "dev.jsonl", [])
    with pytest.raises(InputError, match=r"dev\.jsonl: has no records"):
        load_corpus(folder, ["dev"])
    write(folder / "labels.jsonl", [])
    with pytest.raises(InputError, match=r"labels\.jsonl: has no labels"):
        load_corpus(folder, ["train"])


def test_an_empty_folder_has_no_train_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no train split"):
        load_corpus(tmp_path, ["test"])


@pytest.mark.parametrize("labels", [[], ["a"]])
def test_fewer_than_two_labels_are_refused(tmp_path: Path, labels: list[str]) -> None:
    write(tmp_path / "train.jsonl", [record("1", "x", labels)])
    with pytest.raises(InputError, match=rf"fewer than 2 labels \({len(labels)}\)"):
        load_corpus(tmp_path, ["train"])


def split_of(groups: list[str | None]) -> Split:
    ids = [f"q{row}" for row in range(len(groups))]
    nothing = csr_matrix((len(groups), 2), dtype=np.float32)
    return Split(ids, ids, groups, nothing, nothing)


def test_groups_stay_on_one_side_and_the_share_is_about_right() -> None:
    split = split_of([f"g{row // 5}" for row in range(10_000)])
    kept, held = hold_out(split, 0.1, 0)
    assert sorted([*kept, *held]) == list(range(10_000))
    assert not {split.groups[row] for row in kept} & {split.groups[row] for row in held}
    assert 800 < len(held) < 1200


def test_holding_out_depends_on_seed_and_ids_only() -> None:
    split = split_of([None] * 300)
    kept, held = hold_out(split, 0.3, 1)
    again = hold_out(split, 0.3, 1)
    assert np.array_equal(kept, again[0])
    assert np.array_equal(held, again[1])
    assert not np.array_equal(held, hold_out(split, 0.3, 2)[1])


@pytest.mark.parametrize("share", [1e-12, 1 - 1e-12])
def test_both_sides_have_rows_as_soon_as_there_are_two_groups(share: float) -> None:
    kept, held = hold_out(split_of(["a", "b", "a"]), share, 0)
    assert {tuple(kept), tuple(held)} == {(0, 2), (1,)}


def test_a_large_family_is_not_held_out() -> None:
    split = split_of([*["family"] * 500, *[None] * 5000])
    for seed in range(40):
        kept, held = hold_out(split, 0.1, seed)
        assert held.min() >= 500
        assert len(kept) + len(held) == 5500


def test_one_group_is_kept_whole() -> None:
    kept, held = hold_out(split_of(["a", "a"]), 0.999, 0)
    assert (kept.tolist(), held.tolist()) == ([0, 1], [])


def test_a_group_is_not_mistaken_for_an_id() -> None:
    kept, held = hold_out(split_of([None, "q0"]), 0.5, 0)
    assert (len(kept), len(held)) == (1, 1)
