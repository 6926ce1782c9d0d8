"""The served model to the Open Inference Protocol: its tensors, and what a request means by them.

    text        BYTES [N] or [N, 1]   and text_pair for models of pairs
    input_ids   INT64 [N, S]          instead of text; attention_mask and token_type_ids with it
    labels      BYTES [N, C]          best first, as in every protocol here
    scores      FP32  [N, C]          of those labels
    logits      FP32  [N, C]          in the order of the model's outputs

REST and gRPC share this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.classifier import Classified
from serve.deadline import LONGEST_MS
from serve.open_model import ServedModel
from serve.protocols.oip.oip_tensors import BYTES, FP32, INT64, INTEGERS, Tensor
from serve.text_windows import AS_SERVED, AskedWindows
from serve.texts import Text, errors_at
from serve.token_rows import row_of
from spd_deploy.domain.errors import EmptyText, MalformedRequest, TooManyInputs
from spd_deploy.domain.text import IDS, MASK, TYPES, Tokenizer, Tokens

TEXT, PAIR = "text", "text_pair"
LABELS, SCORES, LOGITS = OUTPUTS = ("labels", "scores", "logits")
CLASSIFICATION = "classification"
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorMetadata:
    """A tensor's name, datatype and shape; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestedOutput:
    """An output that a request asks for; ``best`` as strings of that many classes, if not 0."""

    name: str
    best: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """The inputs and outputs of a request: texts or rows of token ids, and tensors.

    ``timeout_ms`` is how long its client waits.
    """

    texts: list[Text] = field(default_factory=list)
    rows: list[Tokens] = field(default_factory=list)
    outputs: tuple[RequestedOutput, ...] = ()
    truncate: bool = True
    asked: AskedWindows = AS_SERVED
    timeout_ms: float | None = None


def inputs_of(served: ServedModel) -> list[TensorMetadata]:
    """The inputs of a model; a request has either the texts or the token ids."""
    texts = [TEXT, PAIR] if served.takes_pairs else [TEXT]
    return [
        *(TensorMetadata(name=name, datatype=BYTES, shape=(-1,)) for name in texts),
        *(TensorMetadata(name=name, datatype=INT64, shape=(-1, -1)) for name in (IDS, MASK, TYPES)),
    ]


def outputs_of(served: ServedModel) -> list[TensorMetadata]:
    """The outputs of a model."""
    shape = (-1, served.task.outputs)
    return [
        TensorMetadata(name=name, datatype=BYTES if name == LABELS else FP32, shape=shape)
        for name in OUTPUTS
    ]


def inference_of(
    inputs: Sequence[Tensor],
    outputs: Sequence[tuple[str, Mapping[str, Any]]],
    parameters: Mapping[str, Any],
    served: ServedModel,
    *,
    max_inputs: int,
) -> Inference:
    """The inputs and outputs of a request.

    Args:
        inputs: its tensors.
        outputs: names of the outputs with their parameters; none means all.
        parameters: of the request; ``truncate``, ``timeout``, ``long_texts``, ``window_stride`` and
            ``window_pooling`` have a meaning.
        served: the model.
        max_inputs: most rows of a request.

    Raises:
        Refusal: a tensor is missing, unknown, doubled or of the wrong type, shape or size.
    """
    by_name = {tensor.name: tensor for tensor in inputs}
    if len(by_name) != len(inputs):
        raise MalformedRequest("an input is there twice", fix="send each input once")
    truncate = parameters.get("truncate", True)
    if not isinstance(truncate, bool):
        raise MalformedRequest(
            "parameters.truncate: Input should be a valid boolean", fix="send it so"
        )
    timeout_ms = _timeout_ms_of(parameters.get("timeout", 0))
    asked = tuple(_requested(*one) for one in outputs) or _ALL
    names = set(by_name)
    if TEXT in names and names <= {TEXT, PAIR}:
        texts = _texts(by_name[TEXT], by_name.get(PAIR), max_inputs)
        return Inference(
            texts=texts,
            outputs=asked,
            truncate=truncate,
            asked=AskedWindows.from_parameters(parameters),
            timeout_ms=timeout_ms,
        )
    if IDS in names and names <= {IDS, MASK, TYPES}:
        rows = _rows(by_name, served.tokenizer, max_inputs)
        return Inference(rows=rows, outputs=asked, truncate=truncate, timeout_ms=timeout_ms)
    shown = ", ".join(sorted(names)).encode("ascii", "backslashreplace").decode()[:60]
    raise MalformedRequest(
        "the inputs are not those of the model",
        got=shown or "none",
        fix=f"send {TEXT}, for pairs with {PAIR}; or {IDS}, with {MASK} and {TYPES} where needed",
    )


def answer_of(rows: Sequence[Classified], asked: Sequence[RequestedOutput]) -> list[Tensor]:
    """The outputs that were asked for."""
    return [_output(rows, one) for one in asked]


def _timeout_ms_of(timeout_us: Any) -> float | None:
    """Triton's parameter ``timeout``, which is in microseconds; 0 is none."""
    if type(timeout_us) is not int or not 0 <= timeout_us <= 1000 * LONGEST_MS:
        raise MalformedRequest(
            "parameters.timeout: Input should be a number of microseconds",
            fix="send a whole number, or leave it out",
        )
    return timeout_us / 1000 or None


def _requested(name: str, parameters: Mapping[str, Any]) -> RequestedOutput:
    """One output as the request names it."""
    best = parameters.get(CLASSIFICATION, 0)
    if name not in OUTPUTS:
        shown = name.encode("ascii", "backslashreplace").decode()[:40]
        raise MalformedRequest("no such output", got=shown, fix=f"use {', '.join(OUTPUTS)}")
    if type(best) is not int or best < 0 or (best and name == LABELS):
        raise MalformedRequest(
            f"{name}: classification is a number of classes, of scores or logits",
            fix="send a positive whole number",
        )
    return RequestedOutput(name=name, best=best)


def _texts(first: Tensor, second: Tensor | None, max_inputs: int) -> list[Text]:
    """The texts, or the pairs, of a request."""
    firsts = _decoded(first, max_inputs)
    seconds: Sequence[str | None] = (
        [None] * len(firsts) if second is None else _decoded(second, max_inputs)
    )
    if len(firsts) != len(seconds):
        raise MalformedRequest(
            f"{TEXT} and {PAIR} have different lengths",
            got=f"{len(firsts)} and {len(seconds)}",
            fix="send as many second texts as first ones",
        )
    return [
        Text(text=one, pair=other, where=f"{TEXT}.{i}")
        for i, (one, other) in enumerate(zip(firsts, seconds, strict=True))
    ]


def _decoded(tensor: Tensor, max_inputs: int) -> list[str]:
    """The texts of a tensor ``[N]`` or ``[N, 1]``."""
    if tensor.datatype != BYTES or not (
        len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)
    ):
        raise MalformedRequest(
            f"{tensor.name}: the texts should be BYTES of shape [N] or [N, 1]",
            got=f"{tensor.datatype} {list(tensor.shape)[:4]}",
            fix="send one text for each row",
        )
    _refuse_count(tensor, max_inputs)
    try:
        return [one.decode("utf-8", "surrogatepass") for one in tensor.values]
    except UnicodeDecodeError as err:
        raise MalformedRequest(
            f"{tensor.name}: a text is not valid UTF-8", fix="encode the text as UTF-8"
        ) from err


def _rows(by_name: Mapping[str, Tensor], tokenizer: Tokenizer, max_inputs: int) -> list[Tokens]:
    """The rows of token ids without their padding, which ``attention_mask`` tells."""
    ids = by_name[IDS]
    for name, tensor in by_name.items():
        if tensor.datatype not in INTEGERS or len(tensor.shape) != 2 or tensor.shape != ids.shape:
            raise MalformedRequest(
                f"{name}: the token ids, their mask and types are whole numbers of one shape "
                "[N, S]",
                got=f"{tensor.datatype} {list(tensor.shape)[:4]}",
                fix="send INT64",
            )
    _refuse_count(ids, max_inputs)
    masks = by_name[MASK].rows() if MASK in by_name else [[1] * ids.shape[1]] * ids.shape[0]
    types = by_name[TYPES].rows() if TYPES in by_name else [None] * ids.shape[0]
    found = []
    for i, (row, mask, of) in enumerate(zip(ids.rows(), masks, types, strict=True)):
        with errors_at(f"row {i}"):
            length = _length(mask)
            found.append(row_of(tokenizer, row[:length], None if of is None else of[:length]))
    return found


def _length(mask: Sequence[int]) -> int:
    """How many tokens are real; padding is on the right, as the model was trained."""
    length = sum(mask) if set(mask) <= {0, 1} else -1
    if list(mask) != [1] * length + [0] * (len(mask) - length):
        raise MalformedRequest(
            f"{MASK} should be ones and then zeros: padding is on the right",
            fix="pad the rows on the right",
        )
    return length


def _refuse_count(tensor: Tensor, max_inputs: int) -> None:
    """Refuse no rows, and too many."""
    if tensor.shape[0] == 0:
        raise EmptyText(f"{tensor.name} has no rows", fix="send at least one text")
    if tensor.shape[0] > max_inputs:
        raise TooManyInputs(
            "too many inputs in one request",
            got=f"{tensor.shape[0]}, {max_inputs} allowed",
            fix="send them in several requests",
        )


def _output(rows: Sequence[Classified], asked: RequestedOutput) -> Tensor:
    """One output of all rows."""
    if asked.best:
        found = [_classes(row, asked) for row in rows]
        return _tensor(asked.name, BYTES, found)
    match asked.name:
        case "labels":
            return _tensor(LABELS, BYTES, [[a.label.encode() for a in r.answers] for r in rows])
        case "scores":
            return _tensor(SCORES, FP32, [[a.score for a in row.answers] for row in rows])
        case _:
            return _tensor(LOGITS, FP32, [row.logits_C.tolist() for row in rows])


def _classes(row: Classified, asked: RequestedOutput) -> list[bytes]:
    """The best classes as ``value:index:label``, the form of the classification extension."""
    logits = row.logits_C.tolist()
    return [
        f"{logits[a.index] if asked.name == LOGITS else a.score:f}:{a.index}:{a.label}".encode()
        for a in row.answers[: asked.best]
    ]


def _tensor(name: str, datatype: str, rows: Sequence[Sequence[Any]]) -> Tensor:
    return Tensor(
        name=name,
        datatype=datatype,
        shape=(len(rows), len(rows[0])),
        values=[value for row in rows for value in row],
    )


_ALL = tuple(RequestedOutput(name=name) for name in OUTPUTS)
