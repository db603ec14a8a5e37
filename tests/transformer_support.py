"""A transformer small enough for a test, with a tokenizer whose ids can be told by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ("apple", "pie", "chess", "opening", "garden", "soil", "train", "bread", "ferry", "bridge")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAD, UNKNOWN, FIRST, LAST = range(4)
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS))
IDS = {token: place for place, token in enumerate(VOCABULARY)}
ODD = (
    "",
    " ",
    "a",
    "A" * 5000,
    "日本語 текст עברית",
    "😀😀",
    "\x00",
    "apple pie " * 1000,
    "c++ c#",
    "x\ny",
    "\ud800 pie",
)


def write_tokenizer(path: Path, *, special: bool = True, saved_lengths: bool = False) -> Path:
    """WordPiece over VOCABULARY, as BERT's. saved_lengths: with padding and truncation as from another use."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    library = Tokenizer(WordPiece(dict(IDS), unk_token=VOCABULARY[UNKNOWN]))
    made: Any = library  # these are attributes that its types do not know to be settable
    made.normalizer, made.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    if special:
        tokens = [("[CLS]", FIRST), ("[SEP]", LAST)]
        made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=tokens)
    if saved_lengths:
        library.enable_padding(length=9)
        library.enable_truncation(4)
    library.save(str(path))
    return path


def write_model(folder: Path, *, dropout: float = 0.1, pooling: str | None = None, dense: bool = False) -> Path:
    """A random BERT of two layers, 32 wide, with room for 40 tokens.

    pooling: of a sentence-transformers listing ("mean", "cls", …); None for a plain folder. dense: with a layer to
    24 dimensions after it.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
        layer = torch.nn.Linear(32, 24)
    write_tokenizer(folder / "tokenizer.json")
    tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    if pooling is None:
        return folder
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Dense", "Dense")] if dense else [])]
    listing = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listing))
    flags = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    values = {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **values}))
    if dense:
        (folder / "2_Dense").mkdir()
        shape = {"in_features": 32, "out_features": 24, "bias": True}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        (folder / "2_Dense" / "config.json").write_text(json.dumps({**shape, **activation}))
        weights = {f"linear.{name}": value.detach().clone() for name, value in layer.named_parameters()}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder
