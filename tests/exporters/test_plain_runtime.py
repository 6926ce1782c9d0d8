"""An artefact in plain ONNX Runtime, as the documentation shows it."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.sessions.torch import TorchSession
from tests.cli.documents import blocks_of, pages

TEXTS = [("He bought a car.", "A car was bought by him."), ("No.", "It rains.")]
_AFTER = """
import sys
ours = {"spd_deploy", "spd_train", "exporters", "serve", "torch", "transformers"}
assert not ours & set(sys.modules), ours & set(sys.modules)
np.save("logits.npy", logits)
"""


def test_onnx_runtime_and_a_tokenizer_are_enough(
    tmp_path: Path, block_checkpoint: Checkpoint
) -> None:
    """The documentation's lines, which import nothing of ours, give the logits of PyTorch."""
    artefact = artefact_from_checkpoint(block_checkpoint, tmp_path / "artefacts" / "mrpc")
    blocks = [block for page in pages() for block in blocks_of(page)]
    (shown,) = (b.text for b in blocks if "InferenceSession" in b.text and not b.reason)

    subprocess.run([sys.executable, "-c", shown + _AFTER], cwd=tmp_path, check=True)

    tokenizer = artefact.tokenizer()
    with TorchSession(block_checkpoint.folder) as session:
        expected_BC = session.run(tokenizer.pad([tokenizer.encode(*pair) for pair in TEXTS]))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected_BC, 1e-4, 1e-5)
