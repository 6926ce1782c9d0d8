"""``GET /info``: the model, its sparsity, its runtime and the server's limits."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from serve.model_card import Density
from serve.open_model import ServedModel
from serve.protocols import native
from serve.protocols.input_spec import InputSpec, example_of
from serve.protocols.tei.tei_info import TeiInfo, tei_info_of
from serve.settings import ServeSettings
from serve.text_windows import settings_of_model
from spd_deploy.domain.artefact import Parity
from spd_deploy.domain.decision import Threshold
from spd_deploy.domain.scores import score_owner, whose
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.domain.versions import versions_of
from spd_deploy.sessions.protocol import Description


class ModelOverview(BaseModel):
    """One of the models that are served."""

    model: str
    version: str
    ready: bool = Field(description="Whether it takes requests.")


class Info(TeiInfo):
    """The model that is served, and the server's limits, also by the names that TEI has."""

    model: str
    model_version: str = Field(description="The version that answers.")
    models: list[ModelOverview] = Field(
        description="Every model; the first one answers requests that name none."
    )
    task: str
    problem_type: str
    activation: str = Field(
        description="How logits become scores: `softmax`, `sigmoid`, or `none` for regression."
    )
    labels: list[str] = Field(description="In the order of the model's outputs.")
    takes: str = Field(description="What an input is: a `single` text, a `pair`, or `either`.")
    example: dict[str, Any] = Field(description="A valid body for `/v1/classify`.")
    max_tokens: int = Field(
        description="Longest input. Longer texts are cut, read in windows (as `limits.long_texts` "
        "says), or refused with `truncate: false`."
    )
    format: str
    warning: str | None = Field(
        description="What an operator should know, such as a model without export; else null."
    )
    pattern: str
    sparsity: float | None = Field(
        description="Share of zeros that the pattern was given, from 0 to 1."
    )
    density: Density | None
    lowerings: dict[str, int] = Field(
        description="Number of matrices by the way they are multiplied."
    )
    parity: Parity | None = Field(
        description="Largest difference of the export's logits from its checkpoint's."
    )
    self_test: float | None = Field(
        description="The same difference on this machine, measured at start."
    )
    score: dict[str, float | None] | None = Field(
        description="Metrics of this model on `split`; null where it was never evaluated."
    )
    scores: dict[str, dict[str, float | None]] = Field(
        description="Metrics on `split` by model: this one and those that it was made from."
    )
    arms: dict[str, str] = Field(description="For each key of `scores`, which model it is.")
    split: str | None
    temperature: float | None = Field(
        description="What the logits were divided by in training, so that scores fit what is true; "
        "1 where they are as trained, null where nothing was fitted. All scores have it."
    )
    calibration: dict[str, TemperatureScaling] = Field(
        description="Expected calibration error and Brier score by model, with and without its "
        "temperature; empty for a number."
    )
    thresholds: dict[str, Threshold] = Field(
        description="Smallest score at which a label is given, where it is not the best one."
    )
    abstain_below: float | None = Field(
        description="Smallest score of a label that is given; below it the model abstains. Null "
        "where it always gives one."
    )
    checkpoint_sha256: str
    runtime: Description
    limits: ServeSettings
    exported_with: dict[str, str] = Field(
        description="Versions of the packages that exported the model."
    )
    served_with: dict[str, str] = Field(description="Versions of the packages that run the server.")


def info_of(
    served: ServedModel, settings: ServeSettings, models: Sequence[ModelOverview] = ()
) -> Info:
    """The answer of ``/info``; ``models`` are all that are served."""
    card, task, runs = served.card, served.task, served.session.description
    pruned = card.sparsity is not None
    own = score_owner(
        pruned=pruned, precision=runs.precision, format_=card.format, runtime=runs.runtime
    )
    return Info(
        **dict(tei_info_of(served, settings)),
        model=served.name,
        model_version=served.version,
        models=list(models),
        task=task.name,
        problem_type=task.problem_type.value,
        activation=task.activation.value,
        labels=list(task.ordinal or task.labels),
        takes=served.takes,
        example=native.example(input_spec_of(served, settings)),
        max_tokens=served.tokenizer.max_tokens,
        format=card.format,
        warning=card.warning,
        pattern=card.pattern,
        sparsity=card.sparsity,
        density=card.density,
        lowerings=dict(card.lowerings),
        parity=card.parity,
        self_test=card.self_test,
        score=None if own not in card.scores else dict(card.scores[own]),
        arms={arm: whose(arm, own) for arm in card.scores},
        scores={arm: dict(scores) for arm, scores in card.scores.items()},
        split=card.split,
        temperature=card.temperature,
        calibration=dict(card.calibration),
        thresholds=dict(task.decision.thresholds),
        abstain_below=task.decision.abstain_below,
        checkpoint_sha256=card.sha256,
        runtime=runs,
        limits=settings_of_model(settings, task.windows),
        exported_with=dict(card.versions),
        served_with=versions_of("fastapi", "numpy", "tokenizers", "uvicorn"),
    )


def input_spec_of(served: ServedModel, settings: ServeSettings) -> InputSpec:
    """The input that requests to the model must have."""
    return InputSpec(
        model=served.name,
        version=served.version,
        takes=served.takes,
        max_inputs=settings.max_inputs,
        reranks=served.reranks,
        max_tokens=served.tokenizer.max_tokens,
        largest_id=served.tokenizer.last_token()[1],
        example_ids=served.tokenizer.encode(*example_of(served.takes)).ids,
        largest_stride=max(0, served.tokenizer.window_room(pairs=served.takes_pairs) - 1),
        long_texts=settings_of_model(settings, served.task.windows).long_texts or "cut",
        drops_unseen=served.tokenizer.encode("\0\u200b").empty,
    )
