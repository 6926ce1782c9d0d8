"""Sizes of an ONNX file's constants, read without onnx."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from exporters.onnx.stored_sizes import bytes_of_matrices
from spd_deploy.domain.errors import BadArtefact


def test_sizes_are_those_of_onnx(tmp_path: Path) -> None:
    """Each type and shape, also that of a scalar, takes the bytes that NumPy gives it."""
    arrays: dict[str, np.ndarray] = {
        "a.weight": np.zeros((300, 3), np.float32),
        "b.weight": np.zeros((2, 0), np.int8),
        "c.weight": np.zeros((), np.float16),
        "c.index": np.zeros(7, np.int64),
    }
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = helper.make_model(helper.make_graph([], "g", [], [], constants))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())

    found = bytes_of_matrices(tmp_path / "m.onnx", ["a", "b", "c"])

    assert found == {"a": 3600, "b": 0, "c": 2 + 56}


@pytest.mark.parametrize("content", [b"\x3a\x7f", b"\xff" * 20, b"no model"])
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    """A field that is longer than the file, a number without an end, and text are refused."""
    (tmp_path / "m.onnx").write_bytes(content)

    with pytest.raises(BadArtefact, match="is no ONNX file"):
        bytes_of_matrices(tmp_path / "m.onnx", [])
