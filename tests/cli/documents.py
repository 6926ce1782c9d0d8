"""The code blocks of README and docs, as values that a test can run.

A block that cannot run here stands after an HTML comment, which no reader of the page sees:

    <!-- not run here: needs a GPU -->

Its commands are then checked against the options that exist, and its Python is compiled.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

_BLOCK = re.compile(
    r"(?:^<!-- not run here: (?P<reason>[^>]+?) -->\n+)?"
    r"^(?P<fence>```+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block of a page.

    Attributes:
        where: file and line, for messages.
        reason: why it is not run here; None where it is.
    """

    where: str
    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> Iterator[str]:
        """The commands of a shell block, continuation lines joined, without comments."""
        text = re.sub(r"\\\n\s*", "", self.text)
        for line in text.splitlines():
            command = re.split(r"\s+#\s", line)[0].strip()
            if command and not command.startswith("#"):
                yield command


def pages() -> list[Path]:
    """README and every page of the documentation."""
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """The path of a page within the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            where=f"{name_of(page)}:{text.count(chr(10), 0, found.start('fence')) + 1}",
            language=found["language"].strip(),
            text=found["text"],
            reason=found["reason"],
        )
        for found in _BLOCK.finditer(text)
    ]


def code_spans(page: Path) -> Iterator[str]:
    """The inline code of a page, outside of its blocks."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose))
