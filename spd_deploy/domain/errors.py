"""Every error this project raises on purpose, as one tree.

    SpdError
    |-- BadInput                what was handed in is wrong
    |   |-- BadSetting          a number or choice that makes no run, or differs from the run's own
    |   |   `-- OptionConflict  options that exclude each other, or one that would be ignored
    |   |-- UnknownTask         no such task
    |   |-- BadData             a data file: missing, or with a broken row, column or label
    |   |-- BadPattern          a pattern that makes no sense, or dims it does not divide
    |   |-- BadModel            a model that is not handled, or weights that are unsafe or damaged
    |   |-- BadCheckpoint       not one of our checkpoints, or a damaged one
    |   |-- BadArtefact         not one of our artefacts, or a damaged one
    |   `-- BadReport           not one of our reports, tunings or maps, or a damaged one
    |-- Unavailable             this machine or installation cannot do what was asked
    |-- NotWritten              an output could not be written; what was there before still is
    |-- VerificationFailed      an export broke its pattern or its parity; nothing was written
    |-- Diverged                a training whose loss is not a number any more
    |-- RunsFailed              some runs of a sweep failed; the others went on
    |-- Interrupted             a run was stopped and can be resumed
    `-- Refusal                 a request that the server answers with an error status
        |-- Unauthenticated     no API key, or not a known one
        |-- NotJson             a body that is not JSON, or not UTF-8
        |-- MalformedRequest    a missing or unknown field, a wrong type, text that is not Unicode
        |-- UnsupportedMedia    a body that is not JSON in UTF-8, by its headers
        |-- BodyTooLarge        more bytes than the server reads
        |-- EmptyText           nothing to classify
        |-- TextTooLong         more text than the server runs, or than the model reads uncut
        |-- UnknownModel        a model that is not the one served
        |-- TooManyInputs       more texts in one request than the server takes
        |-- Overloaded          the queue is full
        |-- DeadlineExceeded    the client would wait, or has waited, longer than it said
        |-- NotReady            starting, or draining
        `-- EngineFailed        the model failed on this batch

A message says what is wrong, what was got, and what to do about it. Each class stands for one
thing a caller may want to tell apart; nothing is raised as a bare ``SpdError``.
"""


class SpdError(Exception):
    """An error with a cause that its reader can mend.

    Args:
        what: what is wrong, naming the file, flag or field.
        got: the offending value, where there is one.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, got: object = None, fix: str) -> None:
        self.what = what
        self.got = None if got is None else str(got)
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        """One line: what is wrong, what was found, what to do."""
        return self.line()

    def line(self, *, found: bool = True) -> str:
        """What is wrong, what was ``found`` if it may be shown, and what to do, in one line."""
        parts = [self.what, *([f"got {self.got}"] if found and self.got else []), self.fix]
        return "; ".join(" ".join(part.split()) for part in parts)


def reason_of(err: BaseException) -> str:
    """Why something ended, in a line; the kind of what is no error of ours is named."""
    if isinstance(err, SpdError):
        return str(err)
    kind, first = type(err).__name__, first_line(err)
    return kind if first == kind else f"{kind}: {first}"


def first_line(err: BaseException) -> str:
    """A library's error in a line: the first that it has; its kind, where it says nothing."""
    lines = str(err).strip().splitlines() or [type(err).__name__]
    return lines[0]


class BadInput(SpdError):
    """Input that is wrong."""


class BadSetting(BadInput):
    """A number or choice that makes no run, or differs from those of the run to be continued."""


class OptionConflict(BadSetting):
    """Options that exclude each other, or one that would be ignored beside the others."""


class UnknownTask(BadInput):
    """No task has this name."""


class BadData(BadInput):
    """A data file is missing, unreadable, or holds a row, column or label it should not."""


class BadPattern(BadInput):
    """A sparsity pattern that makes no sense, or matrix dimensions it does not divide."""


class BadModel(BadInput):
    """A model of a kind that is not handled, or weights that are unsafe or damaged."""


class BadCheckpoint(BadInput):
    """Not a checkpoint of this project, or a damaged one."""


class BadArtefact(BadInput):
    """Not an artefact of this project, or a damaged one."""


class BadReport(BadInput):
    """Not a report, tuning or map measured by this project, or a damaged one."""


class Unavailable(SpdError):
    """This machine or installation cannot do what was asked."""


class NotWritten(SpdError):
    """An output could not be written; what was there before is untouched."""


class VerificationFailed(SpdError):
    """An export broke its sparsity pattern or its parity with the checkpoint."""


class Diverged(SpdError):
    """A training's loss or gradient is not a number any more; what was saved before it is kept."""


class RunsFailed(SpdError):
    """Some runs of a sweep failed; the others went on, and a later sweep tries them again."""


class Interrupted(SpdError):
    """A run was stopped by a signal; its state is saved."""


class Refusal(SpdError):
    """A request that the server answers with an error status."""


class Unauthenticated(Refusal):
    """The request has no API key, or one that the server does not know."""


class NotJson(Refusal):
    """The body is not JSON, or not UTF-8."""


class MalformedRequest(Refusal):
    """A missing or unknown field, a wrong type, or text that is not Unicode."""


class UnsupportedMedia(Refusal):
    """The body is not said to be JSON in UTF-8, or is compressed."""


class BodyTooLarge(Refusal):
    """The body has more bytes than the server reads."""


class EmptyText(Refusal):
    """There is nothing to classify."""


class TextTooLong(Refusal):
    """The text is longer than the server runs, or than the model reads where it may not be cut."""


class UnknownModel(Refusal):
    """The request names a model that is not served."""


class TooManyInputs(Refusal):
    """The request carries more texts than the server takes at once."""


class Overloaded(Refusal):
    """The queue is full; after ``retry_after_s`` seconds there should be room again."""

    def __init__(self, what: str, *, got: object = None, fix: str, retry_after_s: int) -> None:
        super().__init__(what, got=got, fix=fix)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Refusal):
    """The answer would come, or would have come, later than the request said it waits."""


class NotReady(Refusal):
    """The server is starting or draining."""


class EngineFailed(Refusal):
    """The model failed on the batch that held this request."""
