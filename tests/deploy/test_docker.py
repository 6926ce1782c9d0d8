"""The images, the compose file and the dashboard: linted, and what they name exists."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serve.metrics import BatchFault, Metrics
from tests.deploy.programs import serve_options

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/docker"
IMAGES = ("Dockerfile", "Dockerfile.cuda")


def instructions(image: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (FOLDER / image).read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last(image: str, wanted: str) -> str:
    return [rest for word, rest in instructions(image) if word == wanted][-1]


def command_of(image: str) -> list[str]:
    words: list[str] = json.loads(last(image, "CMD"))
    return words


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_lints(image: str) -> None:
    """Hadolint finds nothing."""
    linter = Path(sys.executable).parent / "hadolint"

    done = subprocess.run([linter, FOLDER / image], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_a_command_that_exists(image: str) -> None:
    """Its options are those of ``spd serve``, and the port is the one that is exposed and asked."""
    options = serve_options(command_of(image))

    assert json.loads(last(image, "ENTRYPOINT")) == ["spd"]
    assert options["insecure"] and options["host"] == "0.0.0.0"
    assert options["device"] == ("cuda" if image.endswith("cuda") else None)
    assert last(image, "EXPOSE") == str(options["port"])
    health = last(image, "HEALTHCHECK").partition(" CMD ")[2]
    assert f"http://127.0.0.1:{options['port']}/readyz" in json.loads(health)[-1]
    compile(json.loads(health)[-1], "health", "exec")


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_two_stages_and_nobody_is_root(image: str) -> None:
    """What builds the wheel stays behind, and the server runs as a user without a name."""
    words = [word for word, _ in instructions(image)]

    assert words.count("FROM") == 2
    assert int(last(image, "USER").split(":")[0]) > 0
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("COPY", "RUN"))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_extras_that_exist_from_files_that_it_gets(image: str) -> None:
    """The extras are ours, and .dockerignore lets through all that the wheel is built from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", build_run(image))
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }

    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {
        *wheel,
        listed_in(image),
        "pyproject.toml",
        "constraints.txt",
        "LICENSE",
        project["project"]["readme"],
    }
    assert needed <= kept and all((ROOT / name).exists() for name in kept)


def build_run(image: str) -> str:
    """The command that installs the packages and the wheel."""
    return next(rest for word, rest in instructions(image) if word == "RUN" and "install" in rest)


def listed_in(image: str) -> str:
    """The file with the packages of an image."""
    (file,) = re.findall(r"--require-hashes -r (\S+)", build_run(image))
    return str(file)


def required(extra: str | None) -> Iterator[Requirement]:
    """What the project requires, or what an extra adds to it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return map(Requirement, lines)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_every_package_by_hash_in_the_version_that_is_tested(image: str) -> None:
    """The list has what the wheel and its extras require, each with a hash, as constraints say."""
    text = (ROOT / listed_in(image)).read_text(encoding="utf-8")
    listed = dict(re.findall(r"^(\S+)==(\S+) ", text, re.MULTILINE))
    pinned = {
        canonicalize_name(name): version
        for name, version in re.findall(
            r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", build_run(image))
    needed = {
        canonicalize_name(one.name)
        for extra in (None, *extras.split(","))
        for one in required(extra)
        if one.marker is None or one.marker.evaluate()
    }

    assert needed <= set(listed)
    assert all(pinned[name] == version for name, version in listed.items() if name in pinned)
    assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(listed)
    for entry in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_names_files_that_exist() -> None:
    """The build's files and every file that is mounted are there."""
    services = compose()["services"]
    build = services["server"]["build"]
    mounts = [mount.split(":")[0] for one in services.values() for mount in one.get("volumes", [])]

    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    assert all((FOLDER / name).is_file() for name in mounts if name.startswith("./"))
    assert len([name for name in mounts if name.startswith("./")]) == 4


def test_compose_gives_the_server_time_to_drain() -> None:
    """The root is read-only, there is room to write, and SIGKILL comes after the drain."""
    server = compose()["services"]["server"]
    options = serve_options(command_of("Dockerfile"))

    assert server["read_only"] and server["cap_drop"] == ["ALL"]
    assert server["tmpfs"][0].startswith(f"{last('Dockerfile', 'WORKDIR')}:")
    assert int(server["stop_grace_period"].removesuffix("s")) > options["drain_timeout"] + 5
    assert server["ports"] == [f"127.0.0.1:8000:{options['port']}"]


def test_the_parts_find_each_other() -> None:
    """Prometheus scrapes the server, and Grafana asks Prometheus, at the ports they listen on."""
    services = compose()["services"]
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((FOLDER / "grafana/datasource.yaml").read_text(encoding="utf-8"))
    (job,) = scraped["scrape_configs"]
    (asked,) = source["datasources"]

    assert job["static_configs"] == [{"targets": ["server:8000"]}] and "server" in services
    assert asked["url"] == "http://prometheus:9090" and "prometheus" in services
    assert {asked["uid"]} == {panel["datasource"]["uid"] for panel in panels()}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (FOLDER / "grafana/dashboard.json").read_text(encoding="utf-8")
    )["panels"]
    return found


def test_the_dashboard_asks_for_series_that_the_server_has() -> None:
    """Each series and label of its queries is on the server's page; latency and queue are shown."""
    metrics = Metrics()
    metrics.request_answered("/v1/classify", 200, 0.1)
    model = metrics.of_model("mrpc")
    model.texts_tokenised(0.1, queue_s=0.1, truncated=1)
    model.engine_failed(BatchFault.EXCEPTION)
    model.watch_model(running_s=lambda: 0.0, oldest_wait_s=lambda: 0.0)
    model.watch_queue(lambda: 0, lambda: 0, lambda: 0)
    page = metrics.page().decode()
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]

    series = {name for query in queries for name in re.findall(r"\bspd_\w+", query)}
    assert all(re.search(rf"^{name}[{{ ]", page, re.MULTILINE) for name in series)
    labels = {name for query in queries for by in re.findall(r"by \(([^)]+)\)", query)
              for name in by.split(", ")}  # fmt: skip
    assert all(f'{name}="' in page for name in labels)
    for wanted in ("spd_request_seconds", "spd_queue_items", "spd_truncated_total"):
        assert any(name.startswith(wanted) for name in series)
