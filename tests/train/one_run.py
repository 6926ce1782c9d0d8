"""One short run on as many nodes as a launcher joins, for ``tests.train.training.test_two_nodes``.

python -m torch.distributed.run ... -m tests.train.one_run TEACHER OUTPUT
"""

import sys
from dataclasses import replace
from pathlib import Path

from spd_deploy.domain.progress import Silent
from spd_train.run import run
from tests.train.runs import config_for, spd_recipe

if __name__ == "__main__":
    teacher, output = Path(sys.argv[1]), Path(sys.argv[2])
    run(
        replace(config_for(teacher, output, spd_recipe()), model=None, teacher=sys.argv[1]),
        Silent(),
    )
