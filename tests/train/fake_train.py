"""What ``spd train`` does to its output folder, without training: the sweep's child in tests.

    python -m tests.train.fake_train train --task mrpc ... --output OUT [--resume]

SPD_FAKE_FAIL and SPD_FAKE_WAIT name places: a run whose folder holds the one fails, one whose
folder holds the other begins and waits for a signal, at which it saves its state.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.patterns import parse_pattern
from spd_train.sweep.jobs import Job, StudentJob, TeacherJob
from tests.train.made_runs import make_run

PROGRAM = (sys.executable, "-m", "tests.train.fake_train")
EXPECTED = ("task", "model", "output", "device", "data", "recipe", "teacher", "precision")


def main() -> None:
    """Behave as the command line would."""
    print(" ".join(sys.argv[1:]), f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}", flush=True)
    options = read_options()
    folder = Path(options.output)
    if options.resume != folder.exists():
        sys.exit("spd: --resume and the folder do not agree; this is a fault of the sweep")
    if _named("SPD_FAKE_FAIL", folder):
        sys.exit("spd: the loss is not a number; got nan; lower the learning rate")
    if _named("SPD_FAKE_WAIT", folder):
        wait(folder)
    if options.teacher and not (Path(options.teacher) / SPD_FILE).exists():
        sys.exit("spd: no such teacher")
    make_run(folder, job_of(options), epochs=3)


def read_options() -> argparse.Namespace:
    """The options; an unknown one is an error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["train"])
    for name in (*EXPECTED, "pattern"):
        parser.add_argument(f"--{name}")
    for name in ("sparsity", "epochs", "learning-rate", "teacher-epochs"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("seed", "max-steps", "batch-size", "max-tokens"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def job_of(options: argparse.Namespace) -> Job:
    """What is asked for."""
    if options.pattern is None:
        return TeacherJob(task=options.task, seed=options.seed)
    pattern = parse_pattern(options.pattern, options.sparsity)
    return StudentJob(task=options.task, pattern=pattern, recipe=options.recipe, seed=options.seed)


def wait(folder: Path) -> None:
    """Begin, and hold on until a signal comes."""

    def leave(number: int, frame: FrameType | None) -> None:
        (folder / "signals").open("a").write(f"{number}\n")
        sys.exit(130)

    signal.signal(signal.SIGTERM, leave)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}")
    time.sleep(60)


def _named(variable: str, folder: Path) -> bool:
    """Whether the environment names this folder."""
    place = os.environ.get(variable)
    return place is not None and place in folder.as_posix()


if __name__ == "__main__":
    main()
