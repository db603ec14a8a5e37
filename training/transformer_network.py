"""A pretrained transformer encoder as one module: token ids and their mask to unit vectors."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from index.errors import InputError, first_line
from training.model_folder import ModelFolder, read_json
from training.transformer_config import TransformerConfig

_ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}


class Network(nn.Module):
    """Backbone, pooling, the model's own dense layers if it has some, and a projection if one is wanted.

    pooling: "mean" of the tokens or "first" of them.
    """

    def __init__(self, backbone: nn.Module, pooling: str, dense: nn.Sequential, projection: nn.Module) -> None:
        super().__init__()
        self.backbone, self.pooling, self.dense, self.projection = backbone, pooling, dense, projection

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        linear = [layer for layer in (*self.dense, self.projection) if isinstance(layer, nn.Linear)]
        return linear[-1].out_features if linear else _width(self.backbone)

    def forward(self, ids: Tensor, mask: Tensor, bf16: bool = False) -> Tensor:
        """ids, mask: (texts, length) int64, mask 1 for a token and 0 for padding. Unit vectors (texts, dim) float32.

        bf16: the backbone computes in mixed precision; pooling and what follows stay in float32.
        """
        if bf16:
            with torch.autocast(ids.device.type, torch.bfloat16):
                hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        else:
            hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden = hidden.float()  # (texts, length, width)
        if self.pooling == "first":
            pooled = hidden[:, 0]
        else:
            weights = mask[:, :, None].float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return functional.normalize(self.projection(self.dense(pooled)), dim=1)

    @property
    def embeddings(self) -> int:
        """Token ids that the model has embeddings for."""
        backbone: Any = self.backbone
        return int(backbone.get_input_embeddings().num_embeddings)

    @property
    def longest(self) -> int | None:
        """The most tokens for which the model has positions; None where it has no such limit."""
        positions = getattr(getattr(self.backbone, "embeddings", None), "position_embeddings", None)
        if not isinstance(positions, nn.Embedding):
            return None
        # Models of the RoBERTa kind count from the row after that of the padding.
        return positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)


def load_network(folder: ModelFolder, config: TransformerConfig, seed: int) -> Network:
    """The network of a pretrained model. Raises InputError saying what does not fit.

    seed: of what the folder has no weights for, the projection and the LoRA matrices.
    """
    pooling = folder.pooling if config.pooling == "model" else config.pooling
    if pooling not in ("mean", "first"):
        raise InputError(f"{folder.transformer}: pools by {pooling}; set transformer.pooling to mean or first")
    backbone = _backbone(folder.transformer)
    dense = nn.Sequential(*(layer for path in folder.dense for layer in _dense(path)))
    network = Network(backbone, pooling, dense, nn.Identity())
    if config.projection:
        network.projection = nn.Linear(network.dim, config.projection, bias=False)
        _start_as_isometry(network.projection, seed)
    if config.gradient_checkpointing:
        with _without_deprecations():
            backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora_rank:
        dense.requires_grad_(False)
        network.backbone = _with_lora(backbone, config, seed)
    return network


def merged(network: Network) -> Network:
    """A copy on the CPU, in evaluation mode, with the LoRA matrices added into the weights that they stand beside."""
    with torch.no_grad():
        copied = _copy(network)
        backbone: Any = copied.backbone
        if hasattr(backbone, "merge_and_unload"):
            copied.backbone = backbone.merge_and_unload()
    return copied.eval()


def _copy(network: Network) -> Network:
    """As copy.deepcopy, without the gradients: they may take as much memory again."""
    gradients = {parameter: parameter.grad for parameter in network.parameters()}
    for parameter in gradients:
        parameter.grad = None
    copied = copy.deepcopy(network).cpu()
    for parameter, gradient in gradients.items():
        parameter.grad = gradient
    return copied


def _dense(folder: Path) -> list[nn.Module]:
    values, weights = read_json(folder / "config.json"), folder / "model.safetensors"
    activation = str(values.get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS or values.get("use_residual") or not weights.is_file():
        wanted = f"no residual, one of {', '.join(_ACTIVATIONS)}, and {weights.name}"
        raise InputError(f"{folder}: a dense layer that cannot be used; it must have {wanted}")
    linear = nn.Linear(values["in_features"], values["out_features"], bias=values.get("bias", True))
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in load_file(weights).items()})
    return [linear, _ACTIVATIONS[activation]()]


def _backbone(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    try:
        # Code that comes with a model is not run, nor is anyone asked whether it may be.
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise InputError(f"{folder}: is an encoder with a decoder; a tower needs an encoder alone")
        with _quiet():
            backbone, found = AutoModel.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: not a model that can be loaded ({first_line(error)})") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise InputError(f"{folder}: its weights lack {len(missing)} of the model's arrays, the first is {missing[0]}")
    # What a decoder remembers from token to token is of no use here.
    if hasattr(backbone.config, "use_cache"):
        backbone.config.use_cache = False
    # The output of a pooler is not used here: it would be trained by nothing and exported for nothing.
    if isinstance(getattr(backbone, "pooler", None), nn.Module):
        backbone.pooler = None
    return backbone


def _with_lora(backbone: Any, config: TransformerConfig, seed: int) -> Any:
    """The backbone with trainable low-rank matrices beside its frozen weights (Hu et al., ICLR 2022)."""
    from peft import LoraConfig, get_peft_model

    def lora(modules: str | None) -> Any:
        wanted = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=modules, lora_dropout=0.0)
        return get_peft_model(backbone, wanted)

    with torch.random.fork_rng(devices=[]), _without_deprecations():
        torch.default_generator.manual_seed(seed)
        try:
            # The library knows where the matrices usually go in a model of this kind, query and value as a rule.
            return lora(None)
        except ValueError:
            return lora("all-linear")


def _start_as_isometry(projection: nn.Linear, seed: int) -> None:
    """The identity where the width stays, else a random map that keeps angles as well as one of its width can."""
    if projection.in_features == projection.out_features:
        nn.init.eye_(projection.weight)
    else:
        nn.init.orthogonal_(projection.weight, generator=torch.Generator().manual_seed(seed))


def _width(backbone: Any) -> int:
    return int(backbone.config.hidden_size)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Names that are new in one version of a library are not there in the one before, which is in use as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bar and its table of weights that the model has no use for."""
    from transformers.utils import logging

    library: Any = logging  # its functions are not annotated
    level = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        library.enable_progress_bar()
