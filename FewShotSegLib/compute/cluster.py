"""Work on many machines: pieces of it on the workers of a Dask cluster, one at a time on each.

All machines see the same files under the same paths, and have the same FewShotSeg. The process
that asks for the work (the coordinator) hands out descriptions and keeps what comes back; a piece
whose worker ends is begun again on another. ``distributed`` is an optional dependency.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

from .. import __version__
from ..core.errors import ClusterError, FewShotSegError, InputError, in_words
from ..core.events import EventSink, make_event
from ..core.json_fields import load_json
from .parallel import on_threads

SECONDS = 10.0
"""So long a scheduler may take to answer."""
SECONDS_BETWEEN_LOOKS = 1.0
_ONE = threading.Lock()
_LOST = (
    "The connection to the Dask scheduler was lost. Start the same command again: it goes on from "
    "here."
)
Task = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """What a worker is to know of the cluster.

    Attributes:
        version: of FewShotSeg that asks. peers: how many workers there are on each host.
        folder: that relative paths begin in.
    """

    version: str
    folder: str
    peers: Mapping[str, int]


class Cluster:
    """The workers of a scheduler; see :func:`connect`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def size(self) -> int:
        """How many workers there are now, 1 at least."""
        return max(1, len(self._client.nthreads()))

    def run(self, task: Task, jobs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Run a task on every job, as workers are free.

        Args:
            task: a function of a module, of one job and its :class:`Place`, which can be pickled.

        Yields:
            the number of a job, and what the task returned or the error that it ended with; in the
            order in which they end.

        Raises:
            ClusterError: the scheduler has gone.
        """
        ended: SimpleQueue[Any] = SimpleQueue()
        try:
            place = Place(__version__, os.getcwd(), Counter(map(_host, self._client.nthreads())))
            numbers = {
                self._client.submit(_alone, task, job, place, pure=False): number
                for number, job in enumerate(jobs)
            }
        except (OSError, TimeoutError, RuntimeError) as error:
            raise ClusterError(_LOST) from error
        try:
            for future in numbers:
                future.add_done_callback(ended.put)
            while numbers:
                try:
                    future = ended.get(timeout=SECONDS_BETWEEN_LOOKS)
                except Empty:  # now and then, so that Ctrl-C is heard on every system
                    continue
                number = numbers.pop(future)
                if future.status == "finished":
                    yield number, future.result()
                else:
                    yield number, _reason(future)
        finally:
            with suppress(OSError, TimeoutError, RuntimeError):  # it may be gone
                self._client.cancel(list(numbers))


@contextmanager
def connect(address: str, events: EventSink) -> Iterator[Cluster]:
    """The cluster of a scheduler. What is not done yet when the block ends is cancelled.

    Args:
        address: ``tcp://HOST:PORT``, or the file that a scheduler writes (``--scheduler-file``).
            What can't be one is refused immediately.
        events: is informed while there are no workers.

    Raises:
        InputError: distributed is not installed, no scheduler answers there, or a worker there has
            another FewShotSeg or none.
    """
    if find_spec("distributed") is None:
        raise InputError(
            "--dask needs the package distributed, which is not installed. Install it with "
            "pip install distributed."
        )
    from distributed import Client

    _silence()
    place = _scheduler(address)
    try:
        client = Client(place, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, TimeoutError, ImportError, RuntimeError) as error:
        raise InputError(
            f"No Dask scheduler answers at {address}; check the address, and that it is running."
        ) from error
    try:
        try:
            versions = client.run(version_here, on_error="return")
        except (OSError, TimeoutError, RuntimeError) as error:
            raise ClusterError(_LOST) from error
        for worker, found in versions.items():
            if found != __version__:
                raise InputError(
                    f"The worker {worker} has not FewShotSeg {__version__}, but "
                    f"{found if isinstance(found, str) else f'none ({found})'}. Install the same "
                    "on all."
                )
        if not versions:
            message = "The Dask cluster has no workers yet."
            events(make_event("waiting", phase="volumes", message=message))
        several = sum(count > 1 for count in client.nthreads().values())
        if several:
            message = (
                "Workers with several threads are given several pieces and do one at a time: start "
                "them with --nthreads 1, or others may wait for work."
            )
            events(make_event("warning", message=message))
        yield Cluster(client)
    finally:
        with suppress(OSError, TimeoutError, RuntimeError):  # of one that has gone
            client.close()


def _silence() -> None:
    """What matters is said in words. distributed gives loggers below its own a level each."""
    for name in ("distributed", *logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _scheduler(address: str) -> str:
    """The address of a scheduler, as distributed takes it. It is checked here: a client of an
    address that is none can't be closed.

    Raises:
        InputError: it is none, or the file is missing or has none.
    """
    from distributed.comm import get_address_host_port

    place: Any = address
    if os.path.isfile(address) or address.lower().endswith(".json"):
        if not os.path.isfile(address):
            raise InputError(
                f"There is no file {address}; give the one that the scheduler writes "
                "(dask scheduler --scheduler-file FILE)."
            )
        try:
            place = load_json(address, "scheduler file")["address"]
        except (InputError, KeyError, TypeError) as error:
            raise InputError(
                f"{address} is not the file that a Dask scheduler writes; start it with "
                "--scheduler-file, and give that file."
            ) from error
    try:
        host, port = get_address_host_port(place)
        usable = bool(host.strip()) and 0 < int(port) < 2**16
    except (ValueError, TypeError, ImportError):
        usable = False
    if not usable:
        raise InputError(
            f"'{place}' is no address of a Dask scheduler; give one such as tcp://head:8786, or "
            "the file that the scheduler writes."
        )
    return str(place)


def version_here() -> str:
    """Of the FewShotSeg of this process."""
    return __version__


def _alone(task: Task, job: Any, place: Place) -> Any:
    """On a worker: one piece at a time, on its part of the machine's cores."""
    if place.version != __version__:
        raise ClusterError(
            f"A worker has FewShotSeg {__version__}, and not {place.version}. Install the same on "
            "all."
        )
    share = _cores() // max(1, place.peers.get(_own_host(), 1))
    with _ONE, on_threads(max(1, share)), _inside(place.folder):
        try:
            return task(job)
        except FewShotSegError:
            raise
        except Exception as error:  # errors of some libraries can't be sent
            raise in_words(error) from None


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """In the folder that the command was started in.

    Raises:
        ClusterError: it isn't here.
    """
    before = os.getcwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise ClusterError(
            f"A worker has no folder {folder} ({error.strerror}); all machines must see the same "
            "files under the same paths."
        ) from error
    try:
        yield
    finally:
        os.chdir(before)


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _own_host() -> str:
    from distributed import get_worker

    return _host(get_worker().address)


def _host(address: str) -> str:
    """``10.0.0.7`` of ``tcp://10.0.0.7:35001``."""
    return address.rpartition("//")[2].rpartition(":")[0]


def _reason(future: Any) -> FewShotSegError:
    """Why a piece has no result."""
    from distributed import KilledWorker

    if future.status != "error":
        return ClusterError(_LOST)
    error = future.exception()
    if isinstance(error, KilledWorker):
        return ClusterError(
            "Every worker that began with it ended; it may need more memory than workers have."
        )
    return in_words(error)
