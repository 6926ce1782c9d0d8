"""The description of the API is kept: Schemathesis sends what it allows and what it does not.

Every check of Schemathesis runs on every answer: no server error, documented statuses, media types,
headers and bodies, valid requests accepted and invalid ones refused.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact
from tests.serve.wire import Wire, listening

Operation = APIOperation[Any, Any, Any, Any]
Request = Case[Any]
EXAMPLES = 8
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
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
def operations(wire: Wire) -> list[Operation]:
    """What the server describes at /openapi.json."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{wire.port}/openapi.json")
    return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]


def takes_something(operation: Operation) -> bool:
    """Whether a request can be wrong: the operation has a body or parameters."""
    return bool(operation.body.items or operation.path_parameters.items or operation.query.items)


def ask(case: Request) -> None:
    """Send the request, and run every check on its answer.

    Two refusals of valid requests are described in words alone: 504 for a client that waits for a
    thousandth of a millisecond, and 400 for a text of nothing but accents, which have no token.
    """
    answer = case.call()
    code = answer.json().get("code", "") if answer.status_code in (400, 504) else ""
    excluded = {
        "SPD_DEADLINE_EXCEEDED": not_a_server_error,
        "SPD_EMPTY_TEXT": positive_data_acceptance,
    }.get(code)
    case.validate_response(answer, excluded_checks=[excluded] if excluded else None)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_the_description_is_kept(operations: list[Operation], mode: GenerationMode) -> None:
    """Valid and invalid requests to every path pass every check of Schemathesis."""
    asked = 0
    for operation in operations:
        if mode is GenerationMode.POSITIVE or takes_something(operation):
            asked += 1
            BOUNDED(given(operation.as_strategy(generation_mode=mode))(ask))()

    assert asked >= (len(operations) if mode is GenerationMode.POSITIVE else 10)
