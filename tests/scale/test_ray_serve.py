"""A deployment on Ray Serve answers as the server does; its replacement fails no request."""

import asyncio
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from exporters.export import artefact_from_checkpoint
from spd_deploy.api.app import create_app
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadSetting, NotReady
from spd_deploy.scale.ray_replica import Replica
from spd_deploy.scale.serve import DeploymentSettings, app
from tests.tiny import tiny_checkpoint

# Ray Serve 2.60 uses what Pydantic 2 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TEXTS = {"inputs": [{"text": "a great film"}, {"text": "never dull"}]}
REQUESTS: list[tuple[str, Any]] = [
    ("/v1/classify", TEXTS),
    ("/predict", {"inputs": "a great film"}),
    ("/classify", {"input": "a great film", "model": "a"}),
    ("/v1/classify", {"inputs": []}),
    ("/v2/models/a", None),
    ("/readyz", None),
    ("/nowhere", None),
]
MODEL_HEADER = "serve_multiplexed_model_id"


@pytest.fixture(scope="module")
def url(started_ray: ModuleType) -> Iterator[str]:
    """Where Ray Serve's proxy listens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve uses what pydantic calls deprecated
        from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"port": port, "location": "HeadOnly"})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()  # type: ignore[no-untyped-call]


def timeless(answer: Any) -> Any:
    """An answer without the second in which it was made, which OpenAI's form has."""
    return {**answer, "created": 0} if isinstance(answer, dict) else answer


def ask(url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    content = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json", "X-Request-Id": "one", **(headers or {})}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, content, given), timeout=60
        ) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as err:
        return err.code, json.load(err)


def test_a_deployment_answers_as_the_server(
    url: str, artefact: Artefact, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every protocol, status and score is the server's; a new version fails no request."""
    from ray import serve

    serve.run(app({"artefact": str(artefact.folder), "num_cpus": "1", "max_queue": "100"}))
    with TestClient(create_app(artefact.folder, threads=1)) as here:
        while here.get("/readyz").status_code != 200:
            time.sleep(0.02)
        for path, body in REQUESTS:
            headers = {"X-Request-Id": "one"}
            wanted = here.request("POST" if body else "GET", path, json=body, headers=headers)
            status, found = ask(url + path, body)
            assert (status, timeless(found)) == (wanted.status_code, timeless(wanted.json())), path

    other = tmp_path_factory.mktemp("other")
    checkpoint = tiny_checkpoint(other / "c", task="sst2", seed=1)
    artefact_from_checkpoint(checkpoint, other / "a")
    before = ask(f"{url}/v1/classify", TEXTS)
    answers: list[tuple[int, Any]] = []
    replaced = threading.Event()

    def go_on_asking() -> None:
        while not replaced.is_set():
            answers.append(ask(f"{url}/v1/classify", TEXTS))

    asking = threading.Thread(target=go_on_asking)
    asking.start()
    try:
        serve.run(app({"artefact": str(other / "a")}))
        while ask(f"{url}/v1/classify", TEXTS) == before:
            time.sleep(0.05)
    finally:
        replaced.set()
        asking.join()
        serve.delete("default")
    assert {status for status, _ in answers} == {200}


def test_requests_name_one_of_many_models(url: str, artefact: Artefact, tmp_path: Path) -> None:
    """Three models in a replica that has two open; a name that is none of them gets 404."""
    from ray import serve

    for name in ("one", "two", "three"):
        shutil.copytree(artefact.folder, tmp_path / name)
    serve.run(app({"models": str(tmp_path), "models_per_replica": "2"}))

    asked = ("one", "two", "three", "one", "four", "..", "")
    found = [
        ask(f"{url}/v1/classify", TEXTS, {MODEL_HEADER: name} if name else {}) for name in asked
    ]
    serve.delete("default")

    assert [answer["model"] for _, answer in found[:4]] == list(asked[:4])
    assert [status for status, _ in found] == [200] * 4 + [404] * 3
    assert {answer["code"] for _, answer in found[4:]} == {"SPD_UNKNOWN_MODEL"}


def test_a_replica_whose_engine_hangs_is_unhealthy(artefact: Artefact) -> None:
    """Ray Serve asks, and gets the error that ``/livez`` would show."""

    async def check() -> None:
        options = {"artefact": str(artefact.folder), "stall_timeout": 0.01, "threads": 1}
        replica = Replica(options, models="", models_per_replica=1)
        started = await replica.started()
        try:
            replica.check_health()
            opened = started.state.opened
            assert opened is not None
            opened.engine.health.began(0.0)
            await asyncio.sleep(0.05)
            with pytest.raises(NotReady, match="a batch hangs in the model"):
                replica.check_health()
            opened.engine.health.ended()
        finally:
            await started.stop()

    asyncio.run(check())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "one of artefact, model_repository and models must be given"),
        ({"artefact": "a", "models": "b"}, "one of artefact, model_repository and models"),
        ({"artefact": "a", "max_qeue": "1"}, "unknown argument of the deployment; got max_qeue"),
        ({"artefact": "a", "threads": "2"}, "num_cpus says the threads"),
        ({"artefact": "a", "num_cpus": "0.5"}, "num_cpus must be a whole number above 0"),
        ({"artefact": "a", "num_gpus": "many"}, "num_gpus must be a number; got many"),
        ({"artefact": "a", "min_replicas": "2"}, "max_replicas is below min_replicas"),
    ],
)
def test_arguments_that_make_no_deployment_are_refused(args: dict[str, str], said: str) -> None:
    """Before Ray Serve starts anything."""
    with pytest.raises(BadSetting, match=said):
        DeploymentSettings.parse(args)


def test_arguments_are_typed_as_in_a_configuration_file() -> None:
    """Numbers, true and lists are read from the texts of a command line; paths stay as they are."""
    found = DeploymentSettings.parse(
        {"artefact": "/models/1", "device": "cuda", "max_queue": "64", "model_control": "true"}
    )

    assert found.options == {
        "artefact": "/models/1", "device": "cuda", "max_queue": 64, "model_control": True
    }  # fmt: skip
    assert found.num_gpus == 1
