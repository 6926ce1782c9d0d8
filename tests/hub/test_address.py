"""What a reference to a model is."""

from pathlib import Path

import pytest

from spd_deploy.domain.errors import BadSetting
from spd_deploy.hub.address import HubAddress, UrlAddress, address_of


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("hf://a/b", "hf://a/b"),
        ("hf://a/b@v1.0", "hf://a/b@v1.0"),
        ("hf://a/b@refs/pr/1", "hf://a/b@refs/pr/1"),
        (Path("hf://a/b@v1"), "hf://a/b@v1"),
        ("hf://bert-base", "hf://bert-base"),
        ("https://huggingface.co/a/b", "hf://a/b"),
        ("https://huggingface.co/a/b/tree/v1/", "hf://a/b@v1"),
    ],
)
def test_an_address_of_the_hub_has_a_name_and_a_revision(
    reference: str | Path, expected: str
) -> None:
    """A path of pathlib, which has one slash less, and the page of a model are the same."""
    found = address_of(reference)

    assert isinstance(found, HubAddress)
    assert str(found) == expected


@pytest.mark.parametrize(
    ("reference", "url", "name"),
    [
        ("s3://bucket/models/reviews/", "s3://bucket/models/reviews/", "reviews"),
        (Path("s3://bucket/models/reviews"), "s3://bucket/models/reviews", "reviews"),
        ("https://host:8000/a/b", "https://host:8000/a/b", "b"),
        ("file:///data/b", "file:///data/b", "b"),
    ],
)
def test_other_schemes_are_urls(reference: str | Path, url: str, name: str) -> None:
    """The model is called after the last part of the path."""
    found = address_of(reference)

    assert isinstance(found, UrlAddress)
    assert (found.url, found.name) == (url, name)


def test_a_url_is_shown_without_its_secrets() -> None:
    """Neither the password nor the signature is printed, and both are sent for each file."""
    found = address_of("https://me:secret@host/b/m?signature=xyz")

    assert isinstance(found, UrlAddress)
    assert str(found) == "https://host/b/m"
    assert found.of("config.json") == "https://me:secret@host/b/m/config.json?signature=xyz"


def test_a_bare_name_is_of_the_hub_only_where_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is there wins, and a path into a folder that is there is no name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "reviews").mkdir(parents=True)

    assert address_of("a/b") is None
    assert address_of("a/b", names="owned") == HubAddress(repository="a/b")
    assert address_of("a/b@v1", names="any") == HubAddress(repository="a/b", revision="v1")
    assert address_of("bert", names="any") == HubAddress(repository="bert")
    for folder in ("bert", "runs/reviews", "runs/reviws", "./a/b", "/a/b", "a/b/c", "../a"):
        assert address_of(folder, names="owned") is None


def test_a_revision_is_named_in_one_place() -> None:
    """The option and the part behind the name are the same."""
    assert (
        address_of("hf://a/b", "v1") == address_of("hf://a/b@v1") == address_of("hf://a/b@v1", "v1")
    )


@pytest.mark.parametrize(
    ("reference", "revision", "reason"),
    [
        ("hf://a/b/c", None, "not the name of a model on the Hugging Face hub; got hf://a/b/c"),
        ("hf://", None, "not the name of a model"),
        ("hf://-a/b", None, "not the name of a model"),
        ("hf://datasets/a/b", None, "not the name of a model"),
        ("hf://a/b@", None, "not a branch, tag or commit; got '' of hf://a/b@"),
        ("hf://a/b@v 1", None, "not a branch, tag or commit"),
        ("hf://a/b", "../c", "not a branch, tag or commit"),
        ("hf://a/b@v1", "v2", "two revisions are named; got v1 and --revision v2"),
        ("s3://b/m", "v1", "only a model of the Hugging Face hub has revisions"),
        ("folder", "v1", "only a model of the Hugging Face hub has revisions"),
        ("s3://", None, "an address without a path"),
    ],
)
def test_a_bad_address_is_refused(reference: str, revision: str | None, reason: str) -> None:
    """The line says what is wrong and how addresses are written."""
    with pytest.raises(BadSetting) as refused:
        address_of(reference, revision)

    assert reason in str(refused.value)
