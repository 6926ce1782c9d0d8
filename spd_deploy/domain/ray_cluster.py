"""Connects to a Ray cluster, or starts Ray on this machine.

with ray_cluster("10.0.0.1:6379", "spd predict --ray") as ray:
    ray.get(...)

Ray itself waits two minutes for an address at which nobody answers, and then ends the process. The
address is therefore tried first.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import BadSetting, Unavailable, first_line
from spd_deploy.domain.extras import require_extras
from spd_deploy.domain.versions import version_of

# What --ray means without an address: Ray is started here, and stopped at the end.
LOCAL = "local"
# The cluster of the variable RAY_ADDRESS, or the one that `ray start` started on this machine.
AUTO = "auto"
OLDEST = (2, 60)
_ANSWER_WITHIN_S = 5.0
# Of a Ray that is started here. Windows of texts pass through it, and nothing else.
_STORE_BYTES = 1 << 28
_FIX = (
    f"correct the address (HOST:PORT of `ray start --head`, or {AUTO}), or leave it out to start \
Ray here"
)

# Ray sends its token to a cluster on this machine by itself, and to an address only if asked to.
_CONNECT_FIX = "make this machine a node of the cluster (`ray start --address`) with the same \
versions of Ray and Python; where it was started with a token, set RAY_AUTH_MODE=token"


@contextlib.contextmanager
def ray_cluster(address: str, what: str) -> Iterator[ModuleType]:
    """Yield the module ``ray``, connected; a Ray that was connected before is used and kept.

    Args:
        address: ``HOST:PORT`` of a cluster of which this machine is a node, :data:`AUTO`, or
            :data:`LOCAL` to start Ray here with the cores that this process may use.
        what: what needs Ray, as the subject of a sentence.

    Raises:
        BadSetting: no address.
        Unavailable: Ray is missing or too old, nobody answers, or the cluster has another version.
    """
    require_extras(what, "ray")
    _refuse_old(what)
    where = _tried(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    _connect(ray, where)
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_old(what: str) -> None:
    """Refuse a Ray that lacks what is used here.

    Raises:
        Unavailable: with its version.
    """
    number = version_of("ray") or "0"
    if tuple(int(part) for part in number.split(".")[:2]) < OLDEST:
        least = ".".join(map(str, OLDEST))
        raise Unavailable(
            f"{what} needs Ray {least} or later",
            got=f"ray {number}",
            fix=f"pip install 'ray[serve]>={least}', on every machine of the cluster",
        )


def _tried(address: str) -> str:
    """The address, after somebody answered there.

    Raises:
        BadSetting: it is no address.
        Unavailable: nobody answers.
    """
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS", "") or AUTO
    known = _started_here() if address == AUTO else address
    if address == LOCAL or known is None:
        return address
    host, _, port = known.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and "/" not in host):
        raise BadSetting("no address of a Ray cluster", got=known, fix=_FIX)
    _reach(host.strip("[]"), int(port))
    return address


def _started_here() -> str | None:
    """The cluster of the last ``ray start`` on this machine, which may be gone."""
    temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return (Path(temporary) / "ray" / "ray_current_cluster").read_text("ascii").strip()
    except (OSError, UnicodeError):
        return None


def _reach(host: str, port: int) -> None:
    """Refuse an address where no gRPC server answers; one with TLS is only reached.

    Raises:
        Unavailable: with the reason.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_WITHIN_S):
            pass
    except (OSError, OverflowError, UnicodeError) as err:
        raise Unavailable(f"nobody answers at {where}", got=first_line(err), fix=_FIX) from err
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    import grpc

    with grpc.insecure_channel(where) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_WITHIN_S)
        except grpc.FutureTimeoutError as err:
            raise Unavailable(f"what listens at {where} is no Ray cluster", fix=_FIX) from err


def _connect(ray: ModuleType, address: str) -> None:
    """Connect to a cluster, or start one.

    Raises:
        Unavailable: with Ray's reason.
    """
    started = {
        "num_cpus": default_threads(),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    more = started if address == LOCAL else {}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _signals_kept():
        try:
            ray.init(address=address, **quiet, **more)
        except (Exception, SystemExit) as err:  # of many kinds, none documented
            ray.shutdown()
            reason = " ".join(str(err).split()) or type(err).__name__
            if address == LOCAL:
                raise Unavailable(
                    "Ray did not start", got=reason, fix="look into /tmp/ray/session_latest/logs"
                ) from err
            raise Unavailable(
                f"could not connect to the Ray cluster {address}", got=reason, fix=_CONNECT_FIX
            ) from err


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces by one that ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def whole_machine(ray: ModuleType, kind: str) -> int:
    """How many of a resource, ``CPU`` or ``GPU``, the largest machine of the cluster has."""
    return max((int(node["Resources"].get(kind, 0)) for node in living(ray)), default=0)


def whole_cluster(ray: ModuleType, kind: str, *, each: int = 1) -> int:
    """How often ``each`` of a resource fits into the machines of the cluster."""
    return sum(int(node["Resources"].get(kind, 0)) // each for node in living(ray))


def living(ray: ModuleType) -> list[dict[str, dict[str, float]]]:
    """The machines of the cluster that are there."""
    return [node for node in ray.nodes() if node["Alive"]]
