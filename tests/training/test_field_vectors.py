"""Fields in both towers: vectors and steps against float64 NumPy, and runs that only the fields can tell labels by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.changes import PutLabel
from index.collection import Collection
from index.encoder import Encoder
from index.errors import InputError
from index.features import FeatureSpec, Featurizer
from index.field_spec import parse_fields
from index.fielded import FieldedTokenizer
from index.fields import Fields
from index.tokens import Tokenizer
from tests_support import KINDS, TINY, write_field_corpus
from training.config import load_config
from training.corpus import load_corpus
from training.dataset import load_dataset
from training.evaluation import evaluate
from training.export import export_run
from training.field_vectors import FieldSettings
from training.run import start_run
from training.trainer import Trainer
from training.transformer import TransformerTower, export_transformers
from training.transformer_config import TransformerConfig
from transformer_support import ODD, write_model

SPEC = FeatureSpec(rows=256, fields=parse_fields(["tags", "type"]))
TEXTS = (*ODD, "apple pie", "bread")
FIELDS: tuple[Fields | None, ...] = tuple(
    [{"type": "book"}, None, {}, {"tags": [f"t{n}" for n in range(50)]}, {"type": 3, "tags": ["語", True]}][place % 5]
    for place in range(len(TEXTS))
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert") / "model", dropout=0.0)


def make(model: Path, *, seed: int = 0, **settings: Any) -> TransformerTower:
    settings = {"query_tokens": 40, "label_tokens": 12, "device": "cpu", **settings}
    return TransformerTower(TransformerConfig(model=str(model), **settings), seed, FieldSettings(SPEC, 0.1, 0.05))


def filled(tower: TransformerTower, seed: int = 3) -> TransformerTower:
    """A tower in the middle of its training: at the start the table is zero."""
    assert tower._fields is not None
    embedding, generator = tower._fields.table.embedding, torch.Generator().manual_seed(seed)
    embedding.table.normal_(generator=generator)
    embedding.gates.uniform_(-0.5, 0.5, generator=generator)
    return tower


def by_numpy(tower: TransformerTower) -> NDArray[np.float64]:
    """The text alone, through the tower itself, and the table's rows one by one."""
    assert tower._fields is not None
    embedding = tower._fields.table.embedding
    table = embedding.table.double().numpy() * np.exp(embedding.gates.double().numpy())[:, None]
    texts = tower.encode(tower.prepare(TEXTS)).double().numpy()
    bags = Featurizer(SPEC)([""] * len(TEXTS), FIELDS)
    for text, (start, stop) in enumerate(zip(bags.offsets[:-1], bags.offsets[1:], strict=True)):
        for row, weight in zip(bags.rows[start:stop], bags.weights[start:stop], strict=True):
            texts[text] += 0.1 * weight * table[row]
    return np.asarray(texts / np.linalg.norm(texts, axis=1, keepdims=True))


def test_a_tower_starts_as_the_text_alone_and_then_adds_the_fields(model: Path) -> None:
    tower = make(model)
    plain = TransformerTower(tower.config, 0)
    items = tower.prepare(TEXTS, FIELDS)
    assert torch.allclose(tower.encode(items), plain.encode(plain.prepare(TEXTS)), atol=1e-6)
    found = filled(tower).encode(items).numpy()
    assert np.abs(found - by_numpy(tower)).max() < 1e-5
    assert np.abs(tower.batch(items, np.random.default_rng(0)).detach().numpy() - found).max() < 1e-5
    assert np.abs(found - plain.encode(plain.prepare(TEXTS)).numpy()).max() > 0.1
    empty = tower.prepare([], [])
    assert tower.encode(empty).shape == tower.batch(empty, np.random.default_rng(0)).shape == (0, 32)


def test_a_first_step_is_row_wise_adagrad_by_hand(model: Path) -> None:
    tower = make(model, rate=1e-12)
    assert tower._fields is not None
    vectors = tower.batch(tower.prepare(["apple pie", "bread"], [{"type": "book"}, {"type": "book"}]), _random())
    texts = tower.encode(tower.prepare(["apple pie", "bread"])).double().numpy()
    direction = np.random.default_rng(8).standard_normal((2, 32))
    (vectors * torch.from_numpy(direction)).sum().backward()  # type: ignore[no-untyped-call]
    (row,) = Featurizer(SPEC)([""], [{"type": "book"}]).rows
    # The gradient of a unit vector is what of it stands at a right angle to the vector; both texts touch the row.
    across = direction - (direction * texts).sum(axis=1, keepdims=True) * texts
    gradient = 0.1 * across.sum(axis=0)
    tower.update(0.5)
    table = tower._fields.table.embedding.table
    wanted = -0.5 * 0.1 * gradient / np.sqrt((gradient**2).mean())
    assert np.abs(table[row].numpy() - wanted).max() < 1e-5
    assert table.count_nonzero() == 32
    assert tower.gradients() == []


def _random() -> np.random.Generator:
    return np.random.default_rng(0)


def _step(tower: TransformerTower, times: int = 1) -> None:
    items = tower.prepare(TEXTS, FIELDS)
    for _ in range(times):
        tower.batch(items, _random())[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        tower.update(1.0)


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}])
def test_a_loaded_tower_goes_on_as_the_saved_one_would_have(model: Path, settings: dict[str, int]) -> None:
    tower, other = make(model, **settings), filled(make(model, seed=9, **settings))
    _step(tower, 2)
    kept = {name: value.clone() for name, value in tower.tensors().items()}
    other.load(kept)
    _step(tower)
    _step(other)
    for name, value in tower.tensors().items():
        assert torch.equal(value, other.tensors()[name]), name
    with pytest.raises(KeyError):
        other.load({name: value for name, value in kept.items() if "fields." not in name})


def test_calls_of_one_step_are_summed_before_the_table_is_moved(model: Path) -> None:
    one, parts = make(model, rate=1e-12), make(model, rate=1e-12)
    for _ in range(3):
        whole = one.batch(one.prepare(TEXTS, FIELDS), _random())
        cuts = [parts.prepare(TEXTS[part], FIELDS[part]) for part in (slice(0, 4), slice(4, 4), slice(4, None))]
        apart = torch.cat([parts.batch(cut, _random()) for cut in cuts])
        for made, vectors in ((one, whole), (parts, apart)):
            (vectors[:, 0] - vectors[:, 3] ** 2).sum().backward()  # type: ignore[no-untyped-call]
            made.update(1.0)
    for name, value in one.tensors().items():
        if name.startswith("weight.fields"):
            assert torch.allclose(value, parts.tensors()[name], atol=1e-4), name


def test_two_towers_are_exported_as_one_graph_that_takes_fields(model: Path, tmp_path: Path) -> None:
    towers = [filled(make(model, seed=seed, lora_rank=2), seed) for seed in (1, 2)]
    export_transformers(tmp_path, ("query", "label"), towers, 20)
    cut = [by_numpy(tower)[:, :20] for tower in towers]
    wanted = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in cut], axis=1) / np.sqrt(2)
    tokenizer = FieldedTokenizer(Tokenizer(tmp_path / "tokenizer.json", 40), Featurizer(SPEC))
    encoder = Encoder(tmp_path / "query.onnx", tokenizer)
    assert encoder.dim == 40
    assert np.abs(encoder.texts(TEXTS, FIELDS) - wanted).max() < 1e-5
    alone = [encoder.texts([text], [fields]) for text, fields in zip(TEXTS, FIELDS, strict=True)]
    assert np.abs(np.concatenate(alone) - wanted).max() < 1e-5


def right(collection: Path, corpus: Path) -> float:
    """P@1 in percent, by a loop over the test records and their fields as they are in the file."""
    lines = [json.loads(line) for line in (corpus / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with Collection(collection) as opened:
        snapshot = opened.snapshot
        assert [field.name for field in snapshot.fields] == ["lang", "type"]
        fields = [{name: line["fields"][name] for name in ("type", "lang")} for line in lines]
        rows = snapshot.predict([line["text"] for line in lines], 1, fields).rows[:, 0]
        found = [snapshot.labels[int(row)].id == line["labels"][0] for row, line in zip(rows, lines, strict=True)]
        p1: float = 100 * sum(found) / len(found)
        assert evaluate(snapshot, corpus, bootstrap=0).metrics["P@1"] == pytest.approx(p1)
        blind = snapshot.predict([line["text"] for line in lines], 1).rows[:, 0]
        assert len(set(blind.tolist())) == 1
    return p1


def test_the_unified_tower_learns_what_only_fields_tell(field_collection: Path, field_corpus: Path) -> None:
    assert right(field_collection, field_corpus) > 90


def test_a_transformer_learns_what_only_fields_tell(model: Path, field_corpus: Path, tmp_path: Path) -> None:
    settings = ("tower.kind=transformer", f"transformer.model={model}", "transformer.device=cpu", "training.threads=1",
                "transformer.query_tokens=8", "transformer.label_tokens=8", "features.rows=4096", "training.epochs=10",
                "training.batch=32", "training.dev_share=0.2", "training.clip=5", "training.chunk=20",
                'features.fields=["lang", "type"]')  # fmt: skip
    config = load_config(None, settings)
    dataset = load_dataset(field_corpus, config)
    start_run(tmp_path / "run", field_corpus, dataset, config)
    Trainer(dataset, config).train(tmp_path / "run")
    again = Trainer(dataset, config)
    again.resume(tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "collection", report=lambda line: None)
    assert right(tmp_path / "collection", field_corpus) > 90


def _lines(folder: Path, name: str, lines: Sequence[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def test_a_corpus_keeps_the_fields_that_are_asked_for(tmp_path: Path) -> None:
    _lines(tmp_path, "labels", [{"id": "a", "text": "A", "fields": {"type": 1, "x": {}}}, {"id": "b"}])
    rows = [{"type": "book", "y": [[]]}, None, {}, {"type": None}, {"tags": ["t", 2, False], "type": "日本"}]
    _lines(
        tmp_path,
        "train",
        [{"id": str(n), "text": "t", "labels": ["a", "b"], "fields": row} for n, row in enumerate(rows)],
    )
    corpus = load_corpus(tmp_path, ["train"], parse_fields(["tags", "type"]))
    assert corpus.label_fields == [{"type": 1}, None]
    wanted = [{"type": "book"}, None, None, None, {"tags": ["t", 2, False], "type": "日本"}]
    assert corpus.splits["train"].fields == wanted
    plain = load_corpus(tmp_path, ["train"])
    assert plain.label_fields is plain.splits["train"].fields is None
    (tmp_path / "labels.jsonl").unlink()
    assert load_corpus(tmp_path, ["train"], parse_fields(["type"])).label_fields == [None, None]


@pytest.mark.parametrize("name", ["train", "labels"])
def test_a_faulty_field_is_named_by_file_line_and_name(tmp_path: Path, name: str) -> None:
    _lines(tmp_path, "labels", [{"id": "a"}, {"id": "b"}])
    _lines(tmp_path, "train", [{"id": "1", "text": "t", "labels": ["a"]}])
    kept: dict[str, object] = {"id": "2", "text": "t", "labels": []} if name == "train" else {"id": "c"}
    whole = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    _lines(tmp_path, name, [*whole, {**kept, "fields": {"type": {"deep": 1}}}])
    load_corpus(tmp_path, ["train"])
    with pytest.raises(InputError, match=rf"{name}\.jsonl:{len(whole) + 1}: field 'type' must be a string"):
        load_corpus(tmp_path, ["train"], parse_fields(["type"]))


def test_a_dataset_s_items_hold_the_fields_and_another_field_is_another_corpus(tmp_path: Path) -> None:
    corpus = write_field_corpus(tmp_path / "corpus", train=50)
    base = [*TINY, "label.text_queries=true"]
    with_type = load_config(None, [*base, 'features.fields=["type"]'])
    plain, fielded = (load_dataset(corpus, config) for config in (load_config(None, base), with_type))
    queries: Any = fielded.queries
    more = (queries.lengths - plain.queries.lengths).tolist()
    assert more == [1] * fielded.examples + [0] * len(fielded.label_ids)
    bags = Featurizer(with_type.features)(["the same for all"] * len(KINDS), [{"type": kind} for kind in KINDS])
    possible = {tuple(bags.take(np.array([place])).rows.tolist()) for place in range(len(KINDS))}
    found = {tuple(queries.take(np.array([place])).rows.tolist()) for place in range(fielded.examples)}
    assert found == possible
    both = load_dataset(corpus, load_config(None, [*base, 'features.fields=["type", "lang"]']))
    assert len({dataset.fingerprint for dataset in (plain, fielded, both)}) == 3
    with pytest.raises(InputError, match=r"features\.fields: .*corpus has no record or label with a field 'tpye'"):
        load_dataset(corpus, load_config(None, [*base, 'features.fields=["tpye"]']))


def test_a_label_that_only_its_fields_tell_of_is_searchable(tmp_path: Path) -> None:
    corpus, run, collection = tmp_path / "corpus", tmp_path / "run", tmp_path / "collection"
    corpus.mkdir()
    _lines(corpus, "labels", [{"id": kind, "fields": {"type": kind}} for kind in KINDS] + [{"id": "nothing"}])
    rows = [
        {"id": str(n), "text": f"number {n}", "labels": [KINDS[n % 3]], "fields": {"type": KINDS[n % 3]}}
        for n in range(60)
    ]
    _lines(corpus, "train", rows)
    config = load_config(None, [*TINY, "label.free=false", 'features.fields=["type"]', "memory.mode=off"])
    dataset = load_dataset(corpus, config)
    start_run(run, corpus, dataset, config)
    Trainer(dataset, config).train(run)
    export_run(run, collection, report=lambda line: None)
    with Collection(collection) as opened:
        snapshot = opened.snapshot
        found = snapshot.predict(["new"] * 4, 5, [{"type": kind} for kind in KINDS])
        # The last kind is in no training record: its label has a vector by its fields alone.
        assert found.rows[:, 0].tolist() == [0, 1, 2, 3]
        assert 4 not in found.rows
        # Its fields' part stays with a label that is replaced, and beside the new text still tells it.
        opened.write([PutLabel(KINDS[2], "a new name")])
        after = opened.snapshot.predict(["new"] * 4, 5, [{"type": kind} for kind in KINDS])
        assert after.rows[:, 0].tolist() == [0, 1, 2, 3]
