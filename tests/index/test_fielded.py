"""Fields beside tokens: what is kept together, and the vectors of a hand-made graph against NumPy in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from index import encoder as encoder_module
from index.bundle import _features, featurizers
from index.encoder import Encoder
from index.errors import BundleError, InputError
from index.features import FeatureSpec, Featurizer
from index.field_spec import parse_fields
from index.fielded import FieldedTokenizer
from index.fields import Fields
from index.files import sha256_of
from index.tokens import Tokenizer, TokenSpec
from transformer_support import VOCABULARY, write_tokenizer

DIM, ROWS = 8, 64
WORDS = np.random.default_rng(0).normal(size=(len(VOCABULARY), DIM)).astype(np.float32)
VALUES = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)
SPEC = FeatureSpec(rows=ROWS, fields=parse_fields(["tags", "type"]))
TEXTS = ("apple pie", "", "apple pie", "chess opening garden soil", "bread")
FIELDS: tuple[Fields | None, ...] = (
    {"type": "book"}, None, {"type": "film", "tags": ["a", "b", "語"]}, {"tags": [f"t{n}" for n in range(60)]}, {},
)  # fmt: skip


def write_graph(path: Path, *, fields: bool = True) -> Path:
    """Unit vector of the sum of the tokens' rows and, if it takes fields, of their weighted rows."""
    nodes, inputs = [], []
    sides = (
        ("words", "input_ids", TensorProto.INT64, "attention_mask", TensorProto.INT64),
        ("values", "rows", TensorProto.INT32, "weights", TensorProto.FLOAT),
    )[: 2 if fields else 1]
    for table, ids, ids_kind, weights, weights_kind in sides:
        nodes += [
            helper.make_node("Gather", [table, ids], [f"{table}.gathered"]),
            helper.make_node("Cast", [weights], [f"{table}.float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{table}.float", "axis"], [f"{table}.row"]),
            helper.make_node("MatMul", [f"{table}.row", f"{table}.gathered"], [f"{table}.summed"]),
        ]
        inputs += [
            helper.make_tensor_value_info(ids, ids_kind, ["batch", f"{table}.length"]),
            helper.make_tensor_value_info(weights, weights_kind, ["batch", f"{table}.length"]),
        ]
    nodes += [
        helper.make_node("Sum", [f"{side[0]}.summed" for side in sides], ["summed"]),
        helper.make_node("Squeeze", ["summed", "axis"], ["pooled"]),
        helper.make_node("LpNormalization", ["pooled"], ["vectors"], axis=-1, p=2),
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIM])]
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in (("words", WORDS), ("values", VALUES), ("axis", np.array([1])))
    ]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fielded")
    write_tokenizer(folder / "tokenizer.json")
    write_graph(folder / "query.onnx")
    return folder


def fielded(folder: Path) -> FieldedTokenizer:
    return FieldedTokenizer(Tokenizer(folder / "tokenizer.json", 16), Featurizer(SPEC))


@pytest.mark.parametrize("cells", [1, 100, 1 << 15])
def test_vectors_are_the_oracles_in_the_order_of_the_texts(
    folder: Path, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "_TOKEN_CELLS", cells)
    encoder = Encoder(folder / "query.onnx", fielded(folder))
    tokenizer, featurizer = Tokenizer(folder / "tokenizer.json", 16), Featurizer(SPEC)
    wanted = []
    for text, fields in zip(TEXTS, FIELDS, strict=True):
        bags = featurizer([""], [fields])
        summed = WORDS.astype(np.float64)[tokenizer([text]).ids].sum(axis=0)
        summed += bags.weights.astype(np.float64) @ VALUES.astype(np.float64)[bags.rows]
        wanted.append(summed / np.linalg.norm(summed))
    found = encoder.texts(TEXTS, FIELDS)
    assert np.abs(found - np.stack(wanted)).max() < 1e-6
    alone = [encoder.texts([text], [fields]) for text, fields in zip(TEXTS, FIELDS, strict=True)]
    assert np.abs(np.concatenate(alone) - found).max() < 1e-6
    assert np.array_equal(encoder.texts(TEXTS), encoder.texts(TEXTS, [None, {}, None, None, None]))
    assert not np.allclose(encoder.texts(TEXTS)[0], found[0])
    assert encoder.texts([], []).shape == (0, DIM)


def test_items_stay_together_and_are_as_long_as_the_longer_side(folder: Path) -> None:
    items = fielded(folder)(TEXTS, FIELDS)
    assert len(items) == 5
    values = Featurizer(SPEC)([""] * 5, FIELDS).lengths.tolist()
    assert items.lengths.tolist() == [max(one) for one in zip(items.tokens.lengths.tolist(), values, strict=True)]
    assert items.lengths[3] == values[3] > 16
    taken = items.take(np.array([3, 0]))
    assert taken.tokens.ids.tolist() == [*items.tokens.take(np.array([3])).ids, *items.tokens.take(np.array([0])).ids]
    assert taken.bags.lengths.tolist() == [values[3], values[0]]


def test_a_graph_that_does_not_take_what_is_made_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="takes attention_mask, input_ids, rows, weights, not input_ids and"):
        Encoder(folder / "query.onnx", Tokenizer(folder / "tokenizer.json", 16))


def test_a_spec_with_fields_makes_both_and_one_without_is_as_it_was(folder: Path) -> None:
    digest = sha256_of(folder / "tokenizer.json")
    spec = TokenSpec(12, 5, digest, bags=SPEC)
    assert _features(json.loads(json.dumps(spec.to_json()))) == spec
    assert [field.name for field in spec.fields] == ["tags", "type"]
    queries, labels = featurizers(folder, spec)
    assert isinstance(queries, FieldedTokenizer) and isinstance(labels, FieldedTokenizer)
    assert labels(["apple " * 50], [{"type": "book"}]).tokens.lengths.tolist() == [5]
    plain = TokenSpec(12, 5, digest)
    assert plain.fields == () and plain.characters == 12 * 16
    assert plain.to_json() == {
        "kind": "tokens", "query_tokens": 12, "label_tokens": 5, "tokenizer": digest, "version": 1,
    }  # fmt: skip


def test_fields_that_no_one_reads_are_refused(folder: Path, tmp_path: Path) -> None:
    plain = write_graph(tmp_path / "query.onnx", fields=False)
    encoder = Encoder(plain, Tokenizer(folder / "tokenizer.json", 16))
    assert np.array_equal(encoder.texts(["pie"], [{}]), encoder.texts(["pie"]))
    with pytest.raises(InputError, match="this model reads no fields"):
        encoder.texts(["pie"], [{"type": "book"}])
    with pytest.raises(InputError, match="field 'colour' is not read by this model"):
        fielded(folder)(["pie"], [{"colour": "red"}])
