"""Students that start from a sparse checkpoint instead of from their teacher."""

from pathlib import Path

import torch
from torch import Tensor

from spd_deploy.domain.checkpoint import encoder_in
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.tasks import Task
from spd_train.grafting import GraftedNetwork
from spd_train.model import load_classifier


def load_students(network: GraftedNetwork, folder: Path, task: Task) -> dict[str, Tensor]:
    """Copy the weights of a sparse checkpoint into the students.

    Args:
        network: its students are overwritten.
        folder: a checkpoint of the same encoder.
        task: the task of both.

    Returns:
        The masks ``[N, K]`` of its non-zeros by matrix name.

    Raises:
        BadModel: the checkpoint has another encoder.
    """
    if (found := encoder_in(folder)) != network.encoder:
        raise BadModel(
            f"{folder} has another encoder than the teacher",
            got=f"{found.layers} layers of {found.hidden}",
            fix="use a student of this teacher",
        )
    state = load_classifier(str(folder), task, trained=True).state_dict()
    with torch.no_grad():
        for name, parameter in network.student_parameters():
            parameter.copy_(state[name])
    return {m.name: network.linear(m.name).weight != 0 for m in network.encoder.matrices()}
