"""The Kubernetes manifests: of the published schemas, and with times that fit each other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from serve.health import CHECK_EVERY_S
from serve.metrics import Metrics
from serve.settings import ServeSettings
from tests.deploy.programs import serve_options
from tests.deploy.schemas import faults_of

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
NO_MANIFESTS = ("kustomization.yaml", "prometheus-adapter.yaml")
# What uvicorn takes to close connections after the drain, and some reserve.
ENDS_WITHIN_S = 5
PATHS = {
    "deployment.yaml": {"/readyz", "/livez"},
    "serving-runtime.yaml": {"/v2/health/ready", "/v2/health/live"},
}


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def pods() -> Iterator[tuple[str, dict[str, Any], float]]:
    """Each pod's name, its specification, and its grace period in seconds."""
    plain = load("deployment.yaml")["spec"]["template"]["spec"]
    yield "deployment.yaml", plain, plain["terminationGracePeriodSeconds"]
    service = load("kserve/inference-service.yaml")["spec"]["predictor"]
    runtime = load("kserve/serving-runtime.yaml")["spec"]
    yield "serving-runtime.yaml", runtime, service["terminationGracePeriodSeconds"]


PODS = tuple(pods())
IDS = tuple(name for name, _, _ in PODS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_manifest_is_of_its_published_schema(file: Path) -> None:
    """It has known fields alone, of the right types, and none that is required is missing."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file.name not in NO_MANIFESTS:
        assert not faults_of(content)


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ({"replica": 2}, "Deployment.spec has no field replica"),
        ({"replicas": "2"}, "Deployment.spec.replicas is '2', not of type int"),
        ({"selector": {}, "template": []}, "Deployment.spec.template is no V1PodTemplateSpec"),
    ],
)
def test_a_broken_manifest_is_found(broken: dict[str, Any], fault: str) -> None:
    """The check tells an unknown field, a wrong type and a list in place of an object."""
    manifest = load("deployment.yaml")

    found = faults_of({**manifest, "spec": {**manifest["spec"], **broken}})

    assert fault in found
    del manifest["spec"]["selector"]
    assert any("selector" in one for one in faults_of(manifest))


@pytest.mark.parametrize(("name", "pod", "grace_s"), PODS, ids=IDS)
def test_a_pod_lives_until_its_requests_are_answered(
    name: str, pod: dict[str, Any], grace_s: float
) -> None:
    """The grace period holds the sleep before SIGTERM, the drain, and the end of the process."""
    (container,) = pod["containers"]
    options = serve_options(container["args"])
    sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert grace_s >= sleep_s + options["drain_timeout"] + ENDS_WITHIN_S
    assert options["drain_timeout"] == ServeSettings().drain_timeout_s
    assert sleep_s >= container["readinessProbe"]["periodSeconds"]


@pytest.mark.parametrize(("name", "pod", "grace_s"), PODS, ids=IDS)
def test_probes_ask_what_the_server_answers(name: str, pod: dict[str, Any], grace_s: float) -> None:
    """Paths and port are the server's, and only the liveness probe restarts a pod that started."""
    (container,) = pod["containers"]
    options = serve_options(container["args"])
    startup, ready, live = (
        container[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    )
    named = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert {probe["httpGet"]["path"] for probe in (startup, ready, live)} == PATHS[name]
    for probe in (startup, ready, live):
        port = probe["httpGet"]["port"]
        assert named.get(port, port) == options["port"]
        assert probe.get("timeoutSeconds", 1) < probe["periodSeconds"]
    assert options["host"] == "0.0.0.0" and options["insecure"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 120
    assert ready["periodSeconds"] >= CHECK_EVERY_S
    # A pod that is slow stops getting requests before it is restarted.
    assert ready["periodSeconds"] * ready["failureThreshold"] < (
        live["periodSeconds"] * live["failureThreshold"]
    )


@pytest.mark.parametrize(("name", "pod", "grace_s"), PODS, ids=IDS)
def test_a_pod_writes_only_where_it_may(name: str, pod: dict[str, Any], grace_s: float) -> None:
    """Nobody is root, the root is read-only, and TMPDIR is a volume that can be written."""
    (container,) = pod["containers"]
    security = {**pod.get("securityContext", {}), **container["securityContext"]}
    (scratch,) = (one["value"] for one in container["env"] if one["name"] == "TMPDIR")
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}

    assert security["runAsNonRoot"] and security["runAsUser"] > 0
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not mounts[scratch].get("readOnly")
    assert {one["name"] for one in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert (
        int(container["resources"]["limits"]["cpu"]) == serve_options(container["args"])["threads"]
    )


def test_the_autoscaler_reads_a_metric_that_the_server_has() -> None:
    """The adapter makes the autoscaler's metric of series that are on the server's page."""
    (metric,) = load("autoscaler.yaml")["spec"]["metrics"]
    (rule,) = load("prometheus-adapter.yaml")["rules"]["custom"]
    metrics = Metrics()
    metrics.of_model("mrpc")
    text = metrics.page().decode()

    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    series, _, _ = rule["seriesQuery"].partition("{")
    assert re.fullmatch(rule["name"]["matches"], series)
    assert "<<.Series>>{<<.LabelMatchers>>}" in rule["metricsQuery"]
    assert f'{series}{{model="mrpc"}}' in text


def test_all_speak_of_the_same_pods() -> None:
    """Service, budget and autoscaler select the Deployment, which leaves its size to the last."""
    deployment = load("deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service, budget = load("service.yaml"), load("disruption-budget.yaml")
    scaled = load("autoscaler.yaml")["spec"]

    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels == budget["spec"]["selector"]["matchLabels"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    assert scaled["minReplicas"] > budget["spec"]["maxUnavailable"]


def test_kserve_finds_the_runtime() -> None:
    """The service's format, protocol and runtime are those that the runtime offers."""
    runtime = load("kserve/serving-runtime.yaml")
    model = load("kserve/inference-service.yaml")["spec"]["predictor"]["model"]
    (container,) = runtime["spec"]["containers"]

    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {
        one["name"] for one in runtime["spec"]["supportedModelFormats"]
    }
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert container["name"] == "kserve-container" and container["args"][1] == "/mnt/models"


def test_kustomize_lists_the_files_of_its_folder() -> None:
    """Every manifest beside it is applied, and only those."""
    beside = {file.name for file in FOLDER.glob("*.yaml")} - set(NO_MANIFESTS)

    assert set(load("kustomization.yaml")["resources"]) == beside
