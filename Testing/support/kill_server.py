"""Runs commands and workers in processes of their own that begin with torch loaded.

It is started by ``test_kills.py``. Each line of its input is a run, as JSON: ``kind`` (``command``
or ``worker``), ``arguments``, and ``out``, the file for its events. It answers with the process id
immediately, and with the exit status (negative: a signal) once it is over.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from prepared_python import load

from FewShotSegLib.cli import command_line as cli
from FewShotSegLib.worker import process as worker


def run(kind: str, arguments: list[str], out: str) -> int:
    """One run, in the new process."""
    os.setpgid(0, 0)
    events = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(events, 1)
    os.dup2(log, 2)
    if kind == "worker":
        return worker.main(Path(arguments[0]))
    try:
        return cli.main(arguments)
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    load()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = run(**json.loads(line))
            finally:
                os._exit(status)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
