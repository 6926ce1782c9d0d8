"""ONNX Runtime's profile read as node times, and what is refused rather than guessed."""

from pathlib import Path
from typing import Any

import pytest

from spd_deploy.benchmark.layers.events import midmean, nodes_of, read_events
from spd_deploy.domain.errors import Unavailable


def node(ts: int, dur: int, name: str = "a/Gemm", index: str = "0") -> dict[str, Any]:
    return {
        "cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur,
        "args": {"op_name": "Gemm", "node_index": index},
    }  # fmt: skip


def run(ts: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 90}


def test_runs_before_the_last_ones_do_not_count() -> None:
    """Of three runs the last two are asked for, so the slow first one leaves no trace."""
    events = [run(0), node(1, 9000), run(100), node(101, 20), run(200), node(201, 30)]

    (found,) = nodes_of(events, runs=2)

    assert (found.name, found.op) == ("a/Gemm", "Gemm")
    assert found.seconds == pytest.approx((25e-6,))


def test_nodes_without_a_name_are_told_apart() -> None:
    """Two nodes that are called the same are two nodes, with the times of each."""
    events = [run(0), node(1, 10, name="", index="3"), node(20, 40, name="", index="4")]

    assert sorted(n.seconds[0] for n in nodes_of(events, runs=1)) == pytest.approx([10e-6, 40e-6])


def test_the_middle_half_is_averaged() -> None:
    """A stray run changes nothing, and the result is finer than the whole numbers it is made of."""
    assert midmean([2, 3, 2, 3, 2, 3, 9000, 0]) == 2.5
    assert midmean([5]) == 5


@pytest.mark.parametrize(
    "events",
    [
        [],
        [run(0)],
        [run(0), node(1, 10), run(100)],
        [run(0), node(1, 10), run(100), {"cat": "Node", "name": "x_kernel_time"}],
        [run(0), run(100), node(101, 1), node(102, 1), node(103, 1)],
        [None],
    ],
    ids=["nothing", "a run too few", "a node too few", "no times", "a node too many", "no event"],
)
def test_a_profile_of_another_kind_is_refused(events: list[Any]) -> None:
    """Runs or nodes that do not add up, or lack a field, are not understood."""
    with pytest.raises(Unavailable, match="of a kind this version does not know"):
        nodes_of(events, runs=2)


@pytest.mark.parametrize("text", ["", "{}", "[{"])
def test_a_file_of_another_kind_is_refused(text: str, tmp_path: Path) -> None:
    """So is a file that holds no list."""
    (tmp_path / "profile.json").write_text(text, encoding="utf-8")

    with pytest.raises(Unavailable):
        read_events(tmp_path / "profile.json")
