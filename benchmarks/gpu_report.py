"""The report of :mod:`benchmarks.gpu`: a table a phase, from the lines of ``results.jsonl``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spd_deploy.domain.files import write_text

RESULTS_FILE, REPORT_FILE = "results.jsonl", "report.md"
Line = Mapping[str, Any]


def read_lines(folder: Path) -> list[Line]:
    """The lines that all calls wrote; a last line that a killed process left half is dropped."""
    file = folder / RESULTS_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def write_gpu_report(folder: Path, title: str) -> Path:
    """Write ``report.md`` anew from all lines so far."""
    write_text(folder / REPORT_FILE, report_of(read_lines(folder), title))
    return folder / REPORT_FILE


def report_of(lines: Sequence[Line], title: str) -> str:
    """The whole report as Markdown: facts, a table a phase, and what was not run.

    Of a phase that ran twice the lines of the last run count.
    """
    parts = [f"# {title}\n"]
    for phase in dict.fromkeys(line["phase"] for line in lines):
        of_phase = last_run([line for line in lines if line["phase"] == phase])
        timed = [line for line in of_phase if "graph_s" in line]
        facts = [line["fact"] for line in of_phase if "fact" in line]
        missing = [line for line in of_phase if "not_run" in line]
        parts.append(f"## {phase}\n")
        parts += [f"- {fact}" for fact in facts]
        if timed:
            parts.append(_table(timed))
        parts += [f"- Not run: {_named(line)}{line['not_run']}" for line in missing]
        parts.append("")
    return "\n".join(parts)


def last_run(lines: Sequence[Line]) -> list[Line]:
    """A phase's lines, without those of runs that were cut off before its last one."""
    by_arm = {(line.get("arm"), line.get("fact")): line for line in lines}
    done = any("graph_s" in line or "fact" in line for line in by_arm.values())
    alone = (None, None)  # a phase that was not reached, and was reached later
    return [line for key, line in by_arm.items() if key != alone or not done]


def with_gains(lines: Sequence[Line]) -> list[Line]:
    """The lines of one shape, each sparse one with its gain over the fastest dense one."""
    dense = [line for line in lines if line.get("dense") and "graph_s" in line]
    if not dense:
        return list(lines)
    fastest = min(dense, key=lambda line: line["graph_s"])
    return [
        line
        if line.get("dense") or "graph_s" not in line
        else {**line, "against": fastest["arm"], "gain": fastest["graph_s"] / line["graph_s"]}
        for line in lines
    ]


def _named(line: Line) -> str:
    """The arm before a reason, where the line is of one."""
    return f"{line['arm']}: " if "arm" in line else ""


COLUMNS = ("arm", "ms by graph", "[p10, p90]", "ms cold", "gain", "against", "off by")


def _table(lines: Iterable[Line]) -> str:
    """A table of arms, the fastest first."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for line in sorted(lines, key=lambda line: line["graph_s"]):
        low_s, high_s = line["spread_s"]
        rows.append(
            (
                line["arm"],
                f"{1e3 * line['graph_s']:.3f}",
                f"[{1e3 * low_s:.3f}, {1e3 * high_s:.3f}]",
                f"{1e3 * line['cold_s']:.3f}",
                f"{line['gain']:.2f}x" if "gain" in line else "",
                line.get("against", ""),
                f"{line['difference']:.1g}" if line.get("difference") is not None else "",
            )
        )
    return "\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
