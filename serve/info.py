"""``GET /info``: what is served, how sparse it is, how it runs, and what the server allows."""

from typing import Any

from pydantic import BaseModel, Field

from serve.open_model import Density, Served
from serve.protocols import native
from serve.protocols.form import Form
from serve.settings import ServeSettings
from spd_deploy.domain.artefact import Parity
from spd_deploy.domain.scores import own_arm, whose
from spd_deploy.domain.versions import PACKAGE, version_of, versions_of
from spd_deploy.sessions.protocol import Description


class Info(BaseModel):
    """What is served."""

    model: str
    task: str
    problem_type: str
    activation: str = Field(description="Of scores: `softmax`, `sigmoid`, or `none` of a number.")
    labels: list[str] = Field(description="In the order of the model's outputs.")
    takes: str = Field(description="`single` texts, a `pair`, or `either`.")
    example: dict[str, Any] = Field(description="A body for `/v1/classify` that is answered.")
    max_tokens: int = Field(description="Longer texts are cut, or refused if so asked.")
    format: str
    warning: str | None = Field(description="What to know of how it runs; null where all is well.")
    pattern: str
    sparsity: float | None = Field(description="The share of zeros that was aimed for.")
    density: Density | None
    lowerings: dict[str, int] = Field(description="How many matrices are run in which way.")
    parity: Parity | None = Field(description="Of the export with its checkpoint.")
    self_test: float | None = Field(description="The same difference on this machine, at start.")
    score: dict[str, float | None] | None = Field(
        description="Metrics of this very model, on `split`; null where it was never scored."
    )
    scores: dict[str, dict[str, float | None]] = Field(
        description="Metrics by arm, on `split`: also of models that this one was made from."
    )
    arms: dict[str, str] = Field(description="Of each arm of `scores`, which model it is.")
    split: str | None
    checkpoint_sha256: str
    runtime: Description
    limits: ServeSettings
    exported_with: dict[str, str] = Field(description="Versions of the packages that made it.")
    served_with: dict[str, str] = Field(description="Versions of the packages that run it.")


def info_of(served: Served, settings: ServeSettings) -> Info:
    """All there is to say about a model and the server around it."""
    about, task, runs = served.about, served.task, served.session.description
    pruned = about.sparsity is not None
    own = own_arm(pruned=pruned, precision=runs.precision, runtime=runs.runtime)
    return Info(
        model=served.name,
        task=task.name,
        problem_type=task.problem_type.value,
        activation=task.activation.value,
        labels=list(task.labels),
        takes=served.takes,
        example=native.example(form_of(served, settings)),
        max_tokens=served.tokenizer.max_tokens,
        format=about.format,
        warning=about.warning,
        pattern=about.pattern,
        sparsity=about.sparsity,
        density=about.density,
        lowerings=dict(about.lowerings),
        parity=about.parity,
        self_test=about.self_test,
        score=None if own not in about.scores else dict(about.scores[own]),
        arms={arm: whose(arm, own) for arm in about.scores},
        scores={arm: dict(scores) for arm, scores in about.scores.items()},
        split=about.split,
        checkpoint_sha256=about.sha256,
        runtime=runs,
        limits=settings,
        exported_with=dict(about.versions),
        served_with=versions_of("fastapi", "numpy", "tokenizers", "uvicorn"),
    )


def form_of(served: Served, settings: ServeSettings) -> Form:
    """What requests to the model look like."""
    return Form(
        takes=served.takes,
        max_inputs=settings.max_inputs,
        drops_unseen=served.tokenizer.encode("\0\u200b").empty,
    )


def build_labels(served: Served) -> dict[str, str]:
    """The labels of the metric ``spd_build_info``."""
    about, runs = served.about, served.session.description
    return {
        "version": version_of(PACKAGE) or "unknown",
        "model": served.name,
        "task": served.task.name,
        "format": about.format,
        "precision": runs.precision,
        "runtime": f"{runs.runtime} {runs.version}",
        "device": runs.device,
        "pattern": about.pattern,
        "sparsity": "" if about.sparsity is None else f"{about.sparsity:g}",
    }
