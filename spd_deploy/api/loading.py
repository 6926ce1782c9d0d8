"""``spd.load``: an artefact or a checkpoint, ready to answer texts."""

import weakref
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from spd_deploy.api.display import Displayed, ResultView
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.predictions import Predictions, TextPrediction, predictions_for
from spd_deploy.api.texts import Texts, examples_from
from spd_deploy.api.values import DEVICE, RUNTIME, THREADS, read_model, read_windows
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.long_texts import AS_TRAINED, LongTextChoice
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.domain.tasks import Task
    from spd_deploy.domain.text import Tokenizer
    from spd_deploy.sessions.open import OpenedModel
    from spd_deploy.sessions.protocol import Description
    from spd_train.data.examples import Example


class Model(Displayed):
    """A model that answers texts; made by ``spd.load``.

    It holds the threads and the memory of its runtime until it is closed: by ``close``, at the end
    of a ``with`` block, or when nothing refers to it any more.

    Attributes:
        path: the folder that it was loaded from.
        runtime: the runtime, its version, device, precision and threads.
    """

    def __init__(self, path: Path, opened: "OpenedModel") -> None:
        self.path = path
        self.runtime: Description = opened.session.description
        self._opened = opened
        self._close = weakref.finalize(self, opened.session.close)

    @property
    def task(self) -> "Task":
        """The task that the model was trained for."""
        return self._opened.task

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer it was trained with; texts are cut where training cut them."""
        return self._opened.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the model's outputs, or their own order; none for a number."""
        return self.task.names

    @property
    def closed(self) -> bool:
        """Whether it was closed and answers nothing any more."""
        return not self._close.alive

    # A string is an iterable of strings too, so the overloads overlap; the first one wins.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        texts: str,
        pairs: str | None = None,
        *,
        long_texts: Literal["cut", "windows"] | None = None,
        window_stride: int | None = None,
        window_pooling: Literal["mean", "max"] | None = None,
        max_windows: int | None = None,
        progress: bool | Progress = False,
    ) -> TextPrediction: ...
    @overload
    def predict(
        self,
        texts: Texts,
        pairs: Texts | None = None,
        *,
        long_texts: Literal["cut", "windows"] | None = None,
        window_stride: int | None = None,
        window_pooling: Literal["mean", "max"] | None = None,
        max_windows: int | None = None,
        progress: bool | Progress = False,
    ) -> Predictions: ...
    def predict(
        self,
        texts: Any,
        pairs: Any = None,
        *,
        long_texts: Literal["cut", "windows"] | None = None,
        window_stride: int | None = None,
        window_pooling: Literal["mean", "max"] | None = None,
        max_windows: int | None = None,
        progress: bool | Progress = False,
    ) -> TextPrediction | Predictions:
        """Classify one text, or many.

        Args:
            texts: a string; or a list, a pandas, Polars or NumPy column, or any other iterable of
                strings, of ``(text, pair)`` tuples, or of ``{"text": ..., "text_pair": ...}``
                rows; or a table with the columns ``text`` and ``text_pair``, or with those that
                the model was trained on.
            pairs: the second texts of a task of pairs, where ``texts`` are the first ones.
            long_texts: ``windows`` reads a text that is longer than the model reads in windows,
                whose logits are pooled; ``cut`` leaves out what is behind its longest input.
                By default as the model was trained, and so are the three below.
            window_stride: tokens that a window shares with the one before; else a quarter of the
                longest input.
            window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
            max_windows: windows of a text, else 16; what is behind them is cut off.
            progress: show a bar.

        Returns:
            One ``TextPrediction`` for a string, else ``Predictions`` in the order of the texts.

        Raises:
            BadData: an empty text, a value that is not a string, or a missing second text.
            BadSetting: the model was closed, or a value that is not allowed.
        """
        windows = read_windows(long_texts, window_stride, window_pooling, max_windows)
        examples = examples_from(self.task, texts, pairs)
        found = self.classify(examples, progress=NoteRecorder(progress), windows=windows)
        return found[0] if isinstance(texts, str) else found

    def classify(
        self,
        examples: "Sequence[Example]",
        *,
        progress: Progress,
        windows: LongTextChoice = AS_TRAINED,
    ) -> Predictions:
        """Answer rows that were read already, in their order."""
        return predictions_for(self.opened().reading(windows), examples, progress)

    def opened(self) -> "OpenedModel":
        """The session with its tokenizer and task.

        Raises:
            BadSetting: the model was closed.
        """
        if self.closed:
            raise BadSetting("the model is closed", got=self.path, fix="load it again")
        return self._opened

    def close(self) -> None:
        """Free the threads and the memory of the runtime; a second call does nothing."""
        self._close()

    def view(self) -> ResultView:
        """The task, the labels, and what the model runs in."""
        facts = {
            "task": self.task.name,
            "labels": ", ".join(self.labels) or "a number",
            "reads": f"{'two texts' if self.task.has_pair else 'a text'}, up to "
            f"{self.tokenizer.max_tokens} tokens",
            "runtime": str(self.runtime),
        }
        return ResultView(
            title=f"{'closed model' if self.closed else 'model'} {self.path}", facts=facts
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(
    path: str | PathLike[str],
    *,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
) -> Model:
    """Open an artefact in its runtime, or a checkpoint in PyTorch, verified and self-tested.

    Args:
        path: the folder of an artefact, of a checkpoint, or of any Hugging Face classifier; or an
            address of one, such as ``hf://OWNER/NAME@REVISION`` or ``s3://BUCKET/MODEL``.
        runtime: ``auto`` is the one that the artefact was exported for; or ``onnxruntime``,
            ``openvino``, ``openvino:bf16``, ``tensorrt``, ``torch``.
        device: ``cpu`` or ``cuda``; by default the CPU, and for a TensorRT engine the GPU.
        threads: threads of the runtime; by default the cores that this process may use.

    Raises:
        BadArtefact, BadCheckpoint: nothing there, or damaged files.
        BadSetting: a value that is not allowed, or a runtime that does not run such a model.
        Unavailable: the runtime or the device is missing on this machine.
    """
    from spd_deploy.sessions.open import open_path

    folder = read_model("path", path)
    choice = RUNTIME_CHOICES[RUNTIME.read("runtime", runtime)]
    if device is not None:
        DEVICE.read("device", device)
    if threads is not None:
        threads = THREADS.read("threads", threads)
    return Model(folder, open_path(folder, runtime_choice=choice, device=device, threads=threads))
