"""BERT's sizes by the names that ``spd map --model`` takes beside a folder."""

from collections.abc import Mapping
from pathlib import Path

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.models.bert import BERT_LAYER


def _bert(layers: int, hidden: int, heads: int) -> Encoder:
    """An encoder with BERT's vocabulary and positions; its feed-forward part is 4 times as wide."""
    return Encoder(
        prefix="bert.encoder.layer",
        naming=BERT_LAYER,
        layers=layers,
        hidden=hidden,
        heads=heads,
        intermediate=4 * hidden,
        vocabulary=30522,
        positions=512,
    )


NAMED_ENCODERS: Mapping[str, Encoder] = {
    "minilm": _bert(layers=6, hidden=384, heads=12),
    "base": _bert(layers=12, hidden=768, heads=12),
    "large": _bert(layers=24, hidden=1024, heads=16),
}


def refuse_unknown_model(model: str) -> None:
    """Refuse what is neither the name of a size nor a folder.

    Raises:
        BadSetting: with the names of the sizes.
    """
    if model not in NAMED_ENCODERS and not Path(model).is_dir():
        raise BadSetting(
            "no such size of model, and no such folder",
            got=model,
            fix=f"use {', '.join(NAMED_ENCODERS)}, or the folder of a model, a checkpoint or an "
            "artefact",
        )
