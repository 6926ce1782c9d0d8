"""GPUs' states as ``nvidia-smi`` lists them: a data-centre card, a consumer card, a MIG slice.

The listings are written in the form that the program documents, not recorded from a machine.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.machine.gpu_state import (
    LOCKED,
    chosen,
    count_of,
    look,
    looks_in,
    processes,
    query,
    reasons_in,
)

H100 = (
    "GPU-11111111-2222-3333-4444-555555555555, NVIDIA H100 80GB HBM3, 580.65.06, Enabled, Disabled,"
    " 1980, 1980, 2619, 2619, 412.35, 700.00, 54, 97, 0x0000000000000004\n"
)
CONSUMER = (
    "GPU-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee, NVIDIA GeForce RTX 3060, 535.183.01, Disabled,"
    " [N/A], 1837, 2100, 7300, 7501, [N/A], [N/A], 61, 12, [N/A]\n"
)
MIG = (
    "GPU-99999999-2222-3333-4444-555555555555, NVIDIA A100-SXM4-40GB, 550.90.07, Enabled, Enabled,"
    " 1410, 1410, 1215, 1215, 98.10, 400.00, 33, [N/A], 0x0000000000000001\n"
)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the one program on the path may be put."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "nvidia-smi"


def put(program: Path, script: str) -> None:
    """Make it a program."""
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_data_centre_card_tells_everything() -> None:
    """Clocks, power, heat, load and the reason of its clock are read, with its fixed facts."""
    (found,) = looks_in(H100, at_s=1.5)

    assert (found.card.name, found.card.driver) == ("NVIDIA H100 80GB HBM3", "580.65.06")
    assert (found.card.persistence, found.card.mig) == (True, False)
    state = found.state
    assert (state.at_s, state.sm_mhz, state.sm_most_mhz) == (1.5, 1980, 1980)
    assert (state.memory_mhz, state.memory_most_mhz) == (2619, 2619)
    assert (state.power_w, state.power_limit_w, state.temperature_c) == (412.35, 700, 54)
    assert (state.busy_percent, state.reasons) == (97, ("power cap",))
    assert state.throttled_by == ("power cap",)


def test_what_a_consumer_card_does_not_tell_is_none() -> None:
    """Fields without a value are None, and the rest is read all the same."""
    (found,) = looks_in(CONSUMER, at_s=0.0)

    assert (found.card.persistence, found.card.mig) == (False, None)
    assert (found.state.power_w, found.state.power_limit_w, found.state.reasons) == (None,) * 3
    assert (found.state.sm_mhz, found.state.throttled_by) == (1837, ())


def test_a_mig_slice_has_no_load_of_its_own() -> None:
    """MIG is seen to be on, idling is no throttling, and the load is unknown."""
    (found,) = looks_in(MIG, at_s=0.0)

    assert found.card.mig is True
    assert (found.state.busy_percent, found.state.reasons) == (None, ("idle",))
    assert found.state.throttled_by == ()


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("0x0000000000000000", ()),
        ("0x0000000000000002", (LOCKED,)),
        ("0x0000000000000068", ("hardware slowdown", "heat, by software", "heat, by hardware")),
        ("0x0000000000010000", ("reason 0x10000",)),
        ("[N/A]", None),
        ("[Not Supported]", None),
        ("", None),
    ],
)
def test_reasons_are_bits(text: str, reasons: tuple[str, ...] | None) -> None:
    """Each bit has its name, one without a name its number, and no number is None."""
    assert reasons_in(text) == reasons


@given(st.text())
def test_no_listing_breaks_the_reader(listing: str) -> None:
    """Whatever a driver writes is read or left out."""
    looks_in(listing, at_s=0.0)
    count_of(listing)


def test_the_gpu_is_found_by_its_id() -> None:
    """Among several the id decides; a single one is taken under any id; else it is unknown."""
    both = looks_in(H100 + CONSUMER, at_s=0.0)

    assert chosen(both, both[1].uuid) == both[1]
    assert chosen(both, "MIG-1") is None
    assert chosen(both, None) is None
    assert chosen(both[:1], "MIG-1") == both[0]
    assert chosen((), None) is None


def test_an_older_driver_is_asked_by_the_older_name(smi: Path) -> None:
    """Where the newer name of the reasons is refused, the older one is used."""
    put(
        smi,
        'case "$1" in *clocks_event_reasons*) echo "not a valid field" >&2; exit 2;; esac\n'
        f"echo '{CONSUMER.strip()}'",
    )

    found = look(None, at_s=2.0)

    assert found is not None
    assert found.card.name == "NVIDIA GeForce RTX 3060"
    assert "clocks_throttle_reasons.active" in query("clocks_throttle_reasons.active")


@pytest.mark.parametrize("script", [None, "exit 9", "echo 'No devices were found'"])
def test_a_program_that_fails_tells_nothing(script: str | None, smi: Path) -> None:
    """A missing, failing or speechless program makes no error."""
    if script is not None:
        put(smi, script)

    assert look(None, at_s=0.0) is None
    assert processes() in (None, 0)


def test_processes_are_counted(smi: Path) -> None:
    """A line a process; words are none."""
    put(smi, "echo 4242; echo 17")

    assert processes() == 2
    assert count_of("No running processes found\n") == 0
