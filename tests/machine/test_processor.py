"""The processor's features, cores and room."""

import sys
from pathlib import Path

import pytest
import torch

from spd_deploy.machine import processor
from spd_deploy.machine.processor import (
    FEATURES,
    cpu_features,
    cpu_name,
    feature_checks,
    features_in,
    flags_in,
    named_in,
    room_check,
)

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_tile

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
GRAVITON = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd bf16
CPU implementer\t: 0x41
"""


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ((), ()),
        (("sse2", "avx2"), ("AVX2",)),
        (("avx2", "avx512f", "avx512_vnni"), ("AVX2", "AVX-512", "VNNI")),
        (("avx2", "avx_vnni"), ("AVX2", "VNNI")),
        (("amx_tile", "avx512_bf16"), ("BF16", "AMX")),
    ],
)
def test_flags_become_features(flags: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Each spelling of a flag is known, and the rest are left out."""
    assert features_in(flags) == names


def test_linux_tells_of_the_first_processor() -> None:
    """Its name and flags are read; ARM has features and no name, and an empty file has neither."""
    assert named_in(XEON) == "Intel(R) Xeon(R) Platinum 8488C"
    assert features_in(flags_in(XEON) or ()) == ("AVX2", "AVX-512", "VNNI", "AMX")
    assert (named_in(GRAVITON), flags_in(GRAVITON)) == (None, ("fp", "asimd", "bf16"))
    assert (named_in(""), flags_in("")) == (None, None)


def test_without_the_list_nothing_is_claimed_of_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still has a name, and doctor has one line instead of five that might be wrong."""
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "none")

    assert cpu_name()
    assert cpu_features() is None
    (check,) = feature_checks(None)
    assert not check.ok and "would list them" in str(check.reason)


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's word is compared with Linux's")
def test_the_features_of_this_machine_are_those_pytorch_uses() -> None:
    """PyTorch's own detection finds AVX2 and AVX-512 where the list has them."""
    capability = torch.backends.cpu.get_cpu_capability()

    found = cpu_features() or ()

    assert ("AVX-512" in found) >= (capability == "AVX512")
    assert ("AVX2" in found) >= (capability in ("AVX2", "AVX512"))


def test_every_feature_is_a_yes_or_an_explained_no() -> None:
    """A feature that is absent says what it is good for and that nothing needs it."""
    checks = list(feature_checks(["AVX2"]))

    assert [check.name for check in checks] == [feature.name for feature in FEATURES]
    assert [check.name for check in checks if check.ok] == ["AVX2"]
    for feature, check in zip(FEATURES, checks, strict=True):
        assert check.ok or feature.use in str(check.reason)


def test_little_room_is_a_no() -> None:
    """What is free is told either way, in GB."""
    plenty, little = (room_check("disk", free, 10**11, 5 * 10**9) for free in (10**10, 10**9))

    assert (plenty.ok, plenty.found) == (True, "10.0 of 100.0 GB free")
    assert (little.ok, little.found) == (False, "1.0 of 100.0 GB free")
    assert "5 GB" in str(little.reason)
