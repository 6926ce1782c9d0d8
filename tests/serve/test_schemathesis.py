"""The description of the API is kept: Schemathesis sends what it allows and what it does not.

Every check of Schemathesis runs on every answer: no server error, documented statuses, media types,
headers and bodies, valid requests accepted and invalid ones refused.
"""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error

from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact
from tests.serve.wire import Wire, listening

EXAMPLES = 8
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", params=["single", "pair"])
def wire(
    request: pytest.FixtureRequest, single_artefact: Artefact, pair_artefact: Artefact
) -> Iterator[Wire]:
    """A server of single texts, and one of pairs."""
    artefact = single_artefact if request.param == "single" else pair_artefact
    with listening(open_served(artefact.folder, threads=1)) as found:
        yield found


@pytest.fixture(scope="module")
def operations(wire: Wire) -> list[APIOperation]:
    """What the server describes at /openapi.json."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{wire.port}/openapi.json")
    return [found.ok() for found in schema.get_all_operations()]


def takes_something(operation: APIOperation) -> bool:
    """Whether a request can be wrong: the operation has a body or parameters."""
    return bool(operation.body.items or operation.path_parameters.items or operation.query.items)


def ask(case: Case) -> None:
    """Send the request, and run every check on its answer.

    A client that waits for a thousandth of a millisecond is refused with 504, as it is described.
    """
    answer = case.call()
    waits = isinstance(case.body, dict) and "timeout_ms" in case.body
    timed_out = waits and answer.status_code == 504
    case.validate_response(answer, excluded_checks=[not_a_server_error] if timed_out else None)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_description_is_kept(operations: list[APIOperation], mode: GenerationMode) -> None:
    """Valid and invalid requests to every path pass every check of Schemathesis."""
    asked = 0
    for operation in operations:
        if mode is GenerationMode.POSITIVE or takes_something(operation):
            asked += 1
            BOUNDED(given(operation.as_strategy(generation_mode=mode))(ask))()

    assert asked >= (len(operations) if mode is GenerationMode.POSITIVE else 10)
