"""A new head of a regression begins with the scale of its labels.

Transformers draws a head whose answers are near 0. Labels from 1 to 5, or from 100 to 500, are far
from that: at the learning rates of fine-tuning the first epochs would only find their mean, and
their spread would stay out of reach. Labels are often standardised for that. Here the head is
scaled instead, which is the same for the encoder and leaves labels, losses and scores in the
user's unit: it answers the mean of the labels, and what it reads moves it by their deviation.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.metrics import Label
from spd_train.calibrate import head_parameters, scale_head


def start_at_labels(model: nn.Module, encoder: Encoder, labels: Sequence[Label | None]) -> None:
    """Scale a head that was drawn, and no other, to the labels, in place.

    A head that was trained has a bias; Transformers draws one of 0.

    Args:
        model: a classifier of one output.
        encoder: tells what its last layer is called.
        labels: numbers of the training rows.
    """
    bias = head_parameters(model, encoder).get("bias")
    if bias is None or bias.any():
        return
    numbers = np.array(labels, np.float64)
    deviation = float(numbers.std())
    scale_head(model, encoder, deviation if deviation > 0 else 1.0)
    with torch.no_grad():
        bias.fill_(float(numbers.mean()))
