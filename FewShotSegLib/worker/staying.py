"""``python -u -m FewShotSegLib.worker --stay DESK [SECONDS]``: one job after another.

The libraries and the foundation model are loaded once. A *desk* is a folder marked as a job's
(``job_folders``): whoever has a job writes its folder's path to the file ``next`` there. Each job
has its own folder, watchdog and end, as if it were alone. After one that did not finish, the
process ends: what was stopped half way is never gone on with. It ends as well when nobody has had
a job for some minutes, when the computer's memory gets short, and when its caller or its desk is
gone.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from ..compute.allocation import return_freed_memory
from ..core.job_folders import owner_of, remove_job_folder
from ..core.job_protocol import IDLE_SECONDS, take_next
from ..core.memory import available_memory, total_memory
from ..core.processes import process_exists
from .event_writer import EventWriter
from .leash import FAILED, LOOK_SECONDS, ORPHANED, Leash
from .process import finishes, prepare_process, private_stdout
from .process_state import ProcessState

POLL_SECONDS = 0.02
"""How often it looks for another job."""
LITTLE = 0.08
"""Part of the computer's memory; where less is left, an idle process makes place."""


def stay(desk: Path, idle_seconds: float = IDLE_SECONDS) -> int:
    """Do the jobs that are put on a desk; returns the exit status."""
    prepare_process()
    watch = DeskWatch(desk.absolute())
    events = EventWriter(private_stdout(), watch.leave)
    watch.start()
    state = ProcessState()
    while True:
        folder = watch.next_folder(idle_seconds)
        if folder is None:
            watch.remove_desk()
            return 0
        leash = Leash(folder, watch.desk)

        def after(leash: Leash = leash) -> None:
            state.restore()
            leash.release()  # from here on the folder is its caller's

        events.begin()
        if not finishes(folder, events, leash, state.keep, after):
            watch.remove_desk()
            leash.remove_folder()
            return FAILED
        watch.idle()
        return_freed_memory()
        load_libraries()


class DeskWatch:
    """Looks for jobs, and whether anybody is there who could have one.

    Args:
        desk: the folder; its owner is the process that is waited for.
    """

    def __init__(self, desk: Path) -> None:
        self.desk, self._folder = desk, desk
        self._parent, self._owner = os.getppid(), owner_of(desk)
        self._removed = False

    def start(self) -> None:
        """Begin to look whether the owner is there."""
        threading.Thread(target=self._look, daemon=True).start()

    def next_folder(self, seconds: float) -> Path | None:
        """The folder of the next job; None where none came for so long, or memory is short."""
        start = checked = time.monotonic()
        while True:
            folder = take_next(self.desk)
            if folder is not None:
                self._folder = folder
                return folder
            now = time.monotonic()
            if now - start > seconds:
                return None
            if now - checked > 1.0:
                checked = now
                if is_memory_short():
                    return None
            time.sleep(POLL_SECONDS)

    def idle(self) -> None:
        """The job is done."""
        self._folder = self.desk

    def remove_desk(self) -> None:
        """No job is taken any more; this is no sign that the owner is gone."""
        self._removed = True
        remove_job_folder(self.desk)

    def leave(self) -> None:
        """Nobody waits any more: leave nothing behind."""
        self._removed = True
        remove_job_folder(self.desk)
        if self._folder != self.desk:
            remove_job_folder(self._folder)
        os._exit(ORPHANED)

    def _look(self) -> None:
        while not self._removed:
            if not self._owner_is_there() and not self._removed:
                self.leave()
            time.sleep(LOOK_SECONDS)

    def _owner_is_there(self) -> bool:
        if os.name == "posix" and os.getppid() != self._parent:
            return False
        if not os.path.isdir(self.desk) or self._owner is None:
            return False
        return process_exists(self._owner.pid) and self._owner.is_there()


def load_libraries() -> None:
    """Load what trainings and segmentations need, while nobody waits."""
    try:
        from .. import pipeline  # noqa: F401
    except Exception:  # the job that needs it says what is missing
        pass


def is_memory_short() -> bool:
    """Whether so little of the computer's memory is left that an idle process is in the way."""
    try:
        return available_memory() < LITTLE * total_memory()
    except Exception:  # psutil refuses, or is not there: nobody knows
        return False
