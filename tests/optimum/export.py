"""Tiny artefacts for Optimum to load, each with what the tokenizer must give for some texts.

``make test-optimum`` runs this where spd is installed, then ``check.py`` where Optimum is: the two
need different versions of Transformers.
"""

import json
import sys
from pathlib import Path

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.patterns import parse_pattern
from tests.tiny import tiny_checkpoint

KINDS = [
    ("bert", "block:32x1"),
    ("roberta", "structured"),
    ("distilbert", "2:4"),
    ("electra", ""),
    ("mpnet", "structured"),
    ("modernbert", "structured"),
]
TEXTS = [
    ("The film was good.", "I love it!"),
    ("dull", "A train, not a bus, is faster than this ending and slower than that plot."),
    ("we hate this movie", "xylophone"),
]


def main(output: Path) -> None:
    """Write an artefact and a file of expectations by architecture below ``output``."""
    for architecture, spelled in KINDS:
        folder = output / architecture
        checkpoint = tiny_checkpoint(
            folder / "checkpoint",
            architecture=architecture,
            pattern=parse_pattern(spelled, None if ":" in spelled[:2] else 0.8)
            if spelled
            else None,
            task="mrpc",
        )
        artefact = artefact_from_checkpoint(checkpoint, folder / "artefact")
        rows = [artefact.tokenizer().encode(*pair) for pair in TEXTS]
        expected = {"texts": TEXTS, "ids": [row.ids for row in rows]}
        (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
