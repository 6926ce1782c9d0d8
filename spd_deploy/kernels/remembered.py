"""What was measured on this user's GPUs, kept in ``kernels.json`` in the user's cache folder.

A tile is remembered for a GPU, a version of Triton and a class of shapes; whether 2:4 tensor cores
win for a GPU, a version of PyTorch and a shape. Triton's own autotuner would measure again in every
process, and as it likes in the middle of a CUDA graph's capture; so it is not used.

The file is a versioned document, read strictly, and replaced whole; without one that can be read
and written, each process measures for itself, and says so. Two processes that measure at
once each keep what was in the file when they wrote; what the first lost is measured again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadReport, NotWritten
from spd_deploy.domain.files import cache_folder, read_json, write_json
from spd_deploy.kernels.tiles import Tile

SCHEMA = 1
FILE = "kernels.json"
_HOMELESS = "the user has no home folder, and XDG_CACHE_HOME names none"
_DAMAGED = f"{FILE} in the cache folder is damaged or of another version: delete it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where something was measured: the GPU's name, and the version of what ran there."""

    gpu: str
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BestTile:
    """The fastest tile of a class of shapes, and how long it took there."""

    place: Place
    problem: str
    tile: Tile
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoFour:
    """How long a product takes dense, and on 2:4 tensor cores; None where those failed."""

    place: Place
    product: str
    dense_s: float
    sparse_s: float | None

    @property
    def wins(self) -> bool:
        """Whether 2:4 tensor cores are the faster."""
        return self.sparse_s is not None and self.sparse_s < self.dense_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """All that is remembered."""

    tiles: tuple[BestTile, ...] = ()
    two_four: tuple[TwoFour, ...] = ()

    def tile(self, place: Place, problem: str) -> Tile | None:
        """The tile of a class of shapes, where it was measured."""
        found = (one.tile for one in self.tiles if (one.place, one.problem) == (place, problem))
        return next(found, None)

    def two_four_of(self, place: Place, product: str) -> TwoFour | None:
        """The two times of a product, where they were measured."""
        found = (one for one in self.two_four if (one.place, one.product) == (place, product))
        return next(found, None)

    def with_measured(self, new: Iterable[BestTile | TwoFour]) -> Self:
        """The same with more; what is measured again replaces what was known."""
        tiles = {(one.place, one.problem): one for one in self.tiles}
        two_four = {(one.place, one.product): one for one in self.two_four}
        for one in new:
            if isinstance(one, BestTile):
                tiles[one.place, one.problem] = one
            else:
                two_four[one.place, one.product] = one
        return replace(self, tiles=tuple(tiles.values()), two_four=tuple(two_four.values()))


class Memory:
    """What is known here: from the file, and what was measured since.

    Attributes:
        unsaved: why what is measured cannot be kept, without a path; None as far as it can. A file
            that is damaged, or of another version, stays as it is.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Read ``file``, by default the user's own; what cannot be read holds nothing."""
        self.file = file or _own_file()
        self.known, self.unsaved = Known(), None if self.file else _HOMELESS
        if self.file is not None:
            with self._unkept():
                self.known = read_known(self.file)

    def keep(self, one: BestTile | TwoFour) -> None:
        """Remember it here, and in the file if that can be written."""
        self.known = self.known.with_measured([one])
        if self.file is not None:
            with self._unkept():
                write_known(self.file, read_known(self.file).with_measured([one]))

    @contextmanager
    def _unkept(self) -> Iterator[None]:
        """A file that cannot be read or written is no failure of a request: it says why."""
        try:
            yield
        except NotWritten as err:
            self.unsaved = err.got or err.what
        except BadReport:
            self.unsaved = _DAMAGED


def _own_file() -> Path | None:
    """The user's, where there is a home folder."""
    try:
        return default_file()
    except RuntimeError:
        return None


def default_file() -> Path:
    """In the user's cache folder."""
    return cache_folder() / FILE


def read_known(file: Path) -> Known:
    """What a file holds; nothing where there is none.

    Raises:
        BadReport: it is damaged, or of another version.
    """
    if not file.exists():
        return Known()
    fix = f"delete {file}; it is measured again"
    document = read_json(file, error=BadReport, fix=fix)
    return versioned(Known, document, SCHEMA, what=file, error=BadReport, fix=fix)


def write_known(file: Path, known: Known) -> None:
    """Replace the file, whole or not at all.

    Raises:
        NotWritten: no space, or no permission.
    """
    write_json(file, {"schema": SCHEMA, **asdict(known)})
