"""Checks a manifest against the published models of the Kubernetes API and of KServe.

Kubernetes' own are those of its Python client, which is generated from the API's OpenAPI document.
``kserve_fields.json`` has the fields and types of those models of KServe's Python client 0.21.0
that our manifests use.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kubernetes import client

KSERVE: Mapping[str, Mapping[str, str]] = json.loads(
    (Path(__file__).parent / "kserve_fields.json").read_text(encoding="utf-8")
)
MODELS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("v1", "Service"): "V1Service",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
SCALARS: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
}


def faults_of(manifest: Mapping[str, Any]) -> list[str]:
    """What in a manifest its API does not take: unknown fields, wrong types, missing fields."""
    kind = (manifest["apiVersion"], manifest["kind"])
    return list(_faults(manifest, MODELS[kind], str(manifest["kind"])))


def _faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """The faults of a value that should be of a type as the clients spell types."""
    if found := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for i, one in enumerate(value):
            yield from _faults(one, found[1], f"{where}[{i}]")
    elif found := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        for name, one in value.items():
            yield from _faults(one, found[1], f"{where}.{name}")
    elif kind in SCALARS:
        if not isinstance(value, SCALARS[kind]) or (kind != "bool" and isinstance(value, bool)):
            yield f"{where} is {value!r}, not of type {kind}"
    elif kind not in ("object", "IntOrString"):
        yield from _faults_of_object(value, kind, where)


def _faults_of_object(value: Any, kind: str, where: str) -> Iterator[str]:
    """The faults of an object with the fields of a model."""
    if not isinstance(value, dict):
        yield f"{where} is no {kind}"
        return
    types = _fields(kind)
    for name, one in value.items():
        if name not in types:
            yield f"{where} has no field {name}"
        else:
            yield from _faults(one, types[name], f"{where}.{name}")
    if kind not in KSERVE:
        yield from _lacking(value, kind, where)


def _fields(kind: str) -> Mapping[str, str]:
    """The type of each field of a model, by its name in JSON."""
    if kind in KSERVE:
        return KSERVE[kind]
    model = getattr(client, kind)
    return {model.attribute_map[name]: of for name, of in model.openapi_types.items()}


def _lacking(value: Mapping[str, Any], kind: str, where: str) -> Iterator[str]:
    """What the client's own model refuses: a required field that is missing, an unknown choice."""
    model = getattr(client, kind)
    given = {name: value[key] for name, key in model.attribute_map.items() if key in value}
    try:
        model(**given)
    except ValueError as err:
        yield f"{where}: {err}"
