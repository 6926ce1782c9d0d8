"""The verdict on a soak, on minutes whose course is known, and its log."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.http_soak import Minute, judge, minutes_in, write_line

MINUTE = Minute(
    pid=1,
    number=0,
    hours=0.0,
    rate=50.0,
    rss_bytes=200_000_000,
    descriptors=12,
    threads=5,
    p50_s=0.01,
    p99_s=0.05,
    late_p99_s=0.001,
    requests=3000,
    refused=0,
    failed=0,
    wrong=0,
)


def minutes(n: int = 60, *, leak_bytes: float = 0.0, peaks: bool = False) -> list[Minute]:
    """A soak whose memory scatters by a megabyte, and grows by so many bytes a minute."""
    random = np.random.default_rng(0)
    found = []
    for number in range(n):
        rss = 200e6 + leak_bytes * number + 1e6 * random.standard_normal()
        rss += 50e6 * (peaks and number % 10 == 9)
        found.append(replace(MINUTE, number=number, hours=(number + 1) / 60, rss_bytes=round(rss)))
    return found


def test_a_steady_server_is_flat() -> None:
    """Memory that scatters, with a peak every ten minutes, does not grow."""
    assert judge(minutes()).verdict == "flat"
    assert judge(minutes(peaks=True)).verdict == "flat"


def test_a_leak_is_seen() -> None:
    """A fifth of a megabyte a minute is nine over the judged minutes, which the slope finds."""
    found = judge(minutes(leak_bytes=0.2e6))

    assert found.verdict == "growing"
    assert found.growth_bytes == pytest.approx(0.2e6 * (found.judged - 1), rel=0.2)


@pytest.mark.parametrize("name", ["descriptors", "threads"])
def test_what_is_not_closed_is_seen(name: str) -> None:
    """One more in the second half is named."""
    soaked = minutes()
    soaked[-1] = replace(soaked[-1], **{name: 13})

    found = judge(soaked)

    assert found.verdict == "growing"
    assert found.reasons[0].startswith(f"{name}: ")


def test_what_is_there_from_the_warm_up_on_is_no_growth() -> None:
    """Memory that a server takes in its first minutes and keeps is not judged."""
    soaked = [replace(one, rss_bytes=100_000_000) if one.number < 10 else one for one in minutes()]

    assert judge(soaked).verdict == "flat"


@pytest.mark.parametrize("lost", [{"failed": 1}, {"wrong": 1}])
def test_a_lost_request_fails_a_soak(lost: dict[str, int]) -> None:
    """However flat the memory is."""
    soaked = minutes()
    soaked[3] = replace(soaked[3], **lost)

    assert judge(soaked).verdict == "failed"


def test_a_few_minutes_say_nothing() -> None:
    """Five minutes leave three after the warm-up, which are too few for a slope."""
    assert judge(minutes(5)).verdict == "too short to say"


def test_a_log_that_was_cut_off_is_read(tmp_path: Path) -> None:
    """A line that a crash left unfinished is left out, and so is the head of the file."""
    log = tmp_path / "soak.jsonl"
    write_line(log, {"schema": 1})
    write_line(log, asdict(MINUTE))
    with log.open("a") as file:
        file.write(json.dumps(asdict(MINUTE))[:40])

    assert minutes_in(log) == [MINUTE]
    assert minutes_in(tmp_path / "none") == []
