"""GLUE from the Hugging Face hub, for users without a folder of its files.

Needs the optional extra ``data`` and a network.
"""

from importlib.util import find_spec

from spd_deploy.domain.errors import Unavailable, first_line
from spd_deploy.domain.tasks import Task
from spd_deploy.hub.reachable import why_hub_is_unreachable
from spd_train.data.examples import Example, Splits

REPOSITORY = "nyu-mll/glue"


def hub_split(task: Task, split: str) -> Splits:
    """One split of a GLUE task, by the names of its parts on the hub.

    Raises:
        Unavailable: ``datasets`` is not installed, or the hub cannot be reached.
    """
    if find_spec("datasets") is None:
        raise Unavailable(
            "without --data the data comes from the hub, which needs the package datasets",
            fix="name a folder with --data, or pip install 'spd-deploy[data]'",
        )
    silence = why_hub_is_unreachable()  # before the import, which reads whether the hub is offline
    import datasets

    parts: Splits = {}
    for part in _parts(task, split):
        try:
            rows = datasets.load_dataset(REPOSITORY, task.name, split=part)
        except Exception as err:  # the library passes on any error of its transport
            raise Unavailable(
                f"the hub did not give {REPOSITORY} {task.name} {part}",
                got=silence or first_line(err),
                fix="check the network, or name a folder with --data",
            ) from err
        parts[part] = [_example(task, row) for row in rows]
    return parts


def _parts(task: Task, split: str) -> list[str]:
    """The hub's names for the parts of a split."""
    name = "validation" if split == "dev" else split
    if task.name == "mnli" and name != "train":
        return [f"{name}_matched", f"{name}_mismatched"]
    return [name]


def _example(task: Task, row: dict[str, object]) -> Example:
    """One row as an example; the hub marks a missing label with -1."""
    assert task.hub is not None  # noqa: S101 - only GLUE tasks come here
    label = float(str(row["label"]))
    pair = None if task.hub.pair is None else str(row[str(task.hub.pair)])
    return Example(
        text=str(row[str(task.hub.text)]),
        pair=pair,
        label=None if label < 0 and not task.is_regression else label,
    )
