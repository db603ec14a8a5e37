"""The folder of a pretrained model (sentence-transformers, Hugging Face): where its parts are and what they say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.errors import InputError, first_line
from index.files import sha256_of
from index.tokens import TOKENIZER_FILE

_POOLINGS = {"mean": "mean", "cls": "first"}
_OLD_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """transformer: the folder of the transformer's config.json, weights and tokenizer.json. dense: those of its dense
    layers, in order. pooling: "mean", "first", or what else the model pools by, which a tower cannot."""

    transformer: Path
    pooling: str
    dense: tuple[Path, ...]

    @property
    def tokenizer(self) -> Path:
        """Raises InputError where the model has no tokenizer.json."""
        path = self.transformer / TOKENIZER_FILE
        if not path.is_file():
            raise InputError(
                f"{path}: is not there; write it with transformers: AutoTokenizer.from_pretrained(folder)"
                ".save_pretrained(folder)"
            )
        return path

    def digest(self, *, weights: bool) -> str:
        """Hex SHA-256 over the transformer's configuration and tokenizer, and over all weights where wanted."""
        digest = hashlib.sha256()
        for folder in (self.transformer, *self.dense):
            for path in sorted(folder.iterdir()):
                if path.name in ("config.json", TOKENIZER_FILE) or (weights and path.suffix in _WEIGHTS):
                    digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return digest.hexdigest()


def find_model(model: str) -> ModelFolder:
    """A model by its folder, or fetched from the hub where the name is no folder here.

    Raises InputError when there is none, or it has parts that a tower cannot have.
    """
    if not model:
        raise InputError("transformer.model: is not set; give the folder of a model, or its name on the hub")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return read_model_folder(folder)
    from huggingface_hub import snapshot_download

    try:
        unused = ["onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot"]
        folder = Path(snapshot_download(model, ignore_patterns=unused))
    except Exception as error:
        raise InputError(
            f"transformer.model: {model!r} is no folder here and cannot be fetched ({first_line(error)})"
        ) from error
    return read_model_folder(folder)


def read_model_folder(folder: Path) -> ModelFolder:
    """What modules.json lists; without it, the folder is the transformer itself, pooled by the mean."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return ModelFolder(folder, "mean", ())
    transformer, pooling, dense = folder, "mean", []
    try:
        modules = [(str(module["type"]).rsplit(".", 1)[-1], folder / module["path"]) for module in read_json(listing)]
    except (KeyError, TypeError) as error:
        raise InputError(f"{listing}: does not list modules with a type and a path") from error
    for kind, path in modules:
        if kind == "Transformer":
            transformer = path
        elif kind == "Pooling":
            pooling = _pooling(read_json(path / "config.json"))
        elif kind == "Dense":
            dense.append(path)
        elif kind != "Normalize":
            raise InputError(f"{listing}: has a {kind} module, which a tower cannot have")
    return ModelFolder(transformer, pooling, tuple(dense))


def read_json(path: Path) -> Any:
    """Raises InputError when the file is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from error


def _pooling(values: dict[str, Any]) -> str:
    """As one word, several joined by +."""
    modes = values.get("pooling_mode")
    if modes is None:
        flags = [key for key, on in values.items() if key.startswith("pooling_mode_") and on]
        modes = [_OLD_POOLINGS.get(key, key.removeprefix("pooling_mode_")) for key in flags] or "mean"
    name = modes if isinstance(modes, str) else "+".join(modes)
    return _POOLINGS.get(name, name)
