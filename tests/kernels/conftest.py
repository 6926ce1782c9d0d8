"""What the tests of the kernels share."""

from collections.abc import Iterator

import pytest

from tests.kernels.interpreter import Interpreter


@pytest.fixture(scope="session")
def interpreter() -> Iterator[Interpreter]:
    """The kernels on the CPU."""
    with Interpreter() as running:
        yield running
