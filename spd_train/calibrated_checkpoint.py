"""A checkpoint written again with its last layer divided by a temperature."""

from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint, save_description
from spd_deploy.domain.files import replacing
from spd_deploy.domain.stored_weights import sha256_of_weights
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import TemperatureScaling
from spd_train.calibrate import scaled_head
from spd_train.model import copy_tokenizer, load_classifier, save_classifier


def write_calibrated(
    source: Checkpoint, task: Task, found: TemperatureScaling, output: Path, *, by: float
) -> Checkpoint:
    """Write ``source`` into the folder ``output`` with its logits divided by ``by``.

    Args:
        source: the checkpoint.
        task: its task, with the thresholds to store.
        found: its calibration, to store.
        output: appears whole or not at all.
        by: the temperature; 1 changes no bit.
    """
    owner = "dense" if source.pattern is None else "sparse"
    with replacing(output) as draft:
        copy_tokenizer(str(source.folder), draft)
        model = load_classifier(str(source.folder), task, trained=True)
        state = scaled_head(model.state_dict(), source.encoder, 1 / by)
        save_classifier(model.config, state, draft)
        save_description(
            replace(
                source,
                folder=draft,
                task=task,
                weights_sha256=sha256_of_weights(draft),
                calibration={**source.calibration, owner: found},
                parents={**source.parents, "uncalibrated": source.weights_sha256},
            )
        )
    return open_checkpoint(output)
