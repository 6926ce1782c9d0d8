"""Which worker of pytest-xdist runs which files: as ``loadfile`` does, but for what Ray runs."""

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

_ON_RAY = "tests/scale/test_ray_"


class FilesAndRay(LoadFileScheduling):  # type: ignore[misc]
    """A worker runs whole files, and one worker all that start Ray: there is one Ray then."""

    def _split_scope(self, nodeid: str) -> str:
        return _ON_RAY if nodeid.startswith(_ON_RAY) else str(super()._split_scope(nodeid))
