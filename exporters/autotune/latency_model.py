"""The model that a latency table is measured for: drawn weights of the sizes wanted."""

from collections.abc import Mapping
from pathlib import Path

from exporters.classifier_weights import ClassifierWeights
from exporters.dense_baseline import dense_baseline_weights
from exporters.drawn_weights import drawn_weights
from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.checkpoint import encoder_in, read_config
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.latency_table import EncoderSizes
from spd_deploy.domain.models.bert import BERT_LAYER
from spd_deploy.domain.stored_weights import stored_weights

# BERT's sizes, by the names that `spd map --model` takes.
NAMED_SIZES: Mapping[str, EncoderSizes] = {
    "minilm": EncoderSizes(layers=6, hidden=384, heads=12, intermediate=1536),
    "base": EncoderSizes(layers=12, hidden=768, heads=12, intermediate=3072),
    "large": EncoderSizes(layers=24, hidden=1024, heads=16, intermediate=4096),
}
_VOCABULARY, _POSITIONS = 30522, 512
# Outputs of the classifier; they are no part of what is measured.
_OUTPUTS = 2


def latency_weights(model: str) -> ClassifierWeights:
    """Drawn weights of the sizes that ``model`` names, or of the model or artefact in a folder.

    The model may be an encoder without a classifier.

    Raises:
        BadSetting: no known size, and no folder.
        SpdError: a folder whose model is not handled, with the reason.
    """
    if model in NAMED_SIZES:
        return drawn_weights(_encoder(NAMED_SIZES[model]), {}, outputs=_OUTPUTS, tables={})
    folder = Path(model)
    if not folder.is_dir():
        raise BadSetting(
            "no such size of model, and no such folder",
            got=model,
            fix=f"use {', '.join(NAMED_SIZES)}, or the folder of a model, a checkpoint or an "
            "artefact",
        )
    if is_artefact(folder):
        return dense_baseline_weights(open_artefact(folder))
    encoder, config = encoder_in(folder), read_config(folder)
    tables = stored_weights(folder, config).shapes
    return drawn_weights(encoder, config, outputs=_OUTPUTS, tables=tables)


def _encoder(sizes: EncoderSizes) -> Encoder:
    """A BERT of these sizes."""
    return Encoder(
        prefix="bert.encoder.layer",
        naming=BERT_LAYER,
        layers=sizes.layers,
        hidden=sizes.hidden,
        heads=sizes.heads,
        intermediate=sizes.intermediate,
        vocabulary=_VOCABULARY,
        positions=_POSITIONS,
    )
