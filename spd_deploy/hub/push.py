"""A folder to a repository of the Hugging Face hub, through the hub's own client."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spd_deploy.domain.errors import BadSetting, SpdError, Unavailable, first_line
from spd_deploy.domain.versions import PACKAGE
from spd_deploy.hub.address import HubAddress, address_of
from spd_deploy.hub.reachable import bars_on_a_terminal, why_hub_is_unreachable

_SIGN_IN = "sign in with: hf auth login, or set HF_TOKEN"


@dataclass(frozen=True, kw_only=True, slots=True)
class PushedCommit:
    """The result of a push to the hub.

    Attributes:
        repository: ``OWNER/NAME``.
        url: the page of the repository.
        commit: the name of the commit.
    """

    repository: str
    url: str
    commit: str


def repository_of(text: str) -> str:
    """``OWNER/NAME``, or ``NAME`` of one's own account.

    Raises:
        BadSetting: no name that the hub could have.
    """
    try:
        address = address_of(text if "://" in text else f"hf://{text}")
    except BadSetting:
        address = None
    if not isinstance(address, HubAddress) or address.revision is not None:
        raise BadSetting(
            "not the name of a repository on the Hugging Face hub",
            got=text,
            fix="write OWNER/NAME; a branch goes with --revision",
        )
    return address.repository


def push_files(
    folder: Path,
    files: Sequence[str],
    repository: str,
    *,
    private: bool,
    revision: str | None,
    message: str,
    note: Callable[[str], None],
) -> PushedCommit:
    """Push files of a folder as one commit; the repository is made where there is none.

    Args:
        folder: holds the files.
        files: their names.
        repository: ``OWNER/NAME``, or ``NAME`` of one's own account.
        private: make a private repository.
        revision: the branch, made where there is none; None for the main one.
        message: the first line of the commit's message.
        note: gets a line before the files are sent.

    Raises:
        BadSetting: the repository is public, and a private one is wanted.
        Unavailable: no token, no right, no answer, or a commit of somebody else in between.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise Unavailable(
            "spd push needs a token of the Hugging Face hub", got="none", fix=_SIGN_IN
        )
    if (silence := why_hub_is_unreachable()) is not None:
        raise Unavailable(
            "the Hugging Face hub does not answer", got=silence, fix="try with a network"
        )
    api = HfApi(library_name=PACKAGE)
    with _refusals_of(repository), bars_on_a_terminal():
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        name = str(made.repo_id)
        if private and not api.model_info(name).private:
            raise BadSetting(
                f"{name} is on the hub already, and is public",
                got="--private",
                fix="change that on its settings page, or leave --private out",
            )
        if revision is not None:
            api.create_branch(name, branch=revision, exist_ok=True)
        note(f"pushing {len(files)} files to {made}")
        pushed = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=list(files),
            ignore_patterns=["*/*"],
            revision=revision,
            commit_message=message,
        )
    return PushedCommit(repository=name, url=str(made), commit=str(pushed.oid))


# What to do, by the status that the hub answers with.
_REMEDIES = {
    401: f"the token is not valid: {_SIGN_IN}",
    403: "use a token that may write, and an account that may write there",
    404: "check the name of the owner, and what the token may see",
    409: "somebody else pushed in between, or the name is taken: push again",
    412: "somebody else pushed in between: push again",
    413: "the hub takes no file that large",
    429: "too many requests: wait and push again",
}


@contextmanager
def _refusals_of(repository: str) -> Iterator[None]:
    """Turn what the hub answers into errors that say what to do.

    Raises:
        Unavailable: with the reason of the hub.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except SpdError:
        raise
    except Exception as err:
        # The upload of a single file wraps what the hub answered in an error of its own.
        chain = (err, err.__cause__)
        first = next((one for one in chain if isinstance(one, HfHubHTTPError)), None)
        if first is None:
            raise Unavailable(
                f"{repository} was not pushed",
                got=first_line(err.__cause__ or err),
                fix="push again",
            ) from err
        status = getattr(first.response, "status_code", 0)
        raise Unavailable(
            f"the Hugging Face hub refused {repository}",
            got=f"{status}: {first_line(first)}",
            fix=_REMEDIES.get(status, "try again later"),
        ) from err
