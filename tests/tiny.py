"""Tiny real classifiers with real tokenizers, made in a second from nothing: BERT and its kin.

Random weights: speed, parity and sparsity do not depend on what a model has learned.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    Data2VecTextConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ErnieConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

from spd_deploy.domain.checkpoint import (
    WEIGHTS_FILE,
    Checkpoint,
    open_checkpoint,
    read_config,
    save_description,
)
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.tasks import Task, task_named
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.masks import densities_of, masks_of
from spd_train.stacked import apart, stacked

WORDS = """
    a the this that film movie train bus ending plot was is not never very good bad great dull
    than faster slower and but although it i you we they like hate love , . ! ?
"""
SIZES = {"layers": 2, "hidden": 64, "heads": 4, "intermediate": 128, "positions": 64}
CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "distilbert": DistilBertConfig,
    "electra": ElectraConfig,
    "camembert": CamembertConfig,
    "xlm-roberta": XLMRobertaConfig,
    "ernie": ErnieConfig,
    "data2vec-text": Data2VecTextConfig,
    "mpnet": MPNetConfig,
    "modernbert": ModernBertConfig,
    "deberta-v2": DebertaV2Config,
}
OF_ROBERTA = ("roberta", "camembert", "xlm-roberta", "data2vec-text", "mpnet")


def tiny_tokenizer(architecture: str = "bert") -> str:
    """``tokenizer.json`` of a WordPiece tokenizer over a few words and all letters.

    RoBERTa's kin pad with id 1, part a pair by two separators, and know one token type alone.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    kin = architecture in OF_ROBERTA
    first, second = ("<s>", "</s>") if kin else ("[CLS]", "[SEP]")
    special = "<s> <pad> </s> <unk> <mask>" if kin else "[PAD] [UNK] [CLS] [SEP] [MASK]"
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [*special.split(), *WORDS.split(), *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>" if kin else "[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    pair = "$A </s> </s> $B </s>" if kin else "$A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {second}",
        pair=f"{first} {pair}",
        special_tokens=[(name, vocabulary[name]) for name in (first, second)],
    )
    return str(tokenizer.to_str())


def tiny_config(architecture: str = "bert", **sizes: Any) -> PretrainedConfig:
    """The configuration of a tiny model; ELECTRA's embeddings are narrower than its encoder.

    What is no size is a field of the configuration.
    """
    size = {**SIZES, **sizes}
    kin = architecture in OF_ROBERTA
    shared: dict[str, Any] = {
        "vocab_size": len(json.loads(tiny_tokenizer(architecture))["model"]["vocab"]),
        "initializer_range": 0.2,  # large enough for logits to differ between inputs
        "pad_token_id": 1 if kin else 0,
    }
    if architecture == "distilbert":
        return DistilBertConfig(
            n_layers=size["layers"],
            dim=size["hidden"],
            n_heads=size["heads"],
            hidden_dim=size["intermediate"],
            max_position_embeddings=size["positions"],
            **shared,
        )
    if architecture == "electra":
        shared["embedding_size"] = size["hidden"] // 2
    if architecture == "modernbert":
        shared |= {"initializer_range": 0.3, "local_attention": 8}
        shared |= {"bos_token_id": 2, "cls_token_id": 2}
        shared |= {"eos_token_id": 3, "sep_token_id": 3}
    elif architecture == "deberta-v2":
        shared |= {"relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"}
        shared |= {"share_att_key": True, "position_biased_input": False}
        shared |= {"pos_att_type": ["p2c", "c2p"]}
    elif architecture != "mpnet":
        shared["type_vocab_size"] = 1 if kin else 2
    return CONFIGS[architecture](
        num_hidden_layers=size["layers"],
        hidden_size=size["hidden"],
        num_attention_heads=size["heads"],
        intermediate_size=size["intermediate"],
        max_position_embeddings=size["positions"] + (2 if kin else 0),
        **{**shared, **{name: value for name, value in sizes.items() if name not in SIZES}},
    )


def classifier_of(config: PretrainedConfig) -> PreTrainedModel:
    """Transformers' own classifier with random weights."""
    return AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-any-return, no-untyped-call]


def tiny_model(
    folder: Path,
    *,
    architecture: str = "bert",
    task: Task | None = None,
    seed: int = 0,
    **sizes: Any,
) -> Path:
    """A dense Hugging Face folder with random weights and no ``spd.json``."""
    config = tiny_config(architecture, **sizes)
    positions = {**SIZES, **sizes}["positions"]
    told: dict[str, object] = {"tokenizer_class": "BertTokenizer", "model_max_length": positions}
    if architecture in OF_ROBERTA:
        told |= {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tiny_tokenizer(architecture), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    labels = dict(enumerate(task.labels)) if task and task.labels else {0: "no", 1: "yes"}
    if task and task.is_regression:
        labels = {0: "score"}
    config.id2label = labels
    config.label2id = {name: i for i, name in labels.items()}
    torch.manual_seed(seed)
    model = classifier_of(config)
    with torch.no_grad():  # Transformers draws biases of 0, which no trained model has
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.normal_(0, 0.1)
    model.save_pretrained(folder)
    return folder


def tiny_checkpoint(
    folder: Path,
    *,
    architecture: str = "bert",
    pattern: Pattern | None = None,
    goals: Mapping[str, float] | None = None,
    task: str = "sst2",
    seed: int = 0,
    max_tokens: int = 32,
    **sizes: Any,
) -> Checkpoint:
    """A checkpoint of ours: random weights, pruned by magnitude to ``pattern``.

    ``goals`` are the sparsities of matrices that differ from the pattern's own, by name.
    """
    known = task_named(task)
    tiny_model(folder, architecture=architecture, task=known, seed=seed, **sizes)
    plain = replace(open_checkpoint(folder), pattern=pattern, sparsities=goals or {})
    checkpoint = replace(
        plain,
        task=known,
        max_tokens=max_tokens,
        densities=_prune(plain),
        scores={"dense": {known.metrics[0]: 0.9}, "sparse": {known.metrics[0]: 0.8}},
        split="dev",
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    save_description(checkpoint)
    return open_checkpoint(folder)


def _prune(checkpoint: Checkpoint) -> dict[str, float]:
    """Zero the weights that each matrix's pattern drops; returns the density of each."""
    encoder, pattern = checkpoint.encoder, checkpoint.pattern
    kind = read_config(checkpoint.folder)["model_type"]
    state = apart(load_file(checkpoint.weights), kind)
    weights = {m.name: state[m.weight_name] for m in encoder.matrices()}
    if pattern is not None:
        placed = {m.name: checkpoint.pattern_of(m) for m in encoder.matrices()}
        goals = {name: goal for name, goal in placed.items() if goal is not None}
        for name, mask in masks_of(encoder, goals, magnitudes(weights)).items():
            weights[name] = weights[name] * mask
    pruned = {m.weight_name: weights[m.name] for m in encoder.matrices()}
    stored = stacked({**state, **pruned}, kind)
    save_file(stored, checkpoint.weights, metadata={"format": "pt"})
    return densities_of(weights)


def weights_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights by name, each matrix apart."""
    kind = read_config(checkpoint.folder)["model_type"]
    return dict(apart(load_file(checkpoint.weights), kind))


def with_weights(checkpoint: Checkpoint, weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The checkpoint with other weights, described as if they were its own."""
    stored = stacked(dict(weights), read_config(checkpoint.folder)["model_type"])
    save_file(stored, checkpoint.weights, metadata={"format": "pt"})
    changed = replace(checkpoint, weights_sha256=sha256_of(checkpoint.weights))
    save_description(changed)
    return changed
