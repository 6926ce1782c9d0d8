"""``spd serve`` as a process with API keys, a certificate and a management port."""

import http.client
import signal
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from tests.cli.test_serve import PATIENCE_S, Server, run_to_its_end, serving
from tests.serve.certificates import pair

KEY, OTHER = "a-key-of-the-web-frontend", "another-key-for-batch-jobs"


@pytest.fixture(scope="module")
def artefact(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """An artefact to serve."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("cli") / "model")


def status_of(port: int, path: str, key: str = "", context: ssl.SSLContext | None = None) -> int:
    """The status of a GET with a key."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=context)
        if context
        else http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    )
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_management_port_has_probes_and_metrics_alone(
    artefact: Artefact, tmp_path: Path
) -> None:
    """It asks for no key and speaks plain HTTP; the main port keeps the probes and the rest."""
    files, keys = pair(tmp_path), tmp_path / "keys"
    keys.write_text(KEY, encoding="utf-8")
    options = ("--api-keys", str(keys), "--tls-certificate", str(files.certificate),
               "--tls-key", str(files.key), "--management-port", "0")  # fmt: skip
    context = ssl.create_default_context(cafile=str(files.certificate))
    with Managed(artefact.folder, *options) as server:
        for path in ("/livez", "/readyz", "/v2/health/ready", "/metrics"):
            assert status_of(server.management, path) == 200, path
        for path in ("/info", "/docs", "/v1/models", "/v2"):
            assert status_of(server.management, path, KEY) == 404, path
        assert status_of(server.port, "/readyz", context=context) == 200
        assert status_of(server.port, "/metrics", KEY, context) == 404
        assert status_of(server.port, "/info", KEY, context) == 200
        assert status_of(server.port, "/info", OTHER, context) == 401


class Managed(Server):
    """A server with a management port, which is killed at the end of the block."""

    management: int

    def next_line(self) -> str:
        """Pass warnings over, and read both ports from the line that says ready."""
        while not (line := super().next_line()).startswith("ready"):
            assert "every user of this machine" in line, line
        main, _, management = line.partition(", management on ")
        self.management = int(management.rpartition(":")[2])
        assert main.startswith("ready on https://")
        return main.replace("https", "http")

    def __enter__(self) -> "Managed":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_sighup_reads_the_keys_again(artefact: Artefact, tmp_path: Path) -> None:
    """The signal ends nothing; the new key counts at once, and the old one no more."""
    keys = tmp_path / "keys"
    keys.write_text(KEY, encoding="utf-8")
    keys.chmod(0o600)
    with serving(artefact.folder, "--api-keys", str(keys)) as server:
        assert status_of(server.port, "/info", KEY) == 200
        keys.write_text(OTHER, encoding="utf-8")
        server.stop(signal.SIGHUP)
        assert server.next_line().endswith(f"API keys were read from {keys}: 1")

        give_up_at = time.perf_counter() + PATIENCE_S
        while status_of(server.port, "/info", OTHER) != 200:
            assert time.perf_counter() < give_up_at
        assert status_of(server.port, "/info", KEY) == 401


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--api-keys", "EMPTY"), "holds no API key"),
        (("--api-keys", "nowhere"), "cannot read the API keys in nowhere"),
        (("--tls-key", "EMPTY"), "--tls-key is given without --tls-certificate"),
        (("--tls-key", "EMPTY", "--tls-certificate", "EMPTY"), "no TLS certificate and its key"),
        (("--cors-origins", "a.example"), "no origin; got a.example"),
    ],
)
def test_what_cannot_be_used_ends_it_with_one_line(
    artefact: Artefact, tmp_path: Path, options: Sequence[str], told: str
) -> None:
    """Keys, certificates and origins are checked before the model is opened."""
    empty = tmp_path / "empty"
    empty.touch(0o600)

    status, lines = run_to_its_end(
        artefact.folder, *(str(empty) if word == "EMPTY" else word for word in options)
    )

    assert status == 1
    (line,) = lines
    assert told in line


def test_keys_let_others_in(tmp_path: Path) -> None:
    """With keys an address that others reach needs no --insecure; the keys are looked at next."""
    result = CliRunner().invoke(
        cli, ["serve", "somewhere", "--host", "0.0.0.0", "--api-keys", str(tmp_path / "none")]
    )

    assert (result.exit_code, "cannot read the API keys" in result.stderr) == (1, True)
