"""Temporary folders: removed at the end, and their errors name TMPDIR."""

import errno
import tempfile
from pathlib import Path

import pytest

from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import not_written, replacing
from spd_deploy.domain.scratch import scratch_folder


def test_the_folder_is_gone_afterwards() -> None:
    """A temporary folder and its files end with the block."""
    with scratch_folder("test") as folder:
        (folder / "file").write_text("x")

    assert not folder.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("named", [True, False])
def test_a_full_temporary_disk_is_not_the_output_s(
    tmp_path: Path, number: int, named: bool
) -> None:
    """A file that finds no room in the folder is told with TMPDIR, within an output too."""
    output = tmp_path / "out"
    with (
        pytest.raises(NotWritten, match="set TMPDIR") as caught,
        replacing(output),
        scratch_folder("test") as folder,
    ):
        err = OSError(number, "x")
        raise not_written(folder / "model.onnx", err) if named else err

    assert "--output" not in str(caught.value) and str(output) not in str(caught.value)


def test_no_place_for_the_folder_is_told_with_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TMPDIR that is no folder is named with its reason."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(NotWritten, match=r"missing.*No such file.*set TMPDIR"):
        scratch_folder("test").__enter__()


def test_an_output_s_own_error_stays() -> None:
    """An output that is refused while a temporary folder is open is named itself."""
    with pytest.raises(NotWritten, match=r"out/x; .*another --output"), scratch_folder("test"):
        raise not_written(Path("out/x"), OSError(errno.ENOSPC, "full"))


def test_other_errors_pass() -> None:
    """An error that is no matter of room is left to whom it concerns."""
    with pytest.raises(FileNotFoundError), scratch_folder("test") as folder:
        (folder / "missing").read_text()
