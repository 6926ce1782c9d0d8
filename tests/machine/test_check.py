"""A "no" explains itself, and a probe that fails becomes one."""

from collections.abc import Sequence

import pytest

from spd_deploy.machine.check import Check, failed, passed, run_probe, without_folders


def test_a_yes_needs_no_reason() -> None:
    """It has what was found and nothing to mend."""
    assert passed("G", "n", "1.2") == Check(group="G", name="n", ok=True, found="1.2")


@pytest.mark.parametrize(
    ("ok", "reason", "remedy"),
    [(False, None, None), (False, "why", None), (False, "", "do"), (True, "why", "do")],
)
def test_a_no_and_only_a_no_is_explained(ok: bool, reason: str | None, remedy: str | None) -> None:
    """A no without reason and remedy cannot be made, nor a yes with them."""
    with pytest.raises(ValueError, match="a failed check, and only a failed one"):
        Check(group="G", name="n", ok=ok, reason=reason, remedy=remedy)


def test_a_reason_names_no_folder() -> None:
    """Paths are cut to their last part, since what doctor prints may be published."""
    found = failed(
        "G", "n", reason="cannot open /home/ann/lib/libx.so.1: no such file", remedy="do"
    )

    assert found.reason == "cannot open libx.so.1: no such file"
    assert without_folders("and/or, 1/2, https") == "and/or, 1/2, https"


def broken() -> Sequence[Check]:
    """A probe that fails."""
    raise OSError("the driver is on fire at /opt/x/y.so")


def test_a_probe_that_fails_becomes_a_no() -> None:
    """What it threw is the reason, and nothing is raised."""
    (found,) = run_probe("NVIDIA", broken)

    assert (found.ok, found.group) == (False, "NVIDIA")
    assert found.reason == "they raised OSError: the driver is on fire at y.so"
    assert found.remedy


def test_a_probe_that_works_is_passed_on() -> None:
    """Its checks come as they are."""
    assert run_probe("G", lambda: [passed("G", "n")]) == [passed("G", "n")]
