"""``spd serve`` with several models as a process: signals, swaps under load, a killed server."""

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from tests.serve.repositories import put

PATIENCE_S = 60
BODY = json.dumps({"inputs": [{"text": "a good film"}]})
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def artefact(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """An artefact to serve."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("swaps") / "model")


@pytest.fixture
def repository(artefact: Artefact, tmp_path: Path) -> Path:
    """A repository with version 1 of the model ``reviews``."""
    (tmp_path / "repository" / "reviews").mkdir(parents=True)
    put(artefact.folder, tmp_path / "repository" / "reviews" / "1")
    return tmp_path / "repository"


class Running:
    """A process of ``spd serve`` that is ready."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port

    def connection(self) -> http.client.HTTPConnection:
        """A connection of one's own, kept alive."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(self, path: str, body: str | None = None) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        with contextlib.closing(self.connection()) as connection:
            return asked(connection, path, body)

    def page(self, path: str) -> str:
        """What a GET has for an answer."""
        with contextlib.closing(self.connection()) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def version(self) -> str:
        """The version that answers."""
        version: str = self.ask("/info")[1]["model_version"]
        return version


def asked(
    connection: http.client.HTTPConnection, path: str, body: str | None = None
) -> tuple[int, Any]:
    """The status and the JSON of an answer on a connection."""
    connection.request("GET" if body is None else "POST", path, body, JSON)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def serving(*options: str) -> Iterator[Running]:
    """A server that is surely gone at the end."""
    line = [sys.executable, "-m", "spd_deploy", "serve", "--port", "0", "--threads", "1", *options]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        said: list[str] = []
        while not (said and said[-1].startswith("ready on ")):
            said.append(process.stderr.readline())
            assert said[-1], said
        yield Running(process, int(said[-1].rpartition(":")[2]))
    finally:
        process.kill()
        process.communicate()


def wait_for_version(server: Running, version: str) -> None:
    """Return once this version answers."""
    give_up_at = time.monotonic() + PATIENCE_S
    while server.version() != version:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_sighup_serves_the_newest_version(repository: Path, artefact: Artefact) -> None:
    """The signal replaces what has changed, and the process goes on."""
    with serving("--model-repository", str(repository)) as server:
        server.process.send_signal(signal.SIGHUP)
        put(artefact.folder, repository / "reviews" / "2")
        server.process.send_signal(signal.SIGHUP)

        wait_for_version(server, "2")

        assert server.ask("/v1/classify", BODY)[0] == 200
        assert server.process.poll() is None


def test_no_request_is_lost_under_load(repository: Path, artefact: Artefact) -> None:
    """Clients on connections of their own get 200 and the same scores through all swaps."""
    stop = threading.Event()
    with (
        serving("--model-repository", str(repository), "--model-control") as server,
        ThreadPoolExecutor(3) as pool,
    ):
        _, expected = server.ask("/v1/classify", BODY)

        def ask_on() -> list[tuple[int, Any]]:
            answers = []
            with contextlib.closing(server.connection()) as connection:
                while not stop.is_set():
                    answers.append(asked(connection, "/v1/classify", BODY))
            return answers

        asking = [pool.submit(ask_on) for _ in range(3)]
        for number in range(2, 6):
            put(artefact.folder, repository / "reviews" / str(number))
            assert server.ask("/v2/repository/models/reviews/load", "{}")[0] == 200
            assert server.version() == str(number)
        stop.set()
        answers = [one for future in asking for one in future.result(PATIENCE_S)]

    assert len(answers) > 20
    assert all(answer == (200, expected) for answer in answers)


@pytest.mark.parametrize("delay_s", [0.0, 0.3])
def test_a_server_killed_while_it_reloads_starts_again(
    repository: Path, artefact: Artefact, delay_s: float
) -> None:
    """A kill -9 during a reload, with a half-copied version beside, leaves what can be served."""
    with serving("--model-repository", str(repository)) as server:
        put(artefact.folder, repository / "reviews" / "2")
        half = put(artefact.folder, repository / "reviews" / "3")
        (half / "weights.bin").write_bytes(b"")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(delay_s)
        server.process.kill()

    with serving("--model-repository", str(repository)) as server:
        assert server.version() == "2"
        assert server.ask("/v1/classify", BODY)[0] == 200


def test_a_configuration_file_has_shadows_in_a_list(artefact: Artefact, tmp_path: Path) -> None:
    """An option that may be repeated is a list of strings in the file."""
    folder, file = str(artefact.folder), tmp_path / "spd.toml"
    file.write_text('shadow = ["a=b@1", "b=a@1"]\nwatch = true\n', encoding="utf-8")
    with serving("--config", str(file), f"a={folder}", f"b={folder}") as server:
        page = server.page("/metrics")

    for one in ('model="a",shadow="b"', 'model="b",shadow="a"'):
        assert f"spd_shadow_texts_total{{{one}}} 0.0" in page


def test_a_shadow_is_counted(artefact: Artefact) -> None:
    """Two names on one line, one the shadow of the other."""
    folder = str(artefact.folder)
    with serving(f"a={folder}", f"b={folder}", "--shadow", "a=b@1") as server:
        assert server.ask("/v1/classify", BODY)[0] == 200
        give_up_at = time.monotonic() + PATIENCE_S
        while 'spd_shadow_texts_total{model="a",shadow="b"} 1.0' not in server.page("/metrics"):
            assert time.monotonic() < give_up_at


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "no model to serve"),
        (["{0}", "{0}"], "two models have the same name"),
        (["a={0}", "A={0}"], "two names differ by case"),
        (["a={0}", "--shadow", "a=a@0.5"], "its own shadow"),
        (["a={0}", "--shadow", "a=b@0.5"], "not served"),
        (["a={0}", "b={0}", "--shadow", "a=b@2"], "above 0 and at most 1"),
        (["a={0}", "b={0}", "--shadow", "a"], "NAME=OTHER@SHARE"),
        (["{0}", "--model-repository", "{0}"], "exclude each other"),
        (["--model-repository", "{0}/nowhere"], "not a folder that can be read"),
        (["--model-repository", "{0}"], "is empty"),
    ],
)
def test_models_that_make_no_sense_are_refused(
    artefact: Artefact, options: list[str], told: str
) -> None:
    """Each is told in a line, before a model is opened."""
    given = [one.format(artefact.folder) for one in options]

    result = CliRunner().invoke(cli, ["serve", "--port", "0", *given])

    (said,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert said.startswith("spd: ") and told in said


def test_a_version_answers_without_its_folder(repository: Path, artefact: Artefact) -> None:
    """A version whose folder was removed while it answers goes on answering."""
    with serving("--model-repository", str(repository)) as server:
        shutil.rmtree(repository / "reviews" / "1")
        server.process.send_signal(signal.SIGHUP)

        assert server.ask("/v1/classify", BODY)[0] == 200
