"""Models that another tool made sparse, as what training starts from."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from spd_deploy.domain.checkpoint import SPD_FILE, open_checkpoint
from spd_deploy.domain.patterns import Unstructured
from spd_deploy.domain.progress import Silent
from spd_train.run import run
from tests.tiny import tiny_checkpoint
from tests.train.runs import QUICK, config_for

SHORT = replace(QUICK, student=QUICK.student.lasting(1.0))


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A folder of unstructured zeros that declares nothing."""
    folder = tmp_path / "sparse"
    tiny_checkpoint(folder, pattern=Unstructured(sparsity=0.3))
    (folder / SPD_FILE).unlink()
    return folder


def test_a_sparse_model_is_trained_as_a_dense_one(sparse: Path, tmp_path: Path) -> None:
    """What was zero may change, and the result is dense."""
    config = config_for(sparse, tmp_path / "run", replace(QUICK, pattern=None, max_steps=3))

    found = run(config, Silent())

    weights = load_file(found.weights)
    assert found.pattern is None
    assert all((weights[m.weight_name] != 0).all() for m in found.encoder.matrices())


def test_a_sparse_model_may_teach(sparse: Path, tmp_path: Path) -> None:
    """The student has the pattern that was asked for, whatever its teacher's zeros."""
    config = replace(
        config_for(sparse, tmp_path / "run", SHORT),
        model=None,
        teacher=str(sparse),
    )

    found = run(config, Silent())

    weights = load_file(found.weights)
    assert str(found.pattern) == "2:4"
    assert found.parents == {"teacher": open_checkpoint(sparse).weights_sha256}
    for matrix in found.encoder.matrices():
        target = found.pattern_of(matrix)
        assert target is not None
        assert target.holds(weights[matrix.weight_name])
