"""The other end of the load generator's pipe: loads to it, outcomes from it."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict

from spd_deploy.benchmark.http.load_spec import LoadOutcome, LoadSpec
from spd_deploy.domain.child import child_environment, python_module
from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import EngineFailed, Unavailable

_MODULE = "spd_deploy.benchmark.http.generator"


class LoadGenerator:
    """A load generator in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, spec: LoadSpec) -> LoadOutcome:
        """Run a load and return what became of it.

        Raises:
            Unavailable: nobody listens at its URL.
            EngineFailed: the generator ended.
        """
        assert self._process.stdin and self._process.stdout  # noqa: S101 - both are pipes
        try:
            self._process.stdin.write(json.dumps(asdict(spec)) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise EngineFailed(
                "the load generator ended",
                got=f"exit status {self._process.wait()}",
                fix="free some memory, or measure lower rates",
            )
        answer = json.loads(line)
        if "error" in answer:
            raise Unavailable(
                f"nobody answers at {spec.url}", got=answer["error"], fix="start spd serve there"
            )
        return value_of(
            LoadOutcome, answer, what="the outcome", error=EngineFailed, fix="run the command again"
        )


@contextlib.contextmanager
def load_generator() -> Iterator[LoadGenerator]:
    """A generator that is ready, and that ends with the context."""
    with subprocess.Popen(
        python_module(_MODULE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,  # Ctrl-C is for this process, which then ends the generator
    ) as process:
        try:
            yield LoadGenerator(process)
        finally:
            process.terminate()
