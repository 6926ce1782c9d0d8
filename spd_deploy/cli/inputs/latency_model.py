"""The model that a latency table is measured for: drawn weights of the sizes wanted."""

from pathlib import Path
from typing import TYPE_CHECKING

from spd_deploy.domain.artefact import is_artefact, open_artefact
from spd_deploy.domain.named_encoders import NAMED_ENCODERS

if TYPE_CHECKING:
    from exporters.classifier_weights import ClassifierWeights

# Outputs of the classifier; they are no part of what is measured.
_OUTPUTS = 2


def latency_weights(model: str) -> "ClassifierWeights":
    """Drawn weights of a model's sizes, without its own weights being read.

    Args:
        model: the name of a size, or the folder of a model or an artefact. The model may be an
            encoder without a classifier.

    Raises:
        BadModel: there is no such model, or spd does not support it.
    """
    from exporters.dense_baseline import dense_baseline_weights
    from exporters.drawn_weights import drawn_weights
    from spd_train.model import encoder_from_config, model_config, tensor_shapes

    if model in NAMED_ENCODERS:
        return drawn_weights(NAMED_ENCODERS[model], {}, outputs=_OUTPUTS, tables={})
    if is_artefact(Path(model)):
        return dense_baseline_weights(open_artefact(Path(model)))
    config = model_config(model)
    return drawn_weights(
        encoder_from_config(config),
        config.to_dict(),
        outputs=_OUTPUTS,
        tables=tensor_shapes(config),
    )
