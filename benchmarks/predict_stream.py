"""``spd predict`` on a long file: rows a second against the bare engine, memory, and a kill -9.

    python -m benchmarks.predict_stream --model tiny --rows 1000000
    python -m benchmarks.predict_stream --model minilm --rows 100000

Rate: pieces of the file are answered in turns by ``spd predict``'s loop (read, tokenise, run,
write) and by the bare engine, which gets the same batches tokenised and padded beforehand. Other
work on the machine meets both; what is told is the median of the turns' ratios, of the time on the
clock and of the processor's time. The loop reads and writes beside the engine where a core is free;
the processor's time counts all of it, so that on an idle machine the clock's ratio is the better.

Memory: the whole file goes through the command in a process of its own, whose resident memory is
read once a second. Kill: the same again, killed in the middle and resumed; both outputs must be
equal, byte for byte. The models have random weights; texts are of the built-in grammar.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.shapes import artefact_of
from spd_deploy.api.loading import load
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.child import child_environment, python_module
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import Block
from spd_deploy.domain.progress import Silent
from spd_deploy.scale.answer_formats import AnswerFormat
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.partial_output import RunState, partial_folder
from spd_deploy.scale.predict_file import Streams, predict_file
from spd_deploy.scale.text_rows import file_rows
from spd_deploy.sessions.offline import MAX_PADDED_TOKENS, batches_within
from spd_deploy.sessions.open import OpenedModel
from spd_train.data.grammar import generate

_PATTERN = Block(rows=128, columns=1, sparsity=0.9)
_MEGABYTE = 1 << 20


def main() -> None:
    """Make the model and the file, measure, and print a table."""
    options = parsed()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        artefact = artefact_for(options.model, scratch)
        file = scratch / "rows.jsonl"
        write_rows(file, options.rows)
        shares = rates(artefact, file, scratch, turns=options.turns, piece=options.piece)
        if options.rates_only:
            show_table(f"{options.model}, {options.turns} turns", ["", "value"], shares)
            return
        memory, seconds = whole_run(artefact, file, scratch / "whole.jsonl")
        equal = killed_run(artefact, file, scratch / "killed.jsonl", scratch / "whole.jsonl")
    show_table(
        f"{options.model}, {options.rows:,} rows",
        ["", "value"],
        [
            *shares,
            ["rows/s of the whole run", f"{options.rows / seconds:,.0f}"],
            ["resident memory at 10 %", f"{memory[len(memory) // 10] / _MEGABYTE:,.0f} MiB"],
            ["resident memory at the end", f"{memory[-1] / _MEGABYTE:,.0f} MiB"],
            ["largest resident memory", f"{max(memory) / _MEGABYTE:,.0f} MiB"],
            ["killed and resumed, the same bytes", str(equal)],
        ],
    )


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm", help="tiny, minilm or base")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--piece", type=int, default=16_384, help="rows of one turn")
    parser.add_argument("--rates-only", action="store_true", help="neither memory nor kill")
    parser.add_argument("--scratch", type=Path, help="where temporary files are")
    return parser.parse_args()


def artefact_for(model: str, scratch: Path) -> Artefact:
    """An artefact with random weights."""
    if model != "tiny":
        return artefact_of(scratch, model, model, _PATTERN)
    from exporters.export import artefact_from_checkpoint
    from tests.tiny import tiny_checkpoint

    return artefact_from_checkpoint(tiny_checkpoint(scratch / "c", task="sst2"), scratch / "tiny")


def write_rows(file: Path, count: int) -> None:
    """Rows of the grammar, one to four sentences each, over and over with another id."""
    texts = [example.text for example in generate("opinions", "train")]
    with file.open("w", encoding="utf-8") as stream:
        for i in range(count):
            text = " ".join(texts[(i * 7 + k) % len(texts)] for k in range(1 + i % 4))
            stream.write(json.dumps({"id": i, "text": text, "source": "grammar"}) + "\n")


def rates(
    artefact: Artefact, file: Path, scratch: Path, *, turns: int, piece: int
) -> list[list[str]]:
    """Rows a second of the loop to those of the bare engine, and of the loop, by medians."""
    found = []
    with load(artefact.folder) as model:
        opened = model.opened()
        pieces = pieces_of(file, scratch, piece)
        for turn, part in enumerate(islice(pieces, turns + 1)):
            request = FileRequest(
                input=part,
                output=part.with_suffix(".answers.jsonl"),
                format=AnswerFormat(kind="jsonl"),
                overwrite=True,
            )
            start_s, start_cpu_s = time.perf_counter(), time.process_time()
            streams = Streams(input=open(os.devnull, "rb"), output=open(os.devnull, "wb"))  # noqa: SIM115
            predict_file(opened, request, progress=Silent(), streams=streams)
            loop_s = time.perf_counter() - start_s
            loop_cpu_s = time.process_time() - start_cpu_s
            bare_s, bare_cpu_s = bare_seconds(opened, part, request.limits)
            if turn:  # the first warms both up
                found.append((bare_s / loop_s, bare_cpu_s / loop_cpu_s, piece / loop_s))
    ratios, of_cpu, rows_per_s = zip(*found, strict=True)
    return [
        ["rows/s to the bare engine's, by the clock", f"{statistics.median(ratios):.3f}"],
        ["rows/s to the bare engine's, by processor time", f"{statistics.median(of_cpu):.3f}"],
        ["rows/s in the turns, by the clock", f"{statistics.median(rows_per_s):,.0f}"],
    ]


def pieces_of(file: Path, scratch: Path, rows: int) -> Iterator[Path]:
    """The file in pieces, each a file of its own."""
    with file.open(encoding="utf-8") as stream:
        while lines := list(islice(stream, rows)):
            part = scratch / "piece.jsonl"
            part.write_text("".join(lines), encoding="utf-8")
            yield part


def bare_seconds(opened: OpenedModel, file: Path, limits: ChunkLimits) -> tuple[float, float]:
    """Seconds of the session alone on the batches of the chunks: clock, and processors."""
    texts = [str(row.fields["text"]) for row in file_rows(opened.task, file)]
    rows = opened.tokenizer.encode_all([(text, None) for text in texts])
    seconds = cpu_s = 0.0
    for start in range(0, len(rows), limits.rows):
        chunk = rows[start : start + limits.rows]
        batches = [
            opened.tokenizer.pad([chunk[i] for i in batch])
            for batch in batches_within([len(row) for row in chunk], MAX_PADDED_TOKENS)
        ]
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        for batch in batches:
            opened.session.run(batch)
        seconds += time.perf_counter() - start_s
        cpu_s += time.process_time() - start_cpu_s
    return seconds, cpu_s


def begun(artefact: Artefact, file: Path, output: Path, *more: str) -> "subprocess.Popen[bytes]":
    """The command, in a process of its own."""
    words = ["predict", artefact.folder, "--input", file, "--output", output, *more]
    return subprocess.Popen(
        [*python_module("spd_deploy"), *map(str, words)],
        env=child_environment(),
        stderr=subprocess.DEVNULL,
    )


def whole_run(artefact: Artefact, file: Path, output: Path) -> tuple[list[int], float]:
    """Resident memory once a second in bytes, after the first rows are written, and seconds."""
    start_s = time.perf_counter()
    process = begun(artefact, file, output)
    memory: list[int] = []
    while process.poll() is None:
        if written(output):
            memory.append(resident(process.pid) or memory[-1])
        time.sleep(1)
    return memory, time.perf_counter() - start_s


def killed_run(artefact: Artefact, file: Path, output: Path, whole: Path) -> bool:
    """Whether a run that is killed in the middle and resumed gives the same bytes."""
    process = begun(artefact, file, output)
    middle = whole.stat().st_size // 2
    while process.poll() is None and written(output) < middle:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if output.exists() or not written(output):
        raise SystemExit("the run ended before it was killed: give more --rows")
    begun(artefact, file, output, "--resume").wait()
    return sha256_of(output) == sha256_of(whole)


def written(output: Path) -> int:
    """Bytes of the whole chunks that are written."""
    state = partial_folder(output) / "progress.json"
    return RunState.read_from(state).size if state.exists() else 0


def resident(process: int) -> int:
    """Resident memory of a process in bytes; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
