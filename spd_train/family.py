"""A family of students: one speed-up after another, each pruned further from the one before.

A family of one speed-up is a run in the output folder itself. Otherwise:

output/
  2x/ ...       a checkpoint for each speed-up; the first has the teacher too, unless one is named
  layers-3/ ... a shallower dense student, where one is wanted to compare with
  family.json   what each scores and how fast it is measured to be, written last
  family.png    score against measured latency
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting, Interrupted
from spd_deploy.domain.files import write_json
from spd_deploy.domain.plot_style import save_png
from spd_train.family_folders import FAMILY_FILE, member_folder, shallow_folder
from spd_train.family_result import (
    DENSE,
    Comparison,
    Family,
    Member,
    layers_name,
    loses_more,
    speedup_name,
)
from spd_train.plots.family import family_figure
from spd_train.run import TEACHER_FOLDER
from spd_train.train_config import TrainConfig
from spd_train.training.metrics_log import METRICS_FILE, final_record

FAMILY_PICTURE = "family.png"

Train = Callable[[TrainConfig], Checkpoint]
# Exports, scores and times checkpoints, given by name; the first is the dense teacher.
Compare = Callable[[Mapping[str, Path]], Comparison]


def refuse_family(config: TrainConfig, speedups: Sequence[float], max_drop: float | None) -> None:
    """Refuse speed-ups that do not rise, and a bound that cannot be measured.

    Raises:
        BadSetting: they do not, there is none, or no validation rows measure a drop.
    """
    if not speedups or any(b <= a for a, b in pairwise(speedups)):
        raise BadSetting(
            "the speed-ups of a family must rise",
            got=", ".join(f"{s:g}" for s in speedups),
            fix="for example --speedup 2,3,5",
        )
    if max_drop is not None and not config.data.holdout:
        raise BadSetting(
            "--max-drop is measured on validation rows, and there are none",
            got=f"--holdout {config.recipe.holdout:g}",
            fix="use a --holdout above 0",
        )


def train_family(
    config: TrainConfig,
    speedups: Sequence[float],
    *,
    train: Train,
    compare: Compare | None,
    max_drop: float | None = None,
    layers: Sequence[int] = (),
) -> Family:
    """Train a student for each speed-up, each from the one before, and write ``family.json``.

    Args:
        config: the run of every member, with the family's folder as output.
        speedups: rising speed-ups.
        train: trains one member, or opens it if it is finished.
        compare: scores and times the finished models; None if this machine does not count.
        max_drop: points of 100 that a student may lose on the validation rows. The family ends with
            the first that loses more.
        layers: for each number a shallower dense student with so many layers is distilled too.

    Raises:
        BadSetting: :func:`refuse_family` refuses the speed-ups.
        Interrupted: the run was stopped; ``--resume`` continues it.
    """
    refuse_family(config, speedups, max_drop)
    members: list[Member] = []
    later = len(speedups) + len(layers)
    for member in _members(replace(config, later_students=later), speedups, train):
        members.append(member)
        if loses_more(member, max_drop):
            break
    teacher = config.teacher or str(members[0].checkpoint.folder / TEACHER_FOLDER)
    shallow = {
        count: train(replace(_shallow(config, count, teacher), later_students=len(layers) - i))
        for i, count in enumerate(layers, start=1)
    }
    models = {
        DENSE: Path(teacher),
        **{speedup_name(m.speedup): m.checkpoint.folder for m in members},
        **{layers_name(count): found.folder for count, found in shallow.items()},
    }
    if config.should_stop():
        raise Interrupted("stopped before the models were compared", fix="resume the run")
    family = Family(
        output=config.output,
        members=tuple(members),
        shallow=shallow,
        comparison=None if compare is None else compare(models),
        max_drop=max_drop,
    )
    _draw(family)
    write_json(config.output / FAMILY_FILE, family.to_json())
    return family


def validation_drop(folder: Path, metrics: Sequence[str]) -> float | None:
    """Points of 100 that a student loses against its teacher on the validation rows.

    It is the mean over ``metrics``; None without validation rows, or where a metric is undefined.
    """
    final = final_record(folder / METRICS_FILE)
    sparse, dense = final.get("holdout"), final.get("teacher_holdout")
    if not sparse or not dense or any(s[m] is None for s in (sparse, dense) for m in metrics):
        return None
    return fmean(100 * float(dense[m] - sparse[m]) for m in metrics)


def _members(config: TrainConfig, speedups: Sequence[float], train: Train) -> Iterator[Member]:
    """Train the members in turn."""
    model, teacher, start = config.model, config.teacher, config.start
    alone = len(speedups) == 1
    for i, speedup in enumerate(speedups, start=1):
        folder = config.output if alone else member_folder(config.output, speedup)
        checkpoint = train(
            replace(
                config,
                recipe=replace(config.recipe, speedup=speedup),
                model=model,
                teacher=teacher,
                output=folder,
                start=start,
                resume=config.resume if alone else folder.exists(),
                later_students=config.later_students - i,
            )
        )
        drop = validation_drop(folder, config.task.metrics)
        yield Member(speedup=speedup, checkpoint=checkpoint, drop=drop)
        model, teacher, start = None, teacher or str(folder / TEACHER_FOLDER), folder


def _shallow(config: TrainConfig, count: int, teacher: str) -> TrainConfig:
    """The run of a dense student with ``count`` layers, distilled as the others are."""
    student = config.recipe.student
    pruning = replace(student.pruning, keep_layers=count)
    folder = shallow_folder(config.output, count)
    return replace(
        config,
        recipe=replace(config.recipe, speedup=None, student=replace(student, pruning=pruning)),
        model=None,
        teacher=teacher,
        output=folder,
        start=None,
        latency=None,
        resume=folder.exists(),
    )


def _draw(family: Family) -> None:
    """Draw the models, if several were compared."""
    comparison, checkpoint = family.comparison, family.members[0].checkpoint
    if comparison is None:
        return
    metric = checkpoint.task.metrics[0]
    figure = family_figure(
        dense=[m for m in comparison.models if m.name == DENSE],
        students=comparison.of([speedup_name(m.speedup) for m in family.members]),
        shallow=comparison.of([layers_name(count) for count in family.shallow]),
        title=f"{checkpoint.task.name}: score against speed",
        metric=metric,
        score=f"{metric} on {checkpoint.split}",
        where=comparison.where,
    )
    save_png(figure, family.output / FAMILY_PICTURE)
