"""How this project starts Python processes of its own.

``python -m`` puts the working folder first on the import path, where a user's ``serve.py`` would
stand in for our package ``serve``. ``-P`` leaves the working folder out.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def python_module(name: str) -> list[str]:
    """The command that runs a module of ours, whatever the working folder holds."""
    return [sys.executable, "-P", "-m", name]


def child_environment(**more: str) -> Mapping[str, str]:
    """This process's environment for a child, with ``more`` in it.

    A checkout that is run without being installed is put on the child's path: ``-P`` takes the
    working folder away, where the parent found it. Site-packages is on it already.
    """
    environment = {**os.environ, **more}
    if _ROOT.name not in ("site-packages", "dist-packages"):
        paths = [str(_ROOT), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return environment


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the block ends.

    Around the start of a child: between the start and the name for it, nobody could end it. Python
    delivers signals to the main thread only; in another one nothing is put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for raised in came:
            os.kill(os.getpid(), raised)
