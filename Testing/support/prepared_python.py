"""A Python that has torch and the engine loaded already, for tests that start many processes.

``program()`` is the path of an executable that is used like ``sys.executable``: ``-u``, ``-m
MODULE`` or a script, and arguments. What it runs is forked from a server that has imported the
engine and what it needs, which saves the seconds that each new interpreter takes for that. The
process has its own environment, folder, streams, exit status and signals; whoever kills the
program kills it. Where the engine of this checkout is not what is asked for (another
``PYTHONPATH``, another folder with an engine), a new interpreter is started all the same.

Some tests start a real interpreter nevertheless: that starting works is tested as well.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
POSSIBLE = os.name == "posix" and hasattr(socket, "send_fds")
LOADED = (
    "FewShotSegLib.cli.command_line",
    "FewShotSegLib.cli.progress",
    "FewShotSegLib.methods.adapters.spatial",
    "FewShotSegLib.models.backbones.dynamic_unet",
    "FewShotSegLib.pipeline",
    "FewShotSegLib.phantoms.patients",
    "FewShotSegLib.worker.jobs",
    "FewShotSegLib.worker.process",
    "monai.losses",
    "monai.metrics",
    "SimpleITK",
)
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
own = socket.socket(socket.AF_UNIX)
try:
    own.connect({address!r})
except OSError:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
text = json.dumps(request).encode()
socket.send_fds(own, [len(text).to_bytes(8, "big")], [0, 1, 2])
own.sendall(text)
answers = own.makefile()
pid = int(answers.readline())
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@functools.cache
def program() -> str:
    """The executable, and its server started; ``sys.executable`` where there is no fork."""
    if not POSSIBLE:
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="prepared-python-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address = str(folder / "socket")
    path = folder / "python"
    path.write_text(CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    path.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, __file__, address],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_stop, server, os.getpid())
    server.stdout.read(1)  # it listens
    return str(path)


def _stop(server: subprocess.Popen, owner: int) -> None:
    if os.getpid() == owner:
        server.stdin.close()
        server.wait(60)
        server.stdout.close()


# --- the server


@dataclass
class Request:
    """What is to be run, and by whom it is awaited."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]


def serve(address: str) -> Request | None:
    """Fork a process for each request: it returns in each of them, and at the end with None."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    os.write(1, b"\n")
    waiting: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for source in (listener, woken, 0):
            selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == 0:  # the tests are over, or were killed
                    for pid in waiting:
                        os.kill(pid, signal.SIGKILL)
                    return None
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    _tell_ends(waiting, selector)
                elif key.fileobj is listener:
                    client = listener.accept()[0]
                    request, streams = _receive(client)
                    pid = os.fork()
                    if not pid:
                        _be_new(streams, (listener, woken, wake, client, *waiting.values()))
                        return request
                    for stream in streams:
                        os.close(stream)
                    waiting[pid] = client
                    with contextlib.suppress(OSError):
                        client.sendall(b"%d\n" % pid)
                    selector.register(client, selectors.EVENT_READ)
                elif key.fileobj in waiting.values():  # the client was killed
                    (pid,) = [p for p, client in waiting.items() if client is key.fileobj]
                    selector.unregister(key.fileobj)
                    os.kill(pid, signal.SIGKILL)


def _be_new(streams: list[int], sockets: Iterable[socket.socket]) -> None:
    """In a forked process: nothing of the server, and the streams of who asked."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for opened in sockets:
        opened.close()
    os.closerange(3, 256)


def _receive(client: socket.socket) -> tuple[Request, list[int]]:
    size, streams, *_ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as stream:
        return Request(**json.loads(stream.read(int.from_bytes(size, "big")))), streams


def _tell_ends(waiting: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    for pid in list(waiting):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            client = waiting.pop(pid)
            with contextlib.suppress(OSError):
                client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            with contextlib.suppress(KeyError):
                selector.unregister(client)
            client.close()


def run(request: Request) -> None:
    """Be the interpreter that was asked for, in the new process."""
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    if _needs_another(request):
        os.execve(sys.executable, [sys.executable, *request.arguments], request.environment)
    for number, name in ((1, "stdout"), (2, "stderr")):
        binary = open(number, "wb", buffering=0, closefd=False)
        errors = "strict" if number == 1 else "backslashreplace"
        stream = io.TextIOWrapper(binary, "utf-8", errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    arguments = [text for text in request.arguments if text != "-u"]
    if arguments[0] == "-m":
        sys.path[0], sys.argv = request.folder, arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0], sys.argv = str(Path(arguments[0]).parent), arguments
        runpy.run_path(arguments[0], run_name="__main__")


def _needs_another(request: Request) -> bool:
    """Whether it may be about other modules than those that are loaded."""
    path = request.environment.get("PYTHONPATH", "").split(os.pathsep)
    others = [text for text in path if text and not (Path(text) / "FewShotSegLib").is_dir()]
    engines = [Path(text) for text in (*path, *request.arguments) if text]
    engines = [engine for engine in engines if (engine / "FewShotSegLib").is_dir()]
    options = [text for text in request.arguments[:2] if text.startswith("-")]
    return (
        bool(others)
        or any(engine.resolve() != ROOT for engine in engines)
        or not set(options) <= {"-u", "-m"}
    )


def load() -> None:
    """Load what commands and jobs need, for processes that are forked from now on."""
    for name in LOADED:
        importlib.import_module(name)
    import torch

    weights = torch.nn.Parameter(torch.zeros(1))  # the first step of an optimiser loads as much
    weights.grad = torch.ones(1)
    torch.optim.AdamW([weights]).step()
    gc.collect()
    gc.freeze()  # what is shared with the forked processes stays shared


def main() -> None:
    """Load, serve, and in a forked process run."""
    load()
    request = serve(sys.argv[1])
    if request is None:
        return
    status = 1
    try:
        run(request)
        status = 0
    except SystemExit as end:
        status = _status(end)
    except BaseException:
        traceback.print_exc()
    # What the interpreter's end does but for taking everything apart, which takes a second.
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
