"""The transformer tower: a pretrained encoder, from token ids and fields to unit vectors, on the CPU or on CUDA."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from index.errors import InputError
from index.features import Featurizer
from index.fielded import FieldedTokenizer, FieldedTokens
from index.fields import Fields
from index.tokens import TOKENIZER_FILE, Tokenizer, Tokens, TokenSpec, length_runs
from training.adamw import adamw_tensors, restore_adamw
from training.field_vectors import FieldSettings, FieldVectors
from training.model_folder import find_model
from training.transformer_config import TransformerConfig
from training.transformer_network import Network, load_network, merged

if TYPE_CHECKING:
    from training.distributed import World

# Padded tokens of one pass through the network. A CPU is no faster on more at once, and has its caches to fit into; a
# GPU has to be filled.
_CPU_CELLS, _CUDA_CELLS = 1 << 12, 1 << 16
# Lengths on CUDA are rounded up to this, so that tensor cores have no remainders.
_CUDA_LENGTH = 8


class TransformerTower:
    """A training.tower.Tower over index.tokens.Tokens, or with fields over index.fielded.FieldedTokens.

    fields: what is read beside the text; None for the text alone. Raises InputError when the model cannot be loaded,
    its tokenizer does not fit it, or the device is not there.
    """

    def __init__(self, config: TransformerConfig, seed: int, fields: FieldSettings | None = None) -> None:
        self.config, self.device = config, _device(config.device)
        self.folder = find_model(config.model)
        self._tokenizer = Tokenizer(self.folder.tokenizer, config.query_tokens)
        self.network = load_network(self.folder, config, seed).to(self.device).train()
        self.dim = self.network.dim
        _check_fit(self.network, self._tokenizer, config)
        self._base = self.folder.digest(weights=config.lora_rank > 0)
        self._bf16 = config.bf16 and self.device.type == "cuda"
        groups = _parameter_groups(self.network, config)
        self._names = [name for group in groups for name in group["names"]]
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._rates = [group["lr"] for group in groups]
        self._adamw = torch.optim.AdamW([{key: group[key] for key in _ADAMW_KEYS} for group in groups])
        self._bags = None if fields is None else fields.spec
        self._fields = None if fields is None else FieldVectors(fields, self.dim, self.device)

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec(self.config.query_tokens, self.config.label_tokens, self._tokenizer.digest, bags=self._bags)

    def prepare(self, texts: Sequence[str], fields: Sequence[Fields | None] | None = None) -> Tokens | FieldedTokens:
        """As queries; training.dataset.preparers makes tokens of labels, too."""
        if self._bags is None:
            return self._tokenizer(texts)
        return FieldedTokenizer(self._tokenizer, Featurizer(self._bags))(texts, fields)

    def batch(self, items: Tokens | FieldedTokens, random: np.random.Generator) -> Tensor:
        """Unit vectors (n, dim) in the graph, with the dropout that the model was pretrained with."""
        seed = int(random.integers(1 << 62))
        on_cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if on_cuda else []):
            torch.default_generator.manual_seed(seed)
            if on_cuda:
                # Not torch.manual_seed: it would seed the other devices, which are not forked here.
                torch.cuda.default_generators[self.device.index].manual_seed(seed)
            return self._vectors(items)

    def encode(self, items: Tokens | FieldedTokens) -> Tensor:
        self.network.eval()
        try:
            with torch.no_grad():
                return self._vectors(items)
        finally:
            # Not left to `batch`: a backward pass under gradient checkpointing runs the network again as it was.
            self.network.train()

    def gradients(self) -> list[Tensor]:
        fields = [] if self._fields is None else self._fields.table.gradients()
        return [*self._dense_gradients(), *fields]

    def sum_gradients(self, world: World) -> None:
        world.sum(self._dense_gradients())
        if self._fields is not None:
            self._fields.table.sum_gradients(world)

    def update(self, scale: float) -> None:
        if self._fields is not None:
            self._fields.table.update(scale)
        for group, rate in zip(self._adamw.param_groups, self._rates, strict=True):
            group["lr"] = rate * scale
        self._adamw.step()
        self._adamw.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """Under LoRA, the frozen weights are not among them: they are the model folder's, whose digest is kept."""
        weights = {f"weight.{name}": value.cpu() for name, value in self._weights().items()}
        state = {name: value.cpu() for name, value in adamw_tensors(self._adamw, self._names).items()}
        fields = {} if self._fields is None else self._fields.table.tensors("fields.")
        return {**weights, **state, **fields, "base": _as_bytes(self._base)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Raises InputError when the model folder has changed since."""
        if not torch.equal(tensors["base"], _as_bytes(self._base)):
            raise InputError(
                f"transformer.model: {self.config.model} is not what it was when the run was started; put it back"
            )
        with torch.no_grad():
            for name, value in self._weights().items():
                found = tensors[f"weight.{name}"]
                if found.shape != value.shape:
                    raise ValueError(f"{name}: has shape {tuple(found.shape)}, must have {tuple(value.shape)}")
                value.copy_(found)
        if self._fields is not None:
            self._fields.table.load(tensors, "fields.")
        # Copies: the optimiser works in place on what it is given.
        restore_adamw(self._adamw, self._names, {name: value.clone() for name, value in tensors.items()})

    def export(self, folder: Path, name: str) -> None:
        export_transformers(folder, (name,), [self], self.dim)

    def folded_fields(self) -> Tensor | None:
        """The table (rows, dim) that the fields look their share up in, on the CPU; None where none are read."""
        return None if self._fields is None else self._fields.folded()

    def _dense_gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _weights(self) -> dict[str, Tensor]:
        """What training changes, by name; values share memory with the network."""
        if self.config.lora_rank:
            return {name: parameter.detach() for name, parameter in zip(self._names, self._parameters, strict=True)}
        weights: dict[str, Tensor] = self.network.state_dict()
        return weights

    def _vectors(self, items: Tokens | FieldedTokens) -> Tensor:
        if isinstance(items, Tokens):
            return self._text_vectors(items)
        assert self._fields is not None  # noqa: S101 - `prepare` makes such items only of a tower with fields
        return self._fields.added(self._text_vectors(items.tokens), items.bags)

    def _text_vectors(self, items: Tokens) -> Tensor:
        """Texts of like length go through the network together, so that little of a pass is padding."""
        if not len(items):
            return torch.empty(0, self.dim, device=self.device, requires_grad=torch.is_grad_enabled())
        cells, step = (_CUDA_CELLS, _CUDA_LENGTH) if self.device.type == "cuda" else (_CPU_CELLS, 1)
        order = np.argsort(items.lengths, kind="stable")
        parts = []
        for run in length_runs(items.lengths[order], cells):
            taken = items.take(order[run])
            longest = -(-int(taken.lengths.max()) // step) * step
            ids, mask = taken.padded(min(longest, self.network.longest or longest))
            parts.append(self.network(self._on_device(ids), self._on_device(mask), self._bf16))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return torch.cat(parts)[self._on_device(back)]

    def _on_device(self, values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def export_transformers(folder: Path, names: Sequence[str], towers: Sequence[TransformerTower], width: int) -> None:
    """Write `{name}.onnx` for each of `names`, all the same, and the weights and the tokenizer beside them.

    The vectors are those of all towers side by side, each cut to its first `width` dimensions and 1/√n long, in
    float32 whatever the training computed in.
    """
    from training.transformer_export import write_transformer  # the exporter takes seconds to import

    tables = [table for tower in towers if (table := tower.folded_fields()) is not None]
    write_transformer(folder, names, [merged(tower.network) for tower in towers], width, tables)
    shutil.copyfile(towers[0].folder.tokenizer, folder / TOKENIZER_FILE)


_ADAMW_KEYS = ("params", "lr", "weight_decay")


def _parameter_groups(network: Network, config: TransformerConfig) -> list[dict[str, Any]]:
    """Trainable parameters by rate and decay; biases and the scales of normalisation, all vectors, do not decay."""
    groups = []
    for projection, rate in ((False, config.rate), (True, config.projection_rate)):
        for matrices, decay in ((True, config.weight_decay), (False, 0.0)):
            found = {
                name: parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and name.startswith("projection.") == projection
                and (parameter.dim() > 1) == matrices
            }
            if found:
                groups.append({"names": list(found), "params": list(found.values()), "lr": rate, "weight_decay": decay})
    return groups


def _check_fit(network: Network, tokenizer: Tokenizer, config: TransformerConfig) -> None:
    if tokenizer.vocabulary > network.embeddings:
        raise InputError(
            f"transformer.model: the tokenizer of {config.model} has ids up to {tokenizer.vocabulary - 1}, its "
            f"embedding has {network.embeddings} rows; they are not of one model"
        )
    for key in ("query_tokens", "label_tokens"):
        if network.longest is not None and getattr(config, key) > network.longest:
            raise InputError(
                f"transformer.{key}: is {getattr(config, key)}, {config.model} takes {network.longest} tokens at most"
            )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not name.startswith("cuda"):
        return torch.device(name)
    index = int(name.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise InputError(f"transformer.device: is {name}, but torch finds {torch.cuda.device_count()} CUDA devices")
    return torch.device("cuda", index)


def _as_bytes(digest: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8)
