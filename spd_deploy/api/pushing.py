"""``spd.push``: a checkpoint or an artefact to the Hugging Face hub, with a model card."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.api.display import Displayed, ResultView
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import read_flag, read_path, read_text
from spd_deploy.domain.errors import BadCheckpoint, BadReport, OptionConflict
from spd_deploy.domain.extras import require_modules
from spd_deploy.domain.files import bytes_of, write_text
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.progress import Progress

if TYPE_CHECKING:
    from spd_deploy.benchmark.report import Report
    from spd_deploy.hub.card import SpeedFacts
    from spd_deploy.hub.model_facts import ModelFacts
    from spd_deploy.hub.push import PushedCommit

_MESSAGE = "Push a model made with spd"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class PushResult(Displayed):
    """The result of a push, or of a dry run.

    Attributes:
        path: the model's folder.
        repository: as it was named, or as the hub calls it.
        card: the file of the model card.
        files: the names of the files, the card among them.
        pushed: the commit; None where only the card was written.
        notes: messages of the run.
    """

    path: Path
    repository: str
    card: Path
    files: tuple[str, ...]
    pushed: "PushedCommit | None" = None
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(bytes_of(self.path / name) for name in self.files)

    def to_json(self) -> dict[str, Any]:
        """What ``spd push --json`` prints."""
        return {
            "path": str(self.path),
            "repository": self.repository,
            "card": str(self.card),
            "files": list(self.files),
            "bytes": self.bytes,
            "url": None if self.pushed is None else self.pushed.url,
            "commit": None if self.pushed is None else self.pushed.commit,
        }

    def view(self) -> ResultView:
        """The address of the model, and its card."""
        facts = {"card": str(self.card), "files": f"{len(self.files)}, {self.bytes / 1e6:.1f} MB"}
        if self.pushed is not None:
            facts |= {"url": self.pushed.url, "commit": self.pushed.commit}
        verb = "card of" if self.pushed is None else "pushed"
        return ResultView(title=f"{verb} {self.repository}", facts=facts)


def push(
    folder: str | PathLike[str],
    repo: str,
    *,
    report: str | PathLike[str] | None = None,
    license: str | None = None,  # the option's name
    private: bool = False,
    revision: str | None = None,
    message: str = _MESSAGE,
    card_only: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> PushResult:
    """Write a model card from the model's records, and push both to the Hugging Face hub.

    Args:
        folder: the folder of an artefact or of a checkpoint.
        repo: ``OWNER/NAME`` on the hub, or ``NAME`` of one's own account. It is made where there is
            none.
        report: a report of ``bench`` with this artefact, for the speed in the card.
        license: the licence, as the hub spells it; by default that of the model it was made from.
        private: make a private repository.
        revision: the branch to push to, made where there is none; by default the main one.
        message: the first line of the commit's message.
        card_only: write the card into the folder and push nothing.
        overwrite: write the card anew, where the folder has one.
        progress: show notes on standard error, or tell a listener of your own.

    Raises:
        BadArtefact, BadCheckpoint: no model in the folder, or a damaged one.
        BadReport: the report is none, or of other models.
        BadSetting: a name that no repository has, or a public one where a private one is wanted.
        Unavailable: no token, no right, or no answer.
    """
    require_modules("spd push", "hub", "huggingface_hub")
    from spd_deploy.hub.card import card_of
    from spd_deploy.hub.model_facts import facts_of
    from spd_deploy.hub.model_files import CARD_FILE
    from spd_deploy.hub.push import push_files, repository_of

    recorder = NoteRecorder(progress)
    place, name = read_path("folder", folder), repository_of(read_text("repo", repo))
    card = place / CARD_FILE
    refuse_no_model(place, wanted="either")
    facts = facts_of(place)
    keep = card.exists() and not read_flag("overwrite", overwrite)
    if keep and (report is not None or license is not None):
        raise OptionConflict(
            f"{card} is there already, and is pushed as it is",
            got="--report" if report is not None else "--license",
            fix="add --overwrite to write the card anew",
        )
    if keep:
        recorder.note(f"{card} is there already, and is taken as it is; --overwrite writes it anew")
    else:
        known = None if facts.base is None else facts.base.license
        speed = None if report is None else speed_in(read_path("report", report), facts)
        license_ = known if license is None else read_text("license", license)
        if license_ is None:
            recorder.note("the card names no licence: none is recorded; name one with --license")
        write_text(card, card_of(facts, name, license_=license_, speed=speed))
    result = PushResult(
        path=place,
        repository=name,
        card=card,
        files=(*facts.files, CARD_FILE),
        notes=recorder.notes,
    )
    if read_flag("card_only", card_only):
        return result
    pushed = push_files(
        place,
        result.files,
        name,
        private=read_flag("private", private),
        revision=None if revision is None else read_text("revision", revision),
        message=read_text("message", message),
        note=recorder.note,
    )
    return PushResult(
        path=place,
        repository=pushed.repository,
        card=card,
        files=result.files,
        pushed=pushed,
        notes=recorder.notes,
    )


def speed_in(file: Path, facts: "ModelFacts") -> "SpeedFacts":
    """The speed of a model in a report of ``spd bench``.

    Raises:
        BadCheckpoint: the model is a checkpoint, which no report measures.
        BadReport: there is no report, or none of this model.
    """
    from spd_deploy.benchmark.publish import JSON_FILE
    from spd_deploy.benchmark.report import read_report
    from spd_deploy.domain.artefact import open_artefact

    if facts.format is None:
        raise BadCheckpoint(
            "a report measures artefacts, and this is a checkpoint",
            got=f"--report {file}",
            fix="push the artefact that was measured, or leave --report out",
        )
    report = read_report(file / JSON_FILE if file.is_dir() else file)
    hashes = set(open_artefact(facts.folder, weights=False).manifest.files.values())
    arms = [arm.name for arm in report.arms if arm.models and set(arm.models.values()) <= hashes]
    if not arms:
        raise BadReport(
            f"{file} measured other models than {facts.folder}",
            got=f"files of {', '.join(arm.name for arm in report.arms)}",
            fix="name the report of this artefact, or measure it with spd bench",
        )
    return _speed_of(report, [one for one in arms if one not in report.baselines] or arms)


def _speed_of(report: "Report", arms: list[str]) -> "SpeedFacts":
    """Latency and speed-up of the arms, where and how they were measured."""
    from spd_deploy.benchmark.formatting import milliseconds
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.hub.card import SpeedFacts

    judgement, settings, machine = judge(report), report.settings, report.machine
    rows = [
        (
            str(row.shape),
            arm if len(arms) > 1 else report.arm(arm).runtime.runtime,
            f"{milliseconds(row.p50.value)} ms",
            "-" if row.speed_up is None else f"{row.speed_up.numbers}, {row.speed_up.verdict}",
            row.against or "-",
        )
        for arm in arms
        for row in judgement.of(arm)
    ]
    gpus = "".join(f", {gpu.name}" for gpu in machine.gpus) if settings.device == "cuda" else ""
    runtimes = dict.fromkeys(str(report.arm(arm).runtime) for arm in arms)
    command = " ".join(
        [
            "spd bench ARTEFACT",
            *(["--baseline DENSE"] if report.baselines else []),
            f"--batch {_listed({shape.batch for shape in settings.shapes})}",
            f"--seq {_listed({shape.seq for shape in settings.shapes})}",
            f"--rounds {settings.rounds}",
            f"--seconds {settings.seconds:g}",
            *([] if settings.threads is None else [f"--threads {settings.threads}"]),
        ]
    )
    mine = [one for one in judgement.caveats if one.about in ("machine", "the GPU", *arms)]
    return SpeedFacts(
        columns=(
            "rows x tokens",
            "runs in",
            "median latency",
            "speed-up, 95 % interval",
            "against",
        ),
        rows=rows,
        where=f"Measured on {machine.cpu}, {machine.usable_cores:g} usable cores{gpus}, in "
        f"{', '.join(runtimes)}, on {report.created[:10]}.",
        how=f"Command: `{command}`.",
        caveats=tuple(dict.fromkeys(one.what for one in mine)),
    )


def _listed(numbers: set[int]) -> str:
    """Numbers as they are typed, such as ``1,8``."""
    return ",".join(map(str, sorted(numbers)))
