"""The server of ``spd serve`` as a deployment of Ray Serve.

    serve run spd_deploy.scale.serve:app artefact=/models/sst2 num_cpus=4 max_replicas=8

Each replica is a whole server: its engine makes the batches, its admission refuses with 429 and
``Retry-After``, and every protocol answers. Ray Serve's proxy reads HTTP and finds a replica. Ray
Serve starts more of them while each has many requests, and replaces one whose engine hangs.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from spd_deploy.api.app import create_app
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.extras import require_extras
from spd_deploy.scale.ray_replica import DRAIN_S, Replica

if TYPE_CHECKING:
    from ray.serve import Application

NAME = "spd"
# Requests that a replica has at once, of which each may have several texts: its own queue refuses.
_MAX_ONGOING = 1024
_HEALTH_EVERY_S = 5.0
_LOOK_FOR_DRAINED_S = 0.2
_WHOLE = (
    "num_cpus", "min_replicas", "max_replicas", "target_ongoing_requests", "models_per_replica",
)  # fmt: skip
_FIX = "write NAME=VALUE behind spd_deploy.scale.serve:app, or under args in the file"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentSettings:
    """The arguments of the deployment.

    Attributes:
        num_cpus: cores of a replica, and threads of its models.
        num_gpus: GPUs of a replica; with ``device="cuda"`` 1 by default.
        min_replicas: fewest replicas.
        max_replicas: most replicas.
        target_ongoing_requests: requests of a replica at which another one is started.
        models: a folder with a folder of an artefact for each model; a request names one in the
            header ``serve_multiplexed_model_id``.
        models_per_replica: how many of those a replica has open.
        options: parameters of ``spd_deploy.create_app``.
    """

    num_cpus: int = 1
    num_gpus: float = 0.0
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: int = 16
    models: str = ""
    models_per_replica: int = 3
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers and combinations that make no deployment.

        Raises:
            BadSetting: with the value.
        """
        for name in _WHOLE:
            value = getattr(self, name)
            if not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
                raise BadSetting(f"{name} must be a whole number above 0", got=value, fix=_FIX)
        if not (isinstance(self.num_gpus, int | float) and self.num_gpus >= 0):
            raise BadSetting("num_gpus must be a number", got=self.num_gpus, fix=_FIX)
        if self.max_replicas < self.min_replicas:
            raise BadSetting(
                "max_replicas is below min_replicas",
                got=f"{self.max_replicas} and {self.min_replicas}",
                fix="raise max_replicas",
            )
        if bool(self.models) == ("artefact" in self.options or "model_repository" in self.options):
            raise BadSetting(
                "one of artefact, model_repository and models must be given",
                got=", ".join(sorted(self.options)) or "nothing",
                fix=_FIX,
            )

    @classmethod
    def parse(cls, args: Mapping[str, Any]) -> Self:
        """The settings of a command line, where all values are texts, or of a configuration file.

        Raises:
            BadSetting: an unknown name, or a value that does not fit.
        """
        own = {one.name for one in fields(cls)} - {"options"}
        theirs = set(inspect.signature(create_app).parameters) - {"threads"}
        values = {name: _value_of(value) for name, value in args.items()}
        if unknown := set(values) - own - theirs:
            raise BadSetting(
                "unknown argument of the deployment",
                got=", ".join(sorted(unknown)),
                fix=f"use {', '.join(sorted(own))}, or a parameter of spd_deploy.create_app; "
                "num_cpus says the threads",
            )
        if values.get("device") == "cuda":
            values.setdefault("num_gpus", 1)
        return cls(
            options={name: value for name, value in values.items() if name in theirs},
            **{name: value for name, value in values.items() if name in own},
        )


def app(args: Mapping[str, Any]) -> "Application":
    """The application that ``serve run spd_deploy.scale.serve:app NAME=VALUE ...`` runs.

    Raises:
        BadSetting: an argument that is not known, or a value that does not fit.
        Unavailable: Ray is not installed.
    """
    require_extras("serving on Ray", "ray")
    from ray import serve

    settings = DeploymentSettings.parse(args)
    deployment = serve.deployment(
        name=NAME,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_ongoing_requests=_MAX_ONGOING,
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.target_ongoing_requests,
        },
        health_check_period_s=_HEALTH_EVERY_S,
        graceful_shutdown_timeout_s=DRAIN_S,
        graceful_shutdown_wait_loop_s=_LOOK_FOR_DRAINED_S,
    )(serve.ingress()(Replica))
    return deployment.bind(
        settings.options, models=settings.models, models_per_replica=settings.models_per_replica
    )


def _value_of(value: Any) -> Any:
    """A number, true, false or list that is written as text; any other text is a name or a path."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, int | float | list) else value
