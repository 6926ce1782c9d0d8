"""Files appear whole or not at all."""

import errno
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from spd_deploy.domain.errors import BadInput, NotWritten
from spd_deploy.domain.files import (
    FULL,
    bytes_of,
    not_written,
    read_json,
    refuse_existing,
    refuse_foreign,
    refuse_unwritable,
    replacing,
    sha256_of,
    write_json,
    write_text,
)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The new content takes the old one's place and no scratch file stays behind."""
    file = tmp_path / "a.txt"
    write_text(file, "old")

    write_text(file, "new")

    assert file.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    """An error in the middle of writing a file keeps the old one."""
    file = tmp_path / "a.txt"
    write_text(file, "old")

    with pytest.raises(ZeroDivisionError), replacing(file) as draft:
        draft.write_text("half")
        raise ZeroDivisionError

    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    """A folder takes the place of another, and nothing of the old one remains."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "old").write_text("old")

    with replacing(folder) as draft:
        draft.mkdir()
        (draft / "new").write_text("new")

    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    """An error while a folder is made keeps the old folder with all its files."""
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "old").write_text("old")

    with pytest.raises(ZeroDivisionError), replacing(folder) as draft:
        draft.mkdir()
        raise ZeroDivisionError

    assert (folder / "old").read_text() == "old"


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """The operating system's refusal to write becomes NotWritten, and the old file stays."""
    file = tmp_path / "a.txt"
    write_text(file, "old")
    script = f"""
        import resource, signal
        from pathlib import Path
        from spd_deploy.domain.errors import NotWritten
        from spd_deploy.domain.files import write_text
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_text(Path({str(file)!r}), "x" * 100_000)
        except NotWritten as err:
            print(err)
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )

    assert "could not write" in done.stdout
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "free some space"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "that you may write to"),
        (errno.EPERM, "that you may write to"),
        (errno.EIO, "choose another --output"),
    ],
)
def test_a_refusal_says_its_own_cause_and_remedy(number: int, remedy: str) -> None:
    """What the system says stands in the error, and the remedy is the one for that reason."""
    system = OSError(number, os.strerror(number))
    library = RuntimeError(f"I/O error: something (os error {number})")
    for err in (system, library):
        told = str(not_written(Path("out"), err))

        assert told.startswith(f"could not write out; got {os.strerror(number)}; ")
        assert remedy in told
        assert ("free some space" in told) == (number in FULL)


def test_an_error_of_a_draft_names_what_it_would_become(tmp_path: Path) -> None:
    """A refusal inside the block names the output, not the scratch folder that is gone."""
    with pytest.raises(NotWritten) as caught, replacing(tmp_path / "model") as draft:
        raise not_written(draft / "weights", OSError(errno.ENOSPC, "x"))

    assert str(caught.value).startswith(f"could not write {tmp_path / 'model' / 'weights'}; ")


def test_an_output_is_tried_before_time_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest folder that exists must take a file; a try leaves nothing behind."""
    output = tmp_path / "a" / "b" / "out"
    refuse_unwritable(output, output)
    refuse_existing(output, overwrite=False)
    assert not list(tmp_path.iterdir())

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("spd_deploy.domain.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(NotWritten, match=r"could not write .*out; got Read-only file system"):
        refuse_existing(output, overwrite=False)


def test_a_mounted_disk_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is a mount point is refused at once, since no folder can take its place."""
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path)

    with pytest.raises(NotWritten, match=r"mounted.*name a folder in it"):
        refuse_existing(tmp_path, overwrite=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    """A folder that may not be written to is named."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NotWritten, match="could not write"):
            write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    """An output below a file is refused with the reason."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(NotWritten, match="could not write"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    """Reading what was written gives the same value."""
    value = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    write_json(tmp_path / "a.json", value)

    assert read_json(tmp_path / "a.json", error=BadInput, fix="-") == value


@pytest.mark.parametrize("content", ["", "[1]", "{", '"text"'])
def test_json_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    """A damaged JSON file is an error of the caller's kind, with its name."""
    file = tmp_path / "a.json"
    file.write_text(content)

    with pytest.raises(BadInput, match=r"a\.json"):
        read_json(file, error=BadInput, fix="-")


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    """A file or a folder with something in it stays unless overwriting was asked for."""
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", overwrite=False)
    (tmp_path / "empty" / "x").write_text("x")

    with pytest.raises(NotWritten, match="already exists"):
        refuse_existing(tmp_path / "empty", overwrite=False)
    refuse_existing(tmp_path / "empty", overwrite=True)


def test_only_an_earlier_output_is_replaced(tmp_path: Path) -> None:
    """With overwrite a folder of our own files goes, one with another in it never does."""

    def refuse(*, overwrite: bool = True) -> None:
        refuse_foreign(tmp_path, overwrite=overwrite, what="map", ours={"map.json"}.__contains__)

    refuse(overwrite=False)
    (tmp_path / "map.json").write_text("{}")
    refuse()
    with pytest.raises(NotWritten, match="already exists"):
        refuse(overwrite=False)
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(NotWritten, match=r"is not an earlier map.*'thesis' in it; choose another"):
        refuse()


def test_a_file_is_no_earlier_folder(tmp_path: Path) -> None:
    """Where a folder is to be, a file is never replaced, whatever its name."""
    (tmp_path / "map.json").write_text("{}")

    with pytest.raises(
        NotWritten, match="is not an earlier map, so it is not replaced; got a file"
    ):
        refuse_foreign(tmp_path / "map.json", overwrite=True, what="map", ours=lambda _: True)


def test_sizes_and_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    """Sizes add up over a folder, and the hash is SHA-256."""
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"12345")

    assert bytes_of(tmp_path) == 8
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea")
