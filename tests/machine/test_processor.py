"""The processor's features, cores and room."""

import pytest

from spd_deploy.machine.processor import (
    FEATURES,
    feature_checks,
    features_in,
    room_check,
)


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
