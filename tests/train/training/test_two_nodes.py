"""Training on two nodes that meet over a network, as machines do."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import WEIGHTS_FILE
from spd_deploy.domain.progress import Silent
from spd_train.run import run
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from tests.tiny import tiny_model
from tests.train.runs import QUICK, TASK, config_for, spd_recipe

ROOT = Path(__file__).parents[3]
ADDRESSES = ("10.213.77.1", "10.213.77.2")
TIMEOUT_S = 180


def ip(*words: str) -> None:
    """Run ``ip``; skip where this process may not make a network."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Two network namespaces, joined by a cable and by nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces here: iproute2 is not installed")
    names = f"spd-{os.getpid()}-a", f"spd-{os.getpid()}-b"
    with contextlib.ExitStack() as made:
        for name in names:
            ip("netns", "add", name)
            made.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names


def start(node: str, address: str, teacher: Path, output: Path) -> "subprocess.Popen[str]":
    """The launcher of one node."""
    return subprocess.Popen(
        [
            *("ip", "netns", "exec", node, sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "c10d"),
            *("--rdzv_endpoint", f"{ADDRESSES[0]}:29500", "--local_addr", address),
            # A namespace has the machine's name, which leads to none of the two addresses.
            *("--rdzv_conf", f"is_host={int(address == ADDRESSES[0])}"),
            *("-m", "tests.train.one_run", str(teacher), str(output)),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_nodes_are_one_process_that_accumulates(tmp_path: Path, nodes: tuple[str, str]) -> None:
    """Two nodes over a network end with the bits of one process that takes two parts a step."""
    model = tiny_model(tmp_path / "model", task=TASK, hidden=32, intermediate=64)
    dense = config_for(model, tmp_path / "teacher", replace(QUICK, pattern=None))
    teacher = run(dense, Silent()).folder
    alone = config_for(teacher, tmp_path / "alone", replace(spd_recipe(), accumulate=2))

    launched = [
        start(node, address, teacher, tmp_path / "together")
        for node, address in zip(nodes, ADDRESSES, strict=True)
    ]
    try:
        run(replace(alone, model=None, teacher=str(teacher)), Silent())
        for launcher in launched:
            _, said = launcher.communicate(timeout=TIMEOUT_S)
            assert launcher.returncode == 0, said[-3000:]
    finally:
        for launcher in launched:
            launcher.terminate()  # which ends its processes too
            launcher.wait()

    logs = [read_metrics_log(tmp_path / name / METRICS_FILE) for name in ("alone", "together")]
    weights = [(tmp_path / name / WEIGHTS_FILE).read_bytes() for name in ("alone", "together")]
    assert logs[0] == logs[1]
    assert weights[0] == weights[1]
