"""The calibration of a run: both arms, in their weights, and a student that does not see it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.progress import Silent
from spd_deploy.sessions.open import open_path
from spd_train.calibrate import scale_head
from spd_train.data.splits import Data
from spd_train.model import load_classifier
from spd_train.run import run
from tests.train.runs import QUICK, TASK, config_for, examples


def noisy() -> Data:
    """Rows of the easy task of which a third has the other label, so that a model errs."""
    flipped = [
        replace(row, label=1 - int(row.label == 1)) if i % 3 == 0 else row
        for i, row in enumerate(examples(120))
    ]
    return Data.of(examples(48), {"dev": flipped[:60]}, dev_name="dev", holdout=flipped[60:])


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run with and without calibration."""
    folder = tmp_path_factory.mktemp("calibrated")
    for name, wanted in (("yes", True), ("no", False)):
        teacher = replace(QUICK.teacher, epochs=16)  # long enough to be too sure
        recipe = replace(QUICK, teacher=teacher, calibrate=wanted)
        run(replace(config_for(model, folder / name, recipe), data=noisy()), Silent())
    return folder / "yes", folder / "no"


def test_both_arms_are_calibrated(runs: tuple[Path, Path]) -> None:
    """A model that is too sure of noisy labels gets a temperature above 1, and a smaller error."""
    found = open_checkpoint(runs[0]).calibration
    plain = open_checkpoint(runs[1]).calibration

    for arm in ("dense", "sparse"):
        assert found[arm].temperature > 1 and found[arm].rows == 60
        assert found[arm].after.brier < found[arm].before.brier
        assert plain[arm].temperature == 1 and plain[arm].rows == 0
        assert found[arm].before.brier == pytest.approx(plain[arm].after.brier, rel=1e-3)
    assert open_checkpoint(runs[0] / "teacher").calibration["dense"] == found["dense"]
    assert (runs[0] / "reliability.png").exists() and (runs[0] / "teacher/reliability.png").exists()


def test_the_student_learns_from_logits_without_a_temperature(runs: tuple[Path, Path]) -> None:
    """Its weights are those of a run without calibration, but for the last layer's scale."""
    calibrated, plain = (load_classifier(str(folder), TASK, trained=True) for folder in runs)
    checkpoint = open_checkpoint(runs[0])

    scale_head(calibrated, checkpoint.encoder, checkpoint.temperature)

    for name, parameter in plain.named_parameters():
        if name.endswith("key.bias"):  # changes no softmax: its gradient is nothing but rounding
            continue
        torch.testing.assert_close(
            calibrated.get_parameter(name), parameter, rtol=1e-3, atol=1e-4, msg=name
        )


def test_no_label_changes(runs: tuple[Path, Path]) -> None:
    """The logits are those of the plain run divided by the temperature."""
    logits = []
    for folder in runs:
        opened = open_path(folder)
        rows = [opened.tokenizer.encode(row.text) for row in examples(16)]
        with opened.session as session:
            logits.append(session.run(opened.tokenizer.pad(rows)))

    np.testing.assert_allclose(
        logits[0] * open_checkpoint(runs[0]).temperature, logits[1], rtol=1e-2, atol=1e-3
    )
