"""``spd.predict``: a file of any length to a file of answers."""

import contextlib
import io
from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING, Literal

from spd_deploy.api.loading import load
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import (
    DEVICE,
    RUNTIME,
    THREADS,
    OneOf,
    read_flag,
    read_model,
    read_path,
    read_text,
    read_windows,
)
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import refuse_existing_file
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.scale.answer_formats import KINDS, format_of
from spd_deploy.scale.cost import FileCost
from spd_deploy.scale.file_request import FileRequest

if TYPE_CHECKING:
    from spd_deploy.sessions.open import OpenedModel

_KIND = OneOf(KINDS)


def predict(
    path: str | PathLike[str],
    *,
    input: str | PathLike[str] | None = None,  # as the option
    text_column: str | None = None,
    pair_column: str | None = None,
    skip_broken_rows: bool = False,
    output: str | PathLike[str] | None = None,
    output_format: str | None = None,
    long_texts: Literal["cut", "windows"] | None = None,
    window_stride: int | None = None,
    window_pooling: Literal["mean", "max"] | None = None,
    max_windows: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    runtime: str = "auto",
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    ray: str | None = None,
    progress: bool | Progress = False,
) -> FileCost:
    """Classify every row of a file; memory does not grow with the file.

    For texts in memory use ``load`` and its ``predict``.

    Args:
        path: the model's folder.
        input: .jsonl, .csv, .tsv or .parquet; the text formats also as .gz, .bz2, .xz or .zst.
        text_column: where the text is; by default ``text``, or as the model was trained.
        pair_column: where the second text of a pair is.
        skip_broken_rows: leave rows without a text out, instead of stopping at the first.
        output: the file of answers, in one of the same formats; it appears when it is whole.
        output_format: ``jsonl``, ``csv``, ``tsv`` or ``parquet``; by default by the name.
        long_texts: ``windows`` reads a text that is longer than the model reads in windows, whose
            logits are pooled; ``cut`` leaves out what is behind the model's longest input.
            By default as the model was trained, and so are the three below.
        window_stride: tokens that a window shares with the one before; else a quarter of the
            longest input.
        window_pooling: ``mean`` or ``max`` of the logits; else ``mean``.
        max_windows: windows of a text, else 16; what is behind them is cut off.
        overwrite: replace the output, and begin again where one is unfinished.
        resume: go on with an unfinished output.
        runtime: as for ``load``.
        device: as for ``load``.
        threads: as for ``load``; with ``ray`` those of each actor, 1 by default.
        ray: run the model on a Ray cluster: its ``HOST:PORT``, ``auto`` for the one in RAY_ADDRESS
            or on this machine, or ``local`` to start Ray here. A Ray that is connected is used.
        progress: show bars, or tell a listener of your own.

    Raises:
        BadData: a file that cannot be read, or a broken row.
        BadSetting: an unfinished output of another input, model or option.
        NotWritten: an output that exists or is unfinished, or a full disk.
    """
    from spd_deploy.scale.predict_file import Streams, predict_file

    if input is None or output is None:
        raise BadSetting(
            f"{'input' if input is None else 'output'} must be a file",
            got="None",
            fix="name it; for texts in memory use spd.load(path).predict(texts)",
        )
    file = read_path("output", output)
    kind = None if output_format is None else _KIND.read("output_format", output_format)
    request = FileRequest(
        input=read_path("input", input),
        output=file,
        format=format_of(file, kind, "jsonl"),
        text_column=None if text_column is None else read_text("text_column", text_column),
        pair_column=None if pair_column is None else read_text("pair_column", pair_column),
        skip_broken_rows=read_flag("skip_broken_rows", skip_broken_rows),
        overwrite=read_flag("overwrite", overwrite),
        resume=read_flag("resume", resume),
        windows=read_windows(long_texts, window_stride, window_pooling, max_windows),
    )
    refuse_existing_file(file, overwrite=request.overwrite)
    told = NoteRecorder(progress)
    with opened_for_file(
        path, runtime=runtime, device=device, threads=threads, ray=ray, progress=told
    ) as opened:
        return predict_file(
            opened,
            request,
            progress=told,
            streams=Streams(input=io.BytesIO(), output=io.BytesIO()),
        )


@contextlib.contextmanager
def opened_for_file(
    path: str | PathLike[str],
    *,
    runtime: str,
    device: Literal["cpu", "cuda"] | None,
    threads: int | None,
    ray: str | None,
    progress: Progress,
) -> "Iterator[OpenedModel]":
    """The model, in this process or on a Ray cluster; arguments as those of :func:`predict`.

    Raises:
        SpdError: no model, no runtime for it, or no cluster.
    """
    if ray is None:
        with load(path, runtime=runtime, device=device, threads=threads) as model:
            yield model.opened()
        return
    from spd_deploy.scale.ray_model import model_on_ray

    if device is not None:
        DEVICE.read("device", device)
    with model_on_ray(
        read_model("path", path, note=progress.note),
        read_text("ray", ray),
        choice=RUNTIME_CHOICES[RUNTIME.read("runtime", runtime)],
        device=device,
        threads=None if threads is None else THREADS.read("threads", threads),
        note=progress.note,
    ) as opened:
        yield opened
