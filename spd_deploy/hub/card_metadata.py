"""The metadata at the head of a model card, which the hub reads: YAML."""

import re
from typing import TYPE_CHECKING

from spd_deploy.domain.tasks import TASKS
from spd_deploy.hub.model_facts import ModelFacts

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_GLUE = "nyu-mll/glue"
# What the hub calls our metrics, where it has another name.
_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}


def metadata_of(facts: ModelFacts, name: str, license_: str | None) -> str:
    """The YAML of a card; a field of which nothing is known is left out.

    Args:
        facts: the model.
        name: of the model on the hub.
        license_: as the user says, or the model that it was made from.
    """
    from huggingface_hub import ModelCardData

    base = None if facts.base is None else facts.base.repository
    results = _results(facts)
    data = ModelCardData(
        license=license_,
        base_model=base,
        datasets=[_GLUE] if _is_glue(facts) else None,
        library_name="transformers" if facts.format is None else None,
        pipeline_tag="text-classification",
        tags=_tags(facts),
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _tags(facts: ModelFacts) -> list[str]:
    """The tags by which the hub finds the model."""
    sparse = [] if facts.pattern is None else ["sparse", "pruning", str(facts.pattern)]
    form = [] if facts.format is None else [facts.format, facts.precision]
    return ["spd", *sparse, *form]


def _results(facts: ModelFacts) -> "list[EvalResult]":
    """The model's own scores as the hub's model index has them."""
    from huggingface_hub import EvalResult

    task = facts.task
    glue = _is_glue(facts)
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=_GLUE if glue else re.sub(r"[^\w.-]+", "-", task.name),
            dataset_name=f"GLUE {task.name.upper()}" if glue else task.name,
            dataset_config=task.name if glue else None,
            dataset_split="validation" if glue and facts.split == "dev" else facts.split,
            metric_type=_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=value,
        )
        for metric, value in facts.scores.get(facts.own, {}).items()
        if value is not None
    ]


def _is_glue(facts: ModelFacts) -> bool:
    """Whether the task is one of GLUE, by its name."""
    known = TASKS.get(facts.task.name)
    return known is not None and known.hub is not None
