"""A full disk, verb by verb: one line with the cause, and nothing that blocks the next try.

The limit on the size of a file stands in for the disk. Below the size of the probe nothing is
begun, above it the work is done and its output is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.tasks import TASKS
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.full_disk import full_disk
from tests.tiny import tiny_checkpoint, tiny_model

VERBS = {
    "train": "train --task mrpc --data GLUE/MRPC --model model --pattern 2:4 --epochs 0.1 "
    "--teacher-epochs 0.1",
    "prune": "prune checkpoint --pattern 2:4 --data GLUE/MRPC",
    "export": "export checkpoint",
    "export torch": "export checkpoint --format torch",
    "export trt": "export checkpoint --format trt --no-build",
    "bench": "bench artefact --batch 1 --seq 8 --rounds 2 --seconds 0.01",
    "map": "map --shape 64x64 --tokens 8 --pattern block:16x1 --rounds 2 --seconds 0.01 "
    "--precision fp32 --runtime onnxruntime",
    "predict": "predict artefact --input texts.jsonl",
    "sweep": "sweep grid.toml --data GLUE",
}
# The commands of each limit on the size of a file, in bytes.
LIMITS = {
    4_000: VERBS,
    20_000: {name: command for name, command in VERBS.items() if name != "sweep"},
}
# A training that writes its log, its state and its weights.
LONGER = "train --task mrpc --data GLUE/MRPC --model model --pattern 2:4 --teacher-epochs 1"
OF_TRAINING = (3_000, 150_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        refused: it ended by its exit code, and no exception was left to Python.
    """

    code: int
    stderr: str
    refused: bool


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever the verbs read."""
    place = tmp_path_factory.mktemp("full")
    mrpc_files(place / "GLUE" / "MRPC")
    tiny_model(place / "model", task=TASKS["mrpc"])
    checkpoint = tiny_checkpoint(place / "checkpoint", task="mrpc")
    artefact_from_checkpoint(checkpoint, place / "artefact")
    pair = json.dumps({"text": "a film", "text_pair": "a bus"}) + "\n"
    (place / "texts.jsonl").write_text(pair * 400)
    (place / "grid.toml").write_text(
        'model = "model"\ntasks = ["mrpc"]\npatterns = ["2:4"]\nrecipes = ["prune"]\nseeds = [0]\n'
    )
    return place


@pytest.fixture(scope="module")
def outcomes(place: Path, rendered: None) -> Mapping[tuple[int, str], Outcome]:
    """How each command ended, by limit and name."""
    commands = {**LIMITS, **{limit: {"longer": LONGER} for limit in OF_TRAINING}}
    found = {}
    for limit, named in commands.items():
        for name, command in named.items():
            with full_disk(limit):
                result = run_in(place, f"{command} --output out-{limit}/x")
            found[limit, name] = Outcome(
                code=result.exit_code,
                stderr=result.stderr,
                refused=isinstance(result.exception, SystemExit),
            )
    return found


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_disk_is_one_line_and_blocks_nothing(
    place: Path, outcomes: Mapping[tuple[int, str], Outcome], limit: int
) -> None:
    """Each verb that writes names its output and the cause, and leaves no output behind."""
    output = place / f"out-{limit}"
    for name in LIMITS[limit]:
        outcome = outcomes[limit, name]
        lines = [line for line in outcome.stderr.splitlines() if line.startswith("spd: ")]
        assert outcome.code == 1 and len(lines) == 1, (name, outcome)
        named = lines[0].startswith(f"spd: could not write {output.name}/x")
        wrote = named and "free some space" in lines[0]
        copied = lines[0].startswith("spd: no room for a private copy of the model's files")
        assert wrote or copied, (name, lines[0])
    assert not [p for p in output.rglob("*") if p.is_file()]
    assert not list(output.glob("x"))


@pytest.mark.parametrize("limit", OF_TRAINING)
def test_a_full_disk_while_training_is_one_clear_line(
    place: Path, outcomes: Mapping[tuple[int, str], Outcome], limit: int
) -> None:
    """Out of space for the log, the state or the weights: one line, and no checkpoint."""
    outcome = outcomes[limit, "longer"]

    assert outcome.code == 1 and outcome.refused
    assert "spd: could not write" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not list((place / f"out-{limit}").rglob("spd.json"))
