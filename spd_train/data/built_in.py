"""The built-in model: a small untrained BERT, with a vocabulary learned from the built-in data.

It trains from scratch in a minute or two on two cores, and is wide enough that a sparse matrix
product can be faster than a dense one.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from spd_deploy.domain.files import write_text
from spd_deploy.domain.tasks import BUILT_IN
from spd_deploy.domain.text import TOKENIZER_FILE
from spd_train.data.grammar import generate
from spd_train.model import save_classifier

MAX_PIECES = 1000
MAX_TOKENS = 64
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_model(folder: Path, *, seed: int = 0) -> Path:
    """Write the model and its tokenizer into ``folder``, in the Hugging Face layout."""
    tokenizer = _learned_tokenizer()
    write_text(folder / TOKENIZER_FILE, tokenizer)
    settings = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
    }
    write_text(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    config = BertConfig(
        vocab_size=len(json.loads(tokenizer)["model"]["vocab"]),
        num_hidden_layers=4,
        hidden_size=256,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = BertForSequenceClassification(config)
    save_classifier(config, model.state_dict(), folder)
    return folder


def _learned_tokenizer() -> str:
    """``tokenizer.json`` of a WordPiece tokenizer trained on the built-in training texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(
        vocab_size=MAX_PIECES,
        special_tokens=list(_SPECIAL),
        initial_alphabet=[chr(c) for c in range(ord(" ") + 1, ord("~") + 1)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str(pretty=True))


def _texts() -> Iterator[str]:
    """All training texts of the built-in tasks, first and second texts alike."""
    for task in BUILT_IN:
        for example in generate(task, "train"):
            yield example.text
            if example.pair:
                yield example.pair
