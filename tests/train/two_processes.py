"""Runs on as many processes as a launcher starts, for ``tests.train.training.test_processes``.

    python -m torch.distributed.run --standalone --nproc_per_node=2 \
        -m tests.train.two_processes TEACHER PLACE

Below PLACE: each recipe's run; ``spd-resumed``, one stopped twice by the second process;
``calm``, without what makes much of rounding; ``windows``, the same with texts in windows; and what
each process says of a run that is finished.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.errors import Interrupted
from spd_deploy.domain.progress import Silent
from spd_train.config import Recipe
from spd_train.run import run
from spd_train.train_config import TrainConfig
from tests.pictures import blank_pictures
from tests.train.runs import StopAfter, config_for
from tests.train.training.test_processes import RECIPES, calm, in_windows


def main() -> None:
    """All the runs, one after another."""
    teacher, place = Path(sys.argv[1]), Path(sys.argv[2])
    rank = int(os.environ["RANK"])

    def config(name: str, recipe: Recipe) -> TrainConfig:
        return replace(config_for(teacher, place / name, recipe), model=None, teacher=str(teacher))

    for name, recipe in RECIPES.items():
        run(config(name, recipe), Silent())
    again = config("spd-resumed", RECIPES["spd"])
    for i, steps in enumerate((4, 11)):
        stop = StopAfter(steps if rank == 1 else -1)  # the first never says so itself
        try:
            run(replace(again, resume=i > 0, should_stop=stop), Silent())
        except Interrupted:
            continue
        raise AssertionError("the run was not stopped")
    run(replace(again, resume=True), Silent())
    run(config("calm", calm(RECIPES["spd"])), Silent())
    run(in_windows(config("windows", calm(RECIPES["spd"]))), Silent())
    found = run(replace(config("spd", RECIPES["spd"]), resume=True), Silent())
    (place / f"finished-{rank}.json").write_text(json.dumps(found.to_json()))


if __name__ == "__main__":
    with blank_pictures():
        main()
