"""A full disk, verb by verb: one line with the cause, and nothing that blocks the next try.

The limit on the size of a file stands in for the disk. Below the size of the probe nothing is
begun, above it the work is done and its output is refused.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.tasks import TASKS
from tests.cli.user_folder import mrpc_files
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
SCRIPT = """
import json, resource, signal, sys
from click.testing import CliRunner
from spd_deploy.cli.main import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
for name, command in json.loads(sys.argv[2]).items():
    result = CliRunner().invoke(cli, [*command.split(), "--output", "out/x"])
    print(json.dumps([name, result.exit_code, result.stderr]))
"""


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


@pytest.mark.parametrize(("limit", "verbs"), [(4_000, VERBS), (20_000, set(VERBS) - {"sweep"})])
def test_a_full_disk_is_one_line_and_blocks_nothing(
    place: Path, limit: int, verbs: set[str]
) -> None:
    """Each verb that writes names its output and the cause, and leaves no output behind."""
    commands = json.dumps({name: VERBS[name] for name in VERBS if name in verbs})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(limit), commands],
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )

    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, *_ in told} == set(verbs)
    for name, code, stderr in told:
        lines = [line for line in stderr.splitlines() if line.startswith("spd: ")]
        assert code == 1 and len(lines) == 1, (name, stderr)
        wrote = lines[0].startswith("spd: could not write out/x") and "free some space" in lines[0]
        copied = lines[0].startswith("spd: no room for a private copy of the model's files")
        assert wrote or copied, (name, lines[0])
    assert not [p for p in (place / "out").rglob("*") if p.is_file()]
    assert not list((place / "out").glob("x"))
