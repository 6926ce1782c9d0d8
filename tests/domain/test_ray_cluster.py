"""Addresses of Ray that cannot be used are refused within seconds, in a line."""

import http.server
import socket
import threading
from pathlib import Path

import pytest

from spd_deploy.domain import ray_cluster as module
from spd_deploy.domain.errors import BadSetting, SpdError, Unavailable
from spd_deploy.domain.ray_cluster import ray_cluster


def refusal(address: str) -> SpdError:
    """The error of connecting."""
    with pytest.raises(SpdError) as refused, ray_cluster(address, "spd predict --ray"):
        pass
    return refused.value


def test_an_address_where_nobody_answers_is_refused() -> None:
    """It names the address and the way without one; Ray itself would end the process."""
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        refused = refusal(f"127.0.0.1:{port}")

    assert isinstance(refused, Unavailable)
    assert f"nobody answers at 127.0.0.1:{port}; got " in str(refused)
    assert "leave it out" in refused.fix


def test_a_cluster_of_this_machine_that_is_gone_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray leaves a note of its last start, and would wait minutes for who is there no more."""
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)

        assert f"nobody answers at {address}" in str(refusal("auto"))


def test_an_address_of_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port of plain HTTP, such as that of Ray's dashboard, is told apart."""
    pytest.importorskip("ray")
    monkeypatch.setattr(module, "_ANSWER_WITHIN_S", 1.0)
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        refused = refusal(f"127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert "is no Ray cluster" in refused.what


@pytest.mark.parametrize("address", ["artefacts/sst2", "host", "host:port", "ray://host:10001", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    """So a model's folder behind ``--ray`` is not taken for a cluster."""
    pytest.importorskip("ray")

    refused = refusal(address)

    assert isinstance(refused, BadSetting) and refused.got == address


def test_an_old_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version, and the command that installs a later one."""
    pytest.importorskip("ray")
    monkeypatch.setattr(module, "version_of", {"ray": "2.9.3"}.get)

    assert "needs Ray 2.60 or later; got ray 2.9.3; pip install" in str(refusal("local"))
