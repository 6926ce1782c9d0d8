"""All checks together, on whatever machine this is."""

import pytest

from spd_deploy.machine.check import Check
from spd_deploy.machine.doctor import all_checks

GROUPS = [
    "Processor",
    "Packages",
    "ONNX Runtime",
    "OpenVINO",
    "PyTorch",
    "NVIDIA",
    "Optional engines",
]


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    """What doctor finds here."""
    return list(all_checks())


def test_every_group_is_asked(checks: list[Check]) -> None:
    """They come in the order they are read, each in one piece."""
    groups = [check.group for check in checks]

    assert list(dict.fromkeys(groups)) == GROUPS
    assert groups == sorted(groups, key=GROUPS.index)


def test_every_no_has_a_reason_and_a_remedy(checks: list[Check]) -> None:
    """And none of them names a folder."""
    for check in checks:
        assert check.ok or (check.reason and check.remedy), check
        assert "/usr/" not in str(check.reason)


def test_no_check_failed_here(checks: list[Check]) -> None:
    """Every probe came to an answer."""
    assert [check for check in checks if check.name.startswith("the checks of")] == []


def test_a_probe_that_fails_does_not_stop_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a path on which nothing can be run, all groups are still answered."""
    monkeypatch.setenv("PATH", "")
    found = list(all_checks())

    assert list(dict.fromkeys(check.group for check in found)) == GROUPS
