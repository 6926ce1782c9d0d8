"""A tiny real BERT classifier with a real tokenizer, made in a second from nothing.

Random weights: speed, parity and sparsity do not depend on what a model has learned.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from spd_deploy.domain.checkpoint import (
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
    save_description,
)
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import Task, task_named
from spd_train.pruning.masks import densities_of, magnitudes, masks_of

WORDS = """
    a the this that film movie train bus ending plot was is not never very good bad great dull
    than faster slower and but although it i you we they like hate love , . ! ?
"""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 128, "positions": 64}


def tiny_tokenizer() -> str:
    """``tokenizer.json`` of a WordPiece tokenizer over a few words and all letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL, *WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str())


def tiny_model(folder: Path, *, task: Task | None = None, seed: int = 0, **sizes: int) -> Path:
    """A dense Hugging Face folder with random weights and no ``spd.json``."""
    size = {**SIZES, **sizes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tiny_tokenizer(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": size["positions"]}),
        encoding="utf-8",
    )
    labels = dict(enumerate(task.labels)) if task and task.labels else {0: "no", 1: "yes"}
    if task and task.is_regression:
        labels = {0: "score"}
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(json.loads(tiny_tokenizer())["model"]["vocab"]),
        num_hidden_layers=size["layers"],
        hidden_size=size["hidden"],
        num_attention_heads=size["heads"],
        intermediate_size=size["intermediate"],
        max_position_embeddings=size["positions"],
        initializer_range=0.2,  # large enough for logits to differ between inputs
        id2label=labels,
        label2id={name: i for i, name in labels.items()},
        pad_token_id=0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def tiny_checkpoint(
    folder: Path,
    *,
    pattern: Pattern | None = None,
    task: str = "sst2",
    seed: int = 0,
    max_tokens: int = 32,
    **sizes: int,
) -> Checkpoint:
    """A checkpoint of ours: random weights, pruned by magnitude to ``pattern``."""
    known = task_named(task)
    tiny_model(folder, task=known, seed=seed, **sizes)
    plain = open_checkpoint(folder)
    densities = _prune(folder, plain.encoder, pattern)
    checkpoint = replace(
        plain,
        task=known,
        max_tokens=max_tokens,
        pattern=pattern,
        densities=densities,
        scores={"dense": {known.metrics[0]: 0.9}, "sparse": {known.metrics[0]: 0.8}},
        split="dev",
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    save_description(checkpoint)
    return open_checkpoint(folder)


def _prune(folder: Path, encoder: Encoder, pattern: Pattern | None) -> dict[str, float]:
    """Zero the weights that the pattern drops; returns the density of each matrix."""
    state = load_file(folder / WEIGHTS_FILE)
    weights = {m.name: state[m.weight_name] for m in encoder.matrices()}
    if pattern is not None:
        masks = masks_of(encoder, pattern, magnitudes(weights), pattern.sparsity)
        weights = {name: weight * masks[name] for name, weight in weights.items()}
    pruned = {m.weight_name: weights[m.name] for m in encoder.matrices()}
    save_file({**state, **pruned}, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return densities_of(weights)
