"""Whether a model answers what a task asks for: its labels, in its order."""

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.tasks import ProblemType, Task


def refuse_other_answers(model: Task, wanted: Task, *, whose: str) -> None:
    """Refuse a model whose outputs mean something else than the task's.

    Args:
        model: what the model was made for.
        wanted: what it is to answer.
        whose: the model in words, for the error.

    Raises:
        BadSetting: another kind or count of answers, other labels, or the same in another order.
    """
    if not same_answers(model, wanted):
        raise BadSetting(
            f"{whose} does not answer as task {wanted.name} needs: {_outputs_in_words(wanted)}",
            got=_outputs_in_words(model),
            fix="use a model that was fine-tuned for this task; if it was, name its outputs so "
            "in the id2label of its config.json",
        )


def same_answers(model: Task, wanted: Task) -> bool:
    """Whether a model of one task gives what another asks for: its labels, in its order.

    Names such as ``LABEL_0`` say nothing, so they agree with any.
    """
    if model.problem_type != wanted.problem_type or model.outputs != wanted.outputs:
        return False
    mine, theirs = _comparable(model.names), _comparable(wanted.names)
    return mine is None or theirs is None or mine == theirs


def _comparable(labels: tuple[str, ...]) -> tuple[str, ...] | None:
    """Labels without case and marks; None where they are mere numbers."""
    plain = tuple("".join(c for c in label.lower() if c.isalnum()) for label in labels)
    numbers = tuple(str(i) for i in range(len(plain)))
    return None if tuple(p.removeprefix("label") for p in plain) == numbers else plain


def _outputs_in_words(task: Task) -> str:
    """The answers of a model of the task, in words for an error."""
    if task.is_regression:
        return f"a number for {', '.join(task.ordinal[:8])}" if task.ordinal else "a number"
    many = " in any number" if task.problem_type is ProblemType.MULTI_LABEL else ""
    return f"{task.outputs} labels{many}, {', '.join(task.labels[:8])}"
