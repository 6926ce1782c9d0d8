"""Files of another GLUE task than the named one, recognised by their columns or labels."""

from collections.abc import Sequence

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import TASKS, Task
from spd_train.data.rows import DataRow, Name


def refuse_foreign_file(task: Task, first: DataRow) -> None:
    """Refuse a file with the columns of another GLUE task.

    Args:
        task: a GLUE task.
        first: the first row of the file.

    Raises:
        BadData: the file belongs to another task.
    """
    headless = isinstance(task.columns.text, int)
    if not headless and set(_columns(task)) <= set(first.names):
        return
    names: Sequence[object] = tuple(first.fields.values()) if headless else first.names
    theirs = [name for name in tasks_with(names) if name != task.name]
    if theirs:
        raise BadData(
            f"{first.file} is not of task {task.name}",
            got=f"the columns of {' or '.join(theirs)}",
            fix=f"name the folder of {task.name}, or --task {theirs[0]}",
        )


def tasks_with(names: Sequence[object]) -> list[str]:
    """The GLUE tasks whose files have columns of these names; some tasks have the same.

    CoLA's files have no header. Their first row is recognised by its shape: an id, 0 or 1, a mark
    and a sentence.
    """
    if len(names) == 4 and names[1] in ("0", "1"):
        return ["cola"]
    tasks = [t for t in TASKS.values() if t.files and not isinstance(t.columns.text, int)]
    return [task.name for task in tasks if set(_columns(task)) <= set(names)]


def tasks_of_label(task: Task, spelled: str) -> list[str]:
    """Other GLUE tasks with the same columns whose files have this label."""
    return [
        other.name
        for other in TASKS.values()
        if task.files
        and other.files
        and other.name != task.name
        and _columns(other) == _columns(task)
        and spelled in (other.label_values or other.labels)
    ]


def _columns(task: Task) -> tuple[Name | None, ...]:
    """The columns of the task's files that are read."""
    columns = (task.columns.text, task.columns.pair, task.columns.label)
    return tuple(column for column in columns if column is not None)
