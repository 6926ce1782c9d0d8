"""Trained models as they are exported: what each scores on dev, and how fast it is.

    python -m benchmarks.compare_models --task stsb --data GLUE/STS-B --output FILE \
        dense=TEACHER 2x=STUDENT 3x=STUDENT

It is the comparison that ``spd train --speedup`` ends with, of checkpoints that were trained at any
time. Each is exported in fp32 and int8 for ONNX Runtime, the first also for OpenVINO in bf16 where
that runs here. The sessions that are scored and timed are of the same files, and all of them take
turns. The report names the machine, and the work of other processes before and after.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from exporters.compare_models import ModelForm, compare_models
from exporters.precision import CalibrationSet
from spd_deploy.cli.inputs.calibration_set import calibration_set_of
from spd_deploy.cli.options.export_options import MAX_DROP
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.cli.train_family import dense_forms
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.compared_model import ComparedModel
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import task_named
from spd_deploy.domain.text_encoder import EncodesOnce
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.timing.machine_load import load_average
from spd_train.data.splits import read_data

RUNTIME: CpuRuntime = "onnxruntime"
PRECISIONS = ("fp32", "int8")


def forms_of(models: Mapping[str, Path]) -> Iterator[ModelForm]:
    """Every model in fp32 and int8, and the first in each form that a dense model would have."""
    for name, folder in models.items():
        forms: list[tuple[CpuRuntime, str]] = [(RUNTIME, found) for found in PRECISIONS]
        if name == next(iter(models)):
            forms = list(dict.fromkeys([*forms, *dense_forms(RUNTIME)]))
        for runtime, precision in forms:
            yield ModelForm(name=name, checkpoint=folder, runtime=runtime, precision=precision)


def rows_of(found: list[ComparedModel], metric: str) -> Iterator[tuple[str, ...]]:
    """A row for each form: its time, its speed beside three dense ones, its score."""
    dense = [model for model in found if model.name == found[0].name]
    same = {model.precision: model.seconds for model in dense}
    fastest = min(model.seconds for model in dense)
    for model in found:
        score = model.scores[metric]
        yield (
            model.name,
            f"{model.precision} in {model.runtime}",
            f"{1e3 * model.seconds:.1f}",
            f"{same['fp32'] / model.seconds:.2f}",
            f"{same[model.precision] / model.seconds:.2f}",
            f"{fastest / model.seconds:.2f}",
            "undefined" if score is None else f"{100 * score:.2f}",
        )


def main() -> None:
    """Export, score and time the models; print a table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="the dense model first")
    parser.add_argument("--task", required=True, help="name of the GLUE task")
    parser.add_argument("--data", type=Path, required=True, help="folder of its files")
    parser.add_argument("--at", default="8x128", help="rows x tokens of the batches to time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True, help="file of the report")
    args = parser.parse_args()
    if args.output.exists():
        parser.error(f"{args.output} exists")
    models = {name: Path(folder) for name, folder in (m.split("=", 1) for m in args.models)}
    task = task_named(args.task)
    data = read_data(task, args.data, holdout=0.1)
    batch, seq = map(int, args.at.split("x"))

    def texts(checkpoint: Checkpoint) -> CalibrationSet:
        tokenizer = EncodesOnce(tokenizer_of(checkpoint))
        return calibration_set_of(
            checkpoint, tokenizer, task, data, MAX_DROP, Silent(), refuses=False
        )

    before = load_average()
    found = compare_models(
        list(forms_of(models)),
        [Shape(batch=batch, seq=seq)],
        threads=args.threads,
        texts=texts,
        progress=TerminalProgress(),
    )
    report = {
        "schema": 1,
        "task": task.name,
        "where": f"{args.at}, {args.threads} threads",
        "machine": asdict(this_machine()),
        "load": [before, load_average()],
        "models": [model.to_json() for model in found],
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    metric = task.metrics[0]
    print(f"| model | form | ms | over dense fp32 | over dense | over fastest dense | {metric} |")
    print("|---|---|---|---|---|---|---|")
    for row in rows_of(list(found), metric):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
