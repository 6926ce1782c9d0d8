"""``spd serve`` as a process: one line when ready, a drain at SIGTERM, one line for an error."""

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.cli.serve import is_loopback
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint

PATIENCE_S = 60
BODY = b'{"inputs": "a good film"}'
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)
WITHOUT_TORCH = """
import sys
sys.modules.update(torch=None, transformers=None)
from spd_deploy.cli.main import main
main()
"""
SICK = """
from serve.engine import Engine
def fail(engine, batch):
    raise RuntimeError("injected")
Engine._logits = fail
"""
GATE = "SPD_TEST_GATE"
# Every batch waits until the file is there.
HELD = f"""
import os, time
from serve.engine import Engine
logits = Engine._logits
def held(engine, batch):
    while not os.path.exists(os.environ["{GATE}"]):
        time.sleep(0.01)
    return logits(engine, batch)
Engine._logits = held
"""


@pytest.fixture(scope="module")
def artefact(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """An artefact to serve."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("cli") / "model")


class Server:
    """A running ``spd serve`` in a Python where torch and transformers cannot be imported."""

    def __init__(self, folder: Path, *options: str, before: str = "") -> None:
        self.process = subprocess.Popen(
            command(folder, *options, before=before), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        ready = self.next_line()
        assert ready.startswith("ready on http://127.0.0.1:"), ready
        self.port = int(ready.rpartition(":")[2])

    def next_line(self) -> str:
        """What it says next."""
        assert self.process.stderr
        return self.process.stderr.readline().decode().strip()

    def get(self, path: str) -> int:
        """The status of a GET over a connection of its own."""
        return self._asked(path)[0]

    def page(self, path: str) -> str:
        """What a GET has for an answer."""
        return self._asked(path)[1]

    def _asked(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def connect(self) -> socket.socket:
        """A plain connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def begin(self, connection: socket.socket) -> None:
        """Send a request on it, and wait until the model has it in hand."""
        connection.sendall(HEAD + BODY)
        give_up_at = time.monotonic() + PATIENCE_S
        while not re.search(r"^spd_queue_items{.*} 1.0$", self.page("/metrics"), re.MULTILINE):
            assert time.monotonic() < give_up_at
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, bytes, bytes]:
        """Its exit status, and what it had left to say."""
        said, told = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said, told


def command(folder: Path, *options: str, before: str = "") -> list[str]:
    return [sys.executable, "-c", before + WITHOUT_TORCH, "serve", str(folder), "--port", "0",
            "--threads", "1", *options]  # fmt: skip


@contextlib.contextmanager
def serving(folder: Path, *options: str, before: str = "") -> Iterator[Server]:
    """A server that is surely gone at the end, of a process that runs ``before`` first."""
    server = Server(folder, *options, before=before)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def answer_on(connection: socket.socket) -> http.client.HTTPResponse:
    """The answer that arrives on a connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for which the batches of a server wait that was started with ``HELD``."""
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))
    return tmp_path / "gate"


def test_it_serves_without_torch_and_drains(artefact: Artefact, gate: Path) -> None:
    """With torch out of reach it answers; at SIGTERM it finishes what it began and exits with 0."""
    with serving(artefact.folder, before=HELD) as server, server.connect() as slow:
        assert server.get("/readyz") == 200
        server.begin(slow)
        server.stop()
        assert server.next_line().startswith("draining: 1 requests in flight")
        assert (server.get("/readyz"), server.get("/livez")) == (503, 200)

        gate.touch()

        answer = answer_on(slow)
        assert answer.status == 200
        labels = {one["label"] for one in json.loads(answer.read())}
        assert labels == set(artefact.task.labels)
        assert server.end() == (0, b"", b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(artefact: Artefact, number: int) -> None:
    """A signal to a server with nothing to do ends it with exit status 0, SIGINT too."""
    with serving(artefact.folder) as server:
        server.stop(number)

        assert server.end()[:2] == (0, b"")


def test_what_outlasts_the_drain_gets_503(artefact: Artefact, gate: Path) -> None:
    """A request that is not done in time is told to go elsewhere, and the exit status is 0."""
    options = ("--drain-timeout", "0.1")
    with (
        serving(artefact.folder, *options, before=HELD) as server,
        server.connect() as slow,
    ):
        server.begin(slow)
        server.stop()

        answer = answer_on(slow)

        assert answer.status == 503
        assert json.loads(answer.read())["code"] == "SPD_NOT_READY"
        gate.touch()
        assert server.end()[0] == 0


def test_a_request_that_has_not_arrived_does_not_hold_the_drain(artefact: Artefact) -> None:
    """Half a request is not in flight: the server ends as if it were idle."""
    with serving(artefact.folder) as server, server.connect() as slow:
        slow.sendall(HEAD.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b"100 Continue" in slow.recv(1000)
        slow.sendall(BODY[:5])
        server.stop()

        assert server.end()[0] == 0


@pytest.mark.usefixtures("gate")
def test_a_second_signal_ends_it_at_once(artefact: Artefact) -> None:
    """Who insists does not wait for the drain."""
    with serving(artefact.folder, before=HELD) as server, server.connect() as slow:
        server.begin(slow)
        server.stop()
        assert server.next_line().startswith("draining")
        server.stop()

        assert server.end()[0] == 128 + signal.SIGTERM


def test_a_failure_is_logged_with_its_time_and_request(artefact: Artefact) -> None:
    """The line of the log begins with a time in its zone and ends with the id that was told."""
    with serving(artefact.folder, before=SICK) as server, server.connect() as connection:
        connection.sendall(HEAD.replace(b"Host", b"X-Request-Id: mine\r\nHost") + BODY)

        answer = answer_on(connection)

        assert (answer.status, answer.headers["X-Request-Id"]) == (424, "mine")
        line = server.next_line()
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ERROR serve.engine: .*injected; requests: mine"
    assert re.fullmatch(form, line)


def run_to_its_end(folder: Path, *options: str) -> tuple[int, list[str]]:
    """Exit status and lines of a server that does not come up."""
    done = subprocess.run(
        command(folder, *options), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_damaged_artefact_ends_it_with_one_line(artefact: Artefact, tmp_path: Path) -> None:
    """One changed byte, and the process exits with 1 after naming the file in a line."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in artefact.folder.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    content = bytearray((damaged / "model.onnx").read_bytes())
    content[-1] ^= 1
    (damaged / "model.onnx").write_bytes(content)

    status, lines = run_to_its_end(damaged)

    assert status == 1
    (line,) = lines
    assert line.startswith("spd: ")
    assert "model.onnx was changed" in line


def test_a_folder_that_was_not_exported_is_said_to_be_that(dense_checkpoint: Checkpoint) -> None:
    """Before it says ready, it says that PyTorch runs the model and that nothing is faster."""
    line = [sys.executable, "-m", "spd_deploy", "serve", str(dense_checkpoint.folder)]
    process = subprocess.Popen([*line, "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        lines = [process.stderr.readline() for _ in range(2)]
    finally:
        process.kill()
        process.communicate()

    assert lines[0].startswith("the model is not exported: it runs in PyTorch")
    assert lines[1].startswith("ready on ")


def test_a_trusted_proxy_tells_the_address(artefact: Artefact) -> None:
    """With the flag, the docs of a real server name the scheme, host and prefix of its proxy."""
    seen = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example"}
    options = ("--forwarded-allow-ips", "127.0.0.1", "--root-path", "/m/")
    with serving(artefact.folder, *options) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/docs", headers=seen)
            page = connection.getresponse().read().decode()

    assert "curl https://a.example/m/v1/classify" in page


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--forwarded-allow-ips", "proxy.example"), "neither an address nor a network"),
        (("--root-path", "models"), "--root-path is not a path"),
    ],
)
def test_a_proxy_that_makes_no_sense_ends_it_with_one_line(
    artefact: Artefact, options: Sequence[str], told: str
) -> None:
    """What is no address and no prefix is said before the server takes its port."""
    status, lines = run_to_its_end(artefact.folder, *options)

    assert status == 1
    (line,) = lines
    assert told in line


def test_a_taken_port_ends_it_with_one_line(artefact: Artefact) -> None:
    """Two servers on one port are one too many, and the second says so before it opens a model."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        status, lines = run_to_its_end(artefact.folder, "--port", str(port))

    assert status == 1
    (line,) = lines
    assert f"cannot listen on 127.0.0.1 port {port}; got {os.strerror(errno.EADDRINUSE)}" in line


def test_no_artefact_ends_it_with_one_line(tmp_path: Path) -> None:
    """A path that is not there is named."""
    status, lines = run_to_its_end(tmp_path / "nowhere")

    assert status == 1
    (line,) = lines
    assert "nowhere" in line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_other_machines_are_kept_out_unless_told(host: str) -> None:
    """An address that others reach needs keys or --insecure: the server asks nobody else."""
    result = CliRunner().invoke(cli, ["serve", "somewhere", "--host", host])

    assert result.exit_code == 2
    assert "--insecure" in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.example.org", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    """Only addresses of this machine count as such."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "options",
    [["--port", "70000"], ["--threads", "0"], ["--max-queue", "0"], ["--device", "tpu"]],
    ids=" ".join,
)
def test_nonsense_is_a_usage_error(options: Sequence[str]) -> None:
    """A value that makes no server is refused before anything is opened."""
    assert CliRunner().invoke(cli, ["serve", "somewhere", *options]).exit_code == 2
