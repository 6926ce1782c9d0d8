"""A signal ends the wait for standard input."""

import io
import os
import threading

import pytest

from spd_deploy.cli.inputs.standard_input import StoppableInput
from spd_deploy.domain.errors import Interrupted


def test_a_silent_pipe_is_given_up_at_a_signal() -> None:
    """What came before is read; then the reader waits, and ends when it is told to."""
    read_end, write_end = os.pipe()
    stopped = threading.Event()
    with io.FileIO(read_end) as raw, io.FileIO(write_end, "w") as writer:
        writer.write(b"a film")
        source = StoppableInput(raw, stopped.is_set)
        assert source.read(100) == b"a film"
        stopped.set()

        with pytest.raises(Interrupted, match="stopped by a signal"):
            source.read(100)


def test_the_bytes_are_those_of_the_pipe_to_its_end() -> None:
    """However they arrive."""
    read_end, write_end = os.pipe()
    content = bytes(range(256)) * 1000

    def write() -> None:
        with io.FileIO(write_end, "w") as writer:
            rest = memoryview(content)
            while rest:
                rest = rest[writer.write(rest[:7777]) :]

    thread = threading.Thread(target=write)
    thread.start()
    with io.FileIO(read_end) as raw:
        assert io.BufferedReader(StoppableInput(raw, lambda: False)).read() == content
    thread.join()
