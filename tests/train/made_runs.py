"""Finished runs of a sweep, made up: the files that ``spd train`` leaves, without training.

The scores are those of a model that overfits the more, the higher its recipe's ``greed``; they come
from a formula of the run's place and seed, so that tests know what must be found.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.files import write_json
from spd_deploy.domain.tasks import TASKS
from spd_train.sweep.jobs import Job, StudentJob
from spd_train.training.metrics_log import METRICS_FILE, MetricsLog

GREED = {"spd": 0.35, "spd-paper": 0.5, "prune": 1.0, "prune-kd": 0.75, "one-shot": 1.1}
BEST = {"cola": 0.52, "mrpc": 0.89, "rte": 0.66, "stsb": 0.88, "sst2": 0.92}
STEPS_PER_EPOCH = 20


def finals(job: Job) -> dict[str, float]:
    """The headline on train, holdout and dev that the job ends with."""
    random = Random(job.folder)
    best = BEST.get(job.task, 0.8)
    greed = GREED[job.recipe] if isinstance(job, StudentJob) else 0.6
    loss = job.pattern.sparsity**2 * (0.06 + 0.1 * greed) if isinstance(job, StudentJob) else 0.0
    dev = best - loss + random.gauss(0, 0.006)
    gap = (1 - best + 0.05) * (0.25 + 0.5 * greed) * (1 + random.gauss(0, 0.12)) + loss / 2
    train = min(0.995, dev + gap)
    return {"train": train, "holdout": dev + random.gauss(0.004, 0.006), "dev": dev}


def make_run(folder: Path, job: Job, *, epochs: int = 10) -> None:
    """Write ``log.jsonl`` and ``spd.json`` of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    metric = TASKS[job.task].metrics[0] if job.task in TASKS else "accuracy"
    final = finals(job)
    journal = MetricsLog(folder / METRICS_FILE, from_step=0)
    random = Random(job.seed)
    last = epochs * STEPS_PER_EPOCH - 1
    for epoch in range(1, epochs + 1):
        step = epoch * STEPS_PER_EPOCH - 1
        journal.write("step", step, {"loss": math.exp(-epoch / 4), "stage": "prune"})
        parts = {name: {metric: _at(epoch, epochs, final, name, random)} for name in final}
        journal.write(
            "score", step, {"epoch": epoch, "train": parts["train"], "holdout": parts["holdout"]}
        )
    journal.write(
        "final", last, {"chosen_step": last, **{name: {metric: v} for name, v in final.items()}}
    )
    write_json(folder / SPD_FILE, _description(job, metric, final["dev"]))


def _at(epoch: int, epochs: int, final: Mapping[str, float], part: str, random: Random) -> float:
    """A learning curve: train goes on rising, what is held out soon stops."""
    pace = 2.2 if part == "train" else 1.2
    dip = 0.08 * math.exp(-((epoch - epochs * 0.4) ** 2) / 3)
    value = final[part] * (1 - 0.35 * math.exp(-epoch / pace)) - dip
    return value + random.gauss(0, 0.006) * (part != "train")


def _description(job: Job, metric: str, dev: float) -> dict[str, Any]:
    """The part of ``spd.json`` that a sweep reads."""
    if isinstance(job, StudentJob):
        return {
            "scores": {"dense": {metric: BEST.get(job.task, 0.8)}, "sparse": {metric: dev}},
            "pattern": str(job.pattern),
            "recipe": {"name": job.recipe, "seed": job.seed},
        }
    return {"scores": {"dense": {metric: dev}}, "pattern": None, "recipe": {"seed": job.seed}}
