"""The zeros of a sparse model that is trained further: they stay zero (``--keep-masks``).

Sparse pretrained encoders are fine-tuned so on each task ("sparse transfer": Zafrir et al., "Prune
Once for All", 2021; Kurtic et al., "The Optimal BERT Surgeon", 2022).
"""

from torch import nn

from spd_deploy.domain.detection import Detection, detect
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel
from spd_train.pruning.masks import Masks


def zeros_of(model: nn.Module, encoder: Encoder, source: str) -> tuple[Detection, Masks]:
    """The pattern of a model's zeros, and the masks ``[N, K]`` of its sparse matrices by name.

    Matrices that the pattern leaves dense have no mask: the few zeros in them may be trained.

    Args:
        model: the model.
        encoder: names its matrices.
        source: where the model is from, for the error.

    Raises:
        BadModel: the model is dense.
    """
    weights = dict(model.named_parameters())
    masks = {m.name: weights[m.weight_name].detach() != 0 for m in encoder.matrices()}
    found = detect(encoder, ((m, masks[m.name].cpu().numpy()) for m in encoder.matrices()))
    if found.pattern is None:
        raise BadModel(
            f"{source} has no zeros to keep",
            got=found.reason,
            fix="leave --keep-masks out, or name a sparse --model",
        )
    return found, {name: masks[name] for name, goal in found.sparsities.items() if goal > 0}
