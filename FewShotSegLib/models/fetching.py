"""A file over the network, going on where an interrupted transfer ended.

requests brings certificates and proxies; it ships with Slicer. The light download libraries (pooch,
torch.hub, MONAI) throw half a file away and follow redirections anywhere, so the few lines that ask
for the rest of a file, and look at every address first, are here.

A server is not trusted: every address on the way is https (or this computer's own), a public one
never leads into a private network, nothing comes compressed, bytes are capped while they come, and
a server that only drips is left. What is fetched is judged by its checksum, elsewhere.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

PIECE = 2**16
TIMEOUT_SECONDS = 30
"""Without a byte."""
PACE_SECONDS = 60
"""A server that hasn't sent its headers, or the next :data:`PIECE`, within this time is left."""
ASK_SECONDS = 10
"""For a size alone, which is not worth a long wait."""
ATTEMPTS = 5
"""Attempts in a row that bring nothing before it gives up; two if nothing ever came."""
PAUSE_SECONDS = 2.0
MAX_HOPS = 10
MAX_BYTES = 2**34
"""Of a file whose size a server tells; the largest published weights have 2^30."""
MAX_UNTOLD_BYTES = 2**30
"""Of one whose size nobody tells before it has all come."""
HERE = ("127.0.0.1", "::1", "localhost")
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may well answer otherwise a moment later."""
LEADING_ON = (301, 302, 303, 307, 308)

HOPELESS = (
    requests.exceptions.SSLError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
)
_HEADERS = {"User-Agent": "FewShotSeg", "Accept-Encoding": "identity"}
_WAKE_SECONDS = 0.1
Progress = Callable[[int, int | None], None]


class FetchError(Exception):
    """It can't be fetched; the message is part of a sentence."""


class FetchRefused(FetchError):
    """It is not taken, and to try again would not mend that."""


def is_safe(url: str) -> bool:
    """Whether nobody on the way can change what comes: https, or this computer itself."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is none
    except ValueError:
        return False
    if parts.username is not None or parts.password is not None or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in HERE)


def is_private(url: str) -> bool:
    """Whether an address is of this computer or a private network, as far as can be known here.

    A name that only a proxy can look up counts as public; so does one whose certificate then has to
    be right.
    """
    host = urlsplit(url).hostname or ""
    try:
        found = [ipaddress.ip_address(host.split("%")[0])]
    except ValueError:
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return False
        found = [ipaddress.ip_address(str(item[4][0]).split("%")[0]) for item in answers]
    return any(not address.is_global for address in found)


def remote_size(url: str) -> int | None:
    """How many bytes are at ``url``, asked of its server in one breath; None where it won't tell.

    Only headers are read. Where HEAD is refused, as behind signed addresses, a request for the file
    is broken off once its headers are there.
    """
    for method in ("HEAD", "GET"):
        try:
            with _answer(method, url, _HEADERS, ASK_SECONDS, lambda: None) as (response, _):
                length = _length(response)
                if response.status_code == 200 and length is not None:
                    return length or None
        except (requests.RequestException, FetchError):
            return None  # the download itself says what is wrong
    return None


def fetch(
    url: str,
    path: Path,
    progress: Progress = lambda done, total: None,
    check: Callable[[], None] = lambda: None,
    limit: int | None = None,
) -> None:
    """Fetch ``url`` to ``path``; what is there already is its beginning, from an earlier attempt.

    Where the server says that the file has changed since, or can't go on in the middle, it begins
    anew. ``path`` with ``.tag`` appended keeps what tells, until the caller removes both.

    Args:
        progress: bytes that are there, and in all (None where the server doesn't say).
        check: called for every piece, and ten times a second while none comes; raises to stop.
            What has come stays.
        limit: bytes that the file has at most; more is refused, and what has come of it removed.

    Raises:
        FetchError: the server refuses, sends too much or too slowly, leads somewhere that is not
            safe, or can't be reached after several attempts.
        OSError: the disk is full.
    """
    failures, at_first, reason = 0, _size(path), ""
    while True:
        before = _size(path)
        try:
            if _fetch_rest(url, path, progress, check, limit):
                return
            reason = "the connection was cut"
        except HOPELESS as error:
            raise FetchError(_plain(error)) from error
        except requests.RequestException as error:
            reason = _plain(error)
        # Bytes one by one are no progress: a server could go on like that for ever.
        failures = 1 if _size(path) >= before + PIECE else failures + 1
        if failures >= (ATTEMPTS if _size(path) > at_first else 2):
            raise FetchError(reason)
        for _ in range(10):
            check()
            time.sleep(PAUSE_SECONDS * failures / 10)


def _fetch_rest(
    url: str,
    path: Path,
    progress: Progress,
    check: Callable[[], None],
    limit: int | None,
) -> bool:
    """One request; whether the file is whole then."""
    check()
    have, tag = _size(path), _read_tag(path, url)
    headers = dict(_HEADERS)
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with _answer("GET", url, headers, PACE_SECONDS, check) as (response, pieces):
        if response.status_code == 416:  # nothing follows: it is whole, or another file now
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return True
            path.unlink()
            return False
        if response.status_code in PASSING:
            raise requests.ConnectionError(f"the server answers {response.status_code}")
        if response.status_code not in (200, 206):
            raise FetchError(f"the server answers {response.status_code} {_text(response.reason)}")
        goes_on = response.status_code == 206
        if goes_on and _first_byte(response) != have:
            path.unlink(missing_ok=True)
            return False
        have = have if goes_on else 0
        length = _length(response)
        total = have + length if length is not None else None
        most = limit or (MAX_BYTES if total is not None else MAX_UNTOLD_BYTES)
        if total is not None and total > most:
            raise _too_much(path, most)
        _write_tag(path, url, response)
        progress(have, total)
        with open(path, "ab" if goes_on else "wb") as file:
            if total:
                _require_space(path, total - have)
            for piece in pieces:
                have += len(piece)
                if have > most:
                    raise _too_much(path, most)
                file.write(piece)
                progress(have, total)
                check()
            file.flush()
            os.fsync(file.fileno())
    return total is None or have == total


def _too_much(path: Path, most: int) -> FetchRefused:
    for file in (path, _tag_path(path)):
        file.unlink(missing_ok=True)
    return FetchRefused(
        f"the server sends more than the {most / 1e6:.0f} MB that it can be at most"
    )


@dataclass
class _Sent:
    """What the thread that listens to a server hands on: the answer, pieces, the end."""

    response: requests.Response | None = None
    piece: bytes = b""
    error: Exception | None = None


class _Line:
    """What lies between the thread that listens to a server and the one that takes its answer.

    Args:
        seconds: within which each piece has to come. check: called often by who takes; may raise.

    Attributes:
        left: set once nobody takes anything any more.
    """

    def __init__(self, seconds: float, check: Callable[[], None]) -> None:
        self.seconds, self.check = seconds, check
        self.left = threading.Event()
        self._sent: queue.Queue[_Sent] = queue.Queue(maxsize=8)

    def listen(self, method: str, url: str, headers: dict[str, str]) -> None:
        """Hand on an answer, its pieces and its end, or why there is none; in its own thread."""
        try:
            with requests.Session() as session:
                timeout = min(self.seconds, TIMEOUT_SECONDS)
                with _last_hop(session, method, url, headers, timeout, self.left) as response:
                    self._hand_on(_Sent(response))
                    for piece in response.iter_content(PIECE) if method == "GET" else ():
                        if self.left.is_set():
                            return
                        self._hand_on(_Sent(piece=piece))
            self._hand_on(_Sent())
        except Exception as error:
            self._hand_on(_Sent(error=error))

    def _hand_on(self, item: _Sent) -> None:
        while not self.left.is_set():
            try:
                return self._sent.put(item, timeout=_WAKE_SECONDS)
            except queue.Full:
                continue

    def take(self) -> _Sent:
        """What comes next.

        Raises:
            FetchError: nothing came in time; or whatever went wrong in the listening thread.
        """
        end = time.monotonic() + self.seconds
        while True:
            self.check()
            try:
                item = self._sent.get(timeout=_WAKE_SECONDS)
            except queue.Empty:
                if time.monotonic() > end:
                    raise FetchError("it sends next to nothing") from None
                continue
            if item.error is not None:
                raise item.error
            return item


@contextmanager
def _answer(
    method: str, url: str, headers: dict[str, str], seconds: float, check: Callable[[], None]
) -> Iterator[tuple[requests.Response, Iterator[bytes]]]:
    """A server's answer after all redirections, and its body in pieces, while it keeps pace.

    The network is listened to in a thread of its own. So a stop is noticed immediately, and a time
    limit holds for a whole answer or piece; sockets know one for each byte alone.

    Args:
        seconds: within which headers, and then each piece, have to come.
    """
    line = _Line(seconds, check)
    listen = partial(line.listen, method, url, headers)

    def pieces() -> Iterator[bytes]:
        while piece := line.take().piece:
            yield piece

    threading.Thread(target=listen, name="FewShotSeg download", daemon=True).start()
    try:
        first = line.take()
        if first.response is None:
            raise FetchError("it does not answer")
        yield first.response, pieces()
    finally:
        line.left.set()


def _last_hop(
    session: requests.Session,
    method: str,
    url: str,
    headers: dict[str, str],
    timeout: float,
    left: threading.Event,
) -> requests.Response:
    """The answer of the last address that redirections lead to; each is judged before it is asked.

    Raises:
        FetchError: one is not safe, a public one leads into a private network, or there are too
            many.
    """
    first = url
    for _ in range(MAX_HOPS + 1):
        if not is_safe(url):
            raise FetchRefused("it leads to an address that is not https")
        if url != first and is_private(url) and not is_private(first):
            raise FetchRefused("it leads from a public address into a private network")
        response: Any = session.request(
            method, url, headers=headers, stream=True, timeout=timeout, allow_redirects=False
        )
        where = response.headers.get("Location")
        if response.status_code not in LEADING_ON or not where or left.is_set():
            coding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if coding != "identity" and method == "GET":  # a few bytes of which can fill a disk
                response.close()
                raise FetchRefused("the server sends it compressed, which it was asked not to")
            return response
        response.close()
        try:
            url = urljoin(url, where)
        except ValueError:
            raise FetchRefused("it leads to an address that is none") from None
    raise FetchRefused(f"it leads on more than {MAX_HOPS} times")


def _length(response: requests.Response) -> int | None:
    """The announced length in bytes; None where there is none."""
    text = response.headers.get("Content-Length")
    if text is None or "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text.strip()):
        raise FetchRefused("the server announces a length that is no number")
    return int(text)


def _text(reason: object) -> str:
    """What a server calls its answer: a few plain words."""
    return re.sub(r"[^ -~]", "?", str(reason))[:60]


def _require_space(path: Path, needed: int) -> None:
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _first_byte(response: requests.Response) -> int:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.tag")


def _read_tag(path: Path, url: str) -> str:
    """What the server called the file of which a part is here; empty if nothing tells."""
    try:
        known, tag = _tag_path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    return tag if known == url else ""


def _write_tag(path: Path, url: str, response: requests.Response) -> None:
    tag = response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):  # a weak one promises no equal bytes
        tag = response.headers.get("Last-Modified", "")
    _tag_path(path).write_text(f"{url}\n{tag}\n", encoding="utf-8")


def _plain(error: requests.RequestException) -> str:
    """A reason without addresses of objects and stacked exceptions."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.Timeout):
        return "it does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut"
    if isinstance(error, requests.ConnectionError) and "the server answers" in str(error):
        return str(error)
    if isinstance(error, requests.ConnectionError):
        return "there is no connection"
    return type(error).__name__
