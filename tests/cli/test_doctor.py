"""``spd doctor``: text for people, JSON for programs."""

import json

import pytest
from click.testing import CliRunner

from spd_deploy.cli.main import cli


@pytest.fixture(scope="module")
def told() -> str:
    """What it prints here."""
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_no_is_followed_by_why_and_what_to_do(told: str) -> None:
    """Two lines below it say so, and below a yes there are none."""
    lines = told.splitlines()
    noes = [i for i, line in enumerate(lines) if line.startswith("  no   ")]

    assert len(noes) == sum(line.startswith("         why: ") for line in lines)
    for i in noes:
        assert lines[i + 1].startswith("         why: ")
        assert lines[i + 2].startswith("         do:  ")


def test_all_that_was_asked_for_is_answered(told: str) -> None:
    """Features, memory, providers, PyTorch, GPU, driver and TensorRT each have a line."""
    answers = [
        line[7:33].strip() for line in told.splitlines() if line[:7] in ("  yes  ", "  no   ")
    ]

    for name in (
        "CPU", "AVX2", "AVX-512", "VNNI", "AMX", "memory", "disk", "Python", "onnxruntime",
        "CPUExecutionProvider", "CUDAExecutionProvider", "openvino", "torch", "driver", "GPU",
        "2:4 tensor cores", "TensorRT",
    ):  # fmt: skip
        assert name in answers


def test_the_json_says_the_same(told: str) -> None:
    """Each check of the text is in it, with reason and remedy for a no."""
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    value = json.loads(result.stdout)

    assert result.exit_code == 0
    assert value["version"]
    for check in value["checks"]:
        answer = "  yes  " if check["ok"] else "  no   "
        assert f"{answer}{check['name']}" in told
        assert check["ok"] == (check["reason"] is None) == (check["remedy"] is None)
