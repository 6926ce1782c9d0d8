"""OpenVINO as doctor sees it."""

import sys

import pytest

from spd_deploy.machine.openvino_checks import bf16_check, int8_check, openvino_checks
from spd_deploy.sessions.openvino import openvino_core, precisions_of


def test_a_missing_openvino_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names the extra that brings it, and that nothing else needs it."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    (found,) = openvino_checks()

    assert not found.ok
    assert "pip install 'spd-deploy[openvino]'" in str(found.remedy)


def test_the_package_and_its_precisions_are_told() -> None:
    """Each of bf16 and int8 is what OpenVINO itself says of this processor."""
    package, bf16, int8 = openvino_checks()

    assert package.ok
    assert bf16.ok == ("bf16" in precisions_of(openvino_core()))
    assert int8.ok or (int8.reason and int8.remedy)


@pytest.mark.parametrize(
    ("offered", "features", "ok"),
    [
        (("fp32", "int8"), ("AVX2", "VNNI"), (False, True)),
        (("fp32", "bf16", "int8"), ("AVX2",), (True, False)),
        (("fp32", "bf16"), ("AMX",), (True, False)),
        (("fp32", "bf16", "int8"), ("AMX", "VNNI"), (True, True)),
    ],
)
def test_each_precision_has_its_condition(
    offered: tuple[str, ...], features: tuple[str, ...], ok: tuple[bool, bool]
) -> None:
    """OpenVINO must offer it, and int8 pays with instructions of its own alone."""
    assert (bf16_check(offered).ok, int8_check(offered, features).ok) == ok
