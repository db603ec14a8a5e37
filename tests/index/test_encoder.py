"""The encoder: the vectors of small hand-made graphs, of bags and of tokens, against NumPy in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from index import encoder as encoder_module
from index.bags import Bags, Sequences, offsets_of
from index.bundle import featurizers
from index.encoder import Encoder
from index.errors import BundleError
from index.features import FeatureSpec, Featurizer
from index.field_spec import FieldSpec
from index.files import sha256_of
from index.tokens import Tokenizer, TokenSpec
from transformer_support import ODD, VOCABULARY, write_tokenizer

DIM = 8
ROWS = 512
TABLE = np.random.default_rng(0).normal(size=(max(ROWS, len(VOCABULARY)), DIM)).astype(np.float32)
SPEC = FeatureSpec(rows=ROWS, ngrams=(3,))
TEXTS = (*ODD, "apple pie", "bread", "apple pie", "chess opening garden soil")


def write_graph(path: Path, names: tuple[str, str], kinds: tuple[int, int]) -> Path:
    """Unit vector of the sum over a text of weight · table row; the weights are the second input."""
    nodes = [
        helper.make_node("Gather", ["table", names[0]], ["gathered"]),
        helper.make_node("Cast", [names[1]], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["as_float", "axis"], ["as_row"]),
        helper.make_node("MatMul", ["as_row", "gathered"], ["summed"]),
        helper.make_node("Squeeze", ["summed", "axis"], ["pooled"]),
        helper.make_node("LpNormalization", ["pooled"], ["vectors"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info(name, kind, ["batch", "length"]) for name, kind in zip(names, kinds, strict=True)
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIM])]
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def unit(sums: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.stack([vector / (np.linalg.norm(vector) or 1.0) for vector in sums])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    write_tokenizer(folder / "tokenizer.json")
    write_graph(folder / "tokens.onnx", ("input_ids", "attention_mask"), (TensorProto.INT64, TensorProto.INT64))
    write_graph(folder / "bags.onnx", ("rows", "weights"), (TensorProto.INT32, TensorProto.FLOAT))
    return folder


def of_tokens(folder: Path) -> tuple[Encoder, Callable[[str], NDArray[np.float64]]]:
    tokenizer = Tokenizer(folder / "tokenizer.json", 16)

    def wanted(text: str) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = TABLE.astype(np.float64)[tokenizer([text]).ids].sum(axis=0)
        return sums

    return Encoder(folder / "tokens.onnx", tokenizer), wanted


def of_bags(folder: Path) -> tuple[Encoder, Callable[[str], NDArray[np.float64]]]:
    featurizer = Featurizer(SPEC)

    def wanted(text: str) -> NDArray[np.float64]:
        bags = featurizer([text])
        sums: NDArray[np.float64] = bags.weights.astype(np.float64) @ TABLE.astype(np.float64)[bags.rows]
        return sums

    return Encoder(folder / "bags.onnx", featurizer), wanted


@pytest.mark.parametrize("kind", [of_tokens, of_bags])
@pytest.mark.parametrize("cells", [1, 40, 1 << 15])
def test_vectors_are_the_oracles_in_the_order_of_the_texts(
    folder: Path, kind: Callable[[Path], tuple[Encoder, Callable[[str], NDArray[np.float64]]]], cells: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(encoder_module, "_CELLS", cells)
    monkeypatch.setattr(encoder_module, "_TOKEN_CELLS", cells)
    encoder, wanted = kind(folder)
    found = encoder.texts(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), DIM) == (len(TEXTS), encoder.dim)
    assert np.abs(found - unit([wanted(text) for text in TEXTS])).max() < 1e-6
    assert np.abs(np.concatenate([encoder.texts([text]) for text in TEXTS]) - found).max() < 1e-6
    assert np.array_equal(encoder.items(encoder.featurizer(TEXTS)), found)
    assert encoder.texts([]).shape == (0, DIM)


def test_a_graph_of_the_other_kind_is_refused(folder: Path) -> None:
    with pytest.raises(BundleError, match="takes rows, weights, not input_ids and attention_mask"):
        Encoder(folder / "bags.onnx", Tokenizer(folder / "tokenizer.json", 16))
    with pytest.raises(BundleError, match="takes attention_mask, input_ids, not rows and weights"):
        Encoder(folder / "tokens.onnx", Featurizer(SPEC))


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "query.onnx"
    with pytest.raises(BundleError, match="not a tower that can be run"):
        Encoder(broken, Featurizer(SPEC))
    broken.write_bytes(b"\x08\x09nothing")
    with pytest.raises(BundleError, match="not a tower that can be run"):
        Encoder(broken, Featurizer(SPEC))


def test_each_side_is_cut_to_its_own_length_and_another_tokenizer_is_refused(folder: Path) -> None:
    digest = sha256_of(folder / "tokenizer.json")
    for_queries, for_labels = featurizers(folder, TokenSpec(12, 5, digest))
    assert for_queries(["apple " * 50]).lengths.tolist() == [12]
    assert for_labels(["apple " * 50]).lengths.tolist() == [5]
    same = featurizers(folder, TokenSpec(12, 12, digest))
    assert same[0] is same[1]
    with pytest.raises(BundleError, match="is not the tokenizer that the towers were trained with"):
        featurizers(folder, TokenSpec(12, 5, "0" * 64))
    bags = featurizers(folder, SPEC)
    assert all(isinstance(one, Featurizer) and one.spec == SPEC for one in bags)


def test_a_manifest_of_the_first_bundles_has_bags(folder: Path) -> None:
    from index.bundle import _features

    first = {"rows": ROWS, "ngrams": [3], "pairs": True, "characters": 4000, "seed": 0, "version": 1}
    assert _features(first) == SPEC
    tokens = TokenSpec(12, 5, "ab")
    assert _features(json.loads(json.dumps(tokens.to_json()))) == tokens


def write_slots_graph(path: Path) -> Path:
    """Unit vector of the sums of three slots and of a history, side by side."""
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["gathered"]),
        helper.make_node("MatMul", ["weights", "gathered"], ["slots"]),
        helper.make_node("Gather", ["table", "history0.rows"], ["past"]),
        helper.make_node("Unsqueeze", ["history0.mask", "axis"], ["as_row"]),
        helper.make_node("MatMul", ["as_row", "past"], ["history"]),
        helper.make_node("Concat", ["slots", "history"], ["together"], axis=1),
        helper.make_node("Flatten", ["together"], ["flat"]),
        helper.make_node("LpNormalization", ["flat"], ["vectors"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", "length"]),
        helper.make_tensor_value_info("weights", TensorProto.FLOAT, ["batch", 3, "length"]),
        helper.make_tensor_value_info("history0.rows", TensorProto.INT32, ["batch", "past"]),
        helper.make_tensor_value_info("history0.mask", TensorProto.FLOAT, ["batch", "past"]),
    ]
    outputs = [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", 4 * DIM])]
    constants = [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    graph = helper.make_graph(nodes, "slots", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize("cells", [1, 30, 1 << 12])
def test_slots_and_histories_go_in_whatever_is_empty(
    cells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "_CELLS", cells)
    spec = FeatureSpec(rows=ROWS, separate=True, fields=(FieldSpec("seen", kind="history"),))
    encoder = Encoder(write_slots_graph(tmp_path / "slots.onnx"), Featurizer(spec))
    random = np.random.default_rng(1)
    sizes = random.integers(0, 6, (9, 3))
    sizes[[0, 4]] = 0
    sizes[5] = (0, 0, 1)
    rows = random.integers(0, ROWS, int(sizes.sum())).astype(np.int32)
    weights = random.random(len(rows)).astype(np.float32)
    lengths = np.array([0, 2, 0, 1, 5, 0, 10_000, 3, 7])
    past = random.integers(0, ROWS, int(lengths.sum())).astype(np.int32)
    bags = Bags(offsets_of(sizes.ravel()), rows, weights, 3, (Sequences(offsets_of(lengths), past),))
    wanted = []
    for text in range(9):
        sums = []
        for slot in range(3):
            own = slice(bags.offsets[text * 3 + slot], bags.offsets[text * 3 + slot + 1])
            sums.append(weights[own].astype(np.float64) @ TABLE.astype(np.float64)[rows[own]])
        start = int(lengths[:text].sum())
        sums.append(TABLE.astype(np.float64)[past[start : start + lengths[text]]].sum(axis=0))
        wanted.append(np.concatenate(sums))
    found = encoder.items(bags)
    assert np.abs(found - unit(wanted)).max() < 1e-5
    alone = [encoder.items(bags.take(np.array([text]))) for text in range(9)]
    assert np.abs(np.concatenate(alone) - found).max() < 1e-5
    with pytest.raises(BundleError, match=r"takes history0.mask, history0.rows, rows, weights, not rows and weights"):
        Encoder(tmp_path / "slots.onnx", Featurizer(SPEC))
