"""Folders without a model where one is wanted: what they are, and which one was meant.

People name the folder above (``runs`` for ``runs/reviews``), one that is not finished, or a path
with a slip in it. Each gets the next thing to type.
"""

import difflib
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import read_json

RUN_FILE = "run.json"
# What spd quickstart writes into its folder first, and what last.
QUICKSTART_FILE, QUICKSTART_REPORT = "quickstart.json", "report"
# The field of run.json that says how the run was begun on the command line; it decides nothing.
COMMAND = "command"
SPD_FILE = "spd.json"
# What marks an encoder that spd distil finished; it has no head, and so is no checkpoint.
DISTIL_FILE = "distil.json"
# The field of run.json that names the command of a run; it is lacking in those of spd train.
VERB = "verb"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
_OF_A_MODEL = (SPD_FILE, CONFIG_FILE, WEIGHTS_FILE, MANIFEST_FILE)
Wanted = Literal["checkpoint", "artefact", "either"]
# How far down and among how many folders a model is looked for.
_DEPTH, _MAX_FOLDERS = 5, 2000
_MAX_NAMED = 3


def refuse_no_model(folder: Path, *, wanted: Wanted = "checkpoint") -> None:
    """Refuse what is no folder of a model: missing, a training under way, a folder above.

    Args:
        folder: as the user named it.
        wanted: what would do.

    Raises:
        BadCheckpoint: with what to do, or which folder was probably meant.
    """
    if not folder.is_dir():
        raise BadCheckpoint(
            "no such folder" if not folder.exists() else "not a folder",
            got=str(folder),
            fix=did_you_mean(folder, wanted=wanted) or "check the path",
        )
    refuse_unfinished(folder)
    if any((folder / name).exists() for name in _OF_A_MODEL):
        return
    raise BadCheckpoint(
        f"{folder} holds no model",
        got=f"no {CONFIG_FILE} in it",
        fix=did_you_mean(folder, wanted=wanted) or _other_advice(folder, wanted),
    )


def _other_advice(folder: Path, wanted: Wanted) -> str:
    """The remedy for a folder below which there is no model."""
    if wanted == "artefact" and (found := next(_models(folder, wanted="checkpoint"), None)):
        return f"export one first: spd export {_quoted(found)} --output DIR"
    if (begun := next(_below(folder, _is_unfinished), None)) is not None:
        return f"{begun} is not finished: {_continue(begun)}"
    return "name the folder of a Hugging Face model, or of a training that is finished"


def refuse_unfinished(folder: Path) -> None:
    """Refuse the folder of a training or a quickstart that is under way or was stopped.

    Raises:
        BadCheckpoint: with the command that goes on with it.
    """
    if (folder / QUICKSTART_FILE).exists() and not (folder / QUICKSTART_REPORT).exists():
        raise BadCheckpoint(
            f"{folder} is a quickstart that is not finished",
            got=f"no {QUICKSTART_REPORT} in it yet",
            fix=_continue(folder),
        )
    run = next((p for p in (folder, folder.parent) if (p / RUN_FILE).exists()), None)
    if run is None or is_finished(folder) or not _is_of_run(folder, run):
        return
    teacher = run / "teacher"
    done = teacher != folder and (teacher / SPD_FILE).exists()
    raise BadCheckpoint(
        f"{folder} is a training that is not finished",
        got=f"{RUN_FILE} in it, and no {_mark_of(run)} yet",
        fix=_continue(run) + (f"; its dense teacher is finished, in {teacher}" if done else ""),
    )


def did_you_mean(folder: Path, *, wanted: Wanted = "checkpoint") -> str | None:
    """A question that names the folders of models below; of a path with a slip, those it meant."""
    near = folder if folder.is_dir() else _corrected(folder)
    if near is None:
        return None
    inner = sorted(_models(near, wanted=wanted), key=_rank)
    found = [near] if near != folder and _holds(near, wanted=wanted) else inner
    if not found:
        return None
    *first, last = [str(p) for p in found[:_MAX_NAMED]]
    more = f", or one of {len(found) - _MAX_NAMED} more there" if len(found) > _MAX_NAMED else ""
    return f"did you mean {', '.join(first)}{' or ' if first else ''}{last}{more}?"


def _corrected(path: Path) -> Path | None:
    """The folder whose path is nearly ``path``; None where there is none."""
    near = next((p for p in path.parents if p.is_dir()), None)
    if near is None:
        return None
    for part in path.parts[len(near.parts) :]:
        names = [p.name for p in _folders_in(near)]
        close = [part] if part in names else difflib.get_close_matches(part, names, 1)
        if not close:
            return None
        near /= close[0]
    return near


def _models(folder: Path, *, wanted: Wanted) -> Iterator[Path]:
    """The folders of models below."""
    return _below(folder, lambda p: _holds(p, wanted=wanted))


def _below(folder: Path, fits: Callable[[Path], bool]) -> Iterator[Path]:
    """The folders below that fit, nearest first; hidden ones are passed over."""
    level, seen = [folder], 0
    for _ in range(_DEPTH):
        level = [inner for outer in level for inner in _folders_in(outer)]
        for inner in level:
            seen += 1
            if seen > _MAX_FOLDERS:
                return
            if fits(inner):
                yield inner


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where it may not be read."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _holds(folder: Path, *, wanted: Wanted) -> bool:
    """Whether a folder holds a model that can be used: finished, and of a kind that would do."""
    if (folder / MANIFEST_FILE).exists():
        return wanted != "checkpoint"
    whole = (folder / CONFIG_FILE).exists() and any(folder.glob("*.safetensors"))
    return wanted != "artefact" and whole and not _is_unfinished(folder)


def _is_unfinished(folder: Path) -> bool:
    """Whether a training was begun in a folder and has not come to its end."""
    return (folder / RUN_FILE).exists() and not is_finished(folder)


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder wrote the file that marks its end."""
    return any((folder / name).exists() for name in (SPD_FILE, DISTIL_FILE))


def verb_of(run: Path) -> str:
    """The command that started the run in a folder: ``train`` or ``distil``.

    A damaged ``run.json`` is taken for that of a training, which says what is damaged when it is
    continued.
    """
    try:
        value = read_json(run / RUN_FILE, error=BadCheckpoint, fix="start again")
    except BadCheckpoint:
        return "train"
    return str(value.get(VERB, "train"))


def _mark_of(run: Path) -> str:
    """The file that will mark the end of the run in a folder."""
    return DISTIL_FILE if verb_of(run) == "distil" else SPD_FILE


def _is_of_run(folder: Path, run: Path) -> bool:
    """Whether ``folder`` is the run's own, or its teacher's."""
    return folder == run or folder.name == "teacher"


def _continue(run: Path) -> str:
    """The command that goes on with a run; with all of several seeds, and with a quickstart."""
    quickstart = next((p for p in (run, run.parent) if (p / QUICKSTART_FILE).exists()), None)
    if quickstart is not None:
        return f"continue with: spd quickstart{_task_of(quickstart)} --output {_quoted(quickstart)}"
    whole = run.parent if run.name.startswith("seed-") else run
    return f"continue with: spd {verb_of(run)} --resume --output {_quoted(whole)}"


def _task_of(quickstart: Path) -> str:
    """The option ``--task`` of a quickstart."""
    fix = "start again with: spd quickstart --overwrite"
    task = read_json(quickstart / QUICKSTART_FILE, error=BadCheckpoint, fix=fix).get("task")
    return f" --task {shlex.quote(str(task))}" if task else ""


def _quoted(folder: Path) -> str:
    """A folder as it is typed."""
    return shlex.quote(str(folder))


def _rank(folder: Path) -> tuple[bool, int]:
    """Artefacts come first where they would do, then what is nearest."""
    return not (folder / MANIFEST_FILE).exists(), len(folder.parts)
