"""A file over the network, going on where an interrupted transfer ended.

requests brings certificates, proxies and redirects; it ships with Slicer. The light download
libraries (pooch, torch.hub, MONAI) throw half a file away, so the few lines that ask for the rest
of one are here.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests

PIECE = 2**18
TIMEOUT_SECONDS = 30
ASK_SECONDS = 10
"""For a size alone, which is not worth a long wait."""
ATTEMPTS = 5
"""Attempts in a row that bring nothing before it gives up; two if nothing ever came."""
PAUSE_SECONDS = 2.0
HERE = ("127.0.0.1", "::1", "localhost")
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may well answer otherwise a moment later."""

HOPELESS = (
    requests.exceptions.SSLError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.TooManyRedirects,
)
_HEADERS = {"User-Agent": "FewShotSeg", "Accept-Encoding": "identity"}
Progress = Callable[[int, int | None], None]


class FetchError(Exception):
    """It can't be fetched; the message is part of a sentence."""


def is_safe(url: str) -> bool:
    """Whether nobody on the way can change what comes: https, or this computer itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in HERE)


def remote_size(url: str) -> int | None:
    """How many bytes are at ``url``, asked of its server in one breath; None where it won't tell.

    Only headers are read. Where HEAD is refused, as behind signed addresses, a request for the file
    is broken off once its headers are there.
    """
    with requests.Session() as session:
        for ask in (session.head, session.get):
            try:
                with ask(
                    url,
                    headers=_HEADERS,
                    stream=True,
                    timeout=ASK_SECONDS,
                    allow_redirects=True,
                ) as response:
                    length = response.headers.get("Content-Length", "")
                    if not is_safe(response.url):
                        return None
                    if response.status_code == 200 and length.isdigit():
                        return int(length) or None
            except requests.RequestException:
                return None  # the download itself says what is wrong
    return None


def fetch(
    url: str,
    path: Path,
    progress: Progress = lambda done, total: None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetch ``url`` to ``path``; what is there already is its beginning, from an earlier attempt.

    Where the server says that the file has changed since, or can't go on in the middle, it begins
    anew. ``path`` with ``.tag`` appended keeps what tells, until the caller removes both.

    Args:
        progress: bytes that are there, and in all (None where the server doesn't say).
        check: called for every piece; raises to stop. What has come stays.

    Raises:
        FetchError: the server refuses, or can't be reached after several attempts.
        OSError: the disk is full.
    """
    failures, at_first, reason = 0, _size(path), ""
    while True:
        before = _size(path)
        try:
            with requests.Session() as session:
                if _fetch_rest(session, url, path, progress, check):
                    return
            reason = "the connection was cut"
        except HOPELESS as error:
            raise FetchError(_plain(error)) from error
        except requests.RequestException as error:
            reason = _plain(error)
        failures = 1 if _size(path) > before else failures + 1
        if failures >= (ATTEMPTS if _size(path) > at_first else 2):
            raise FetchError(reason)
        for _ in range(10):
            check()
            time.sleep(PAUSE_SECONDS * failures / 10)


def _fetch_rest(
    session: requests.Session,
    url: str,
    path: Path,
    progress: Progress,
    check: Callable[[], None],
) -> bool:
    """One request; whether the file is whole then."""
    check()
    have, tag = _size(path), _read_tag(path, url)
    headers = dict(_HEADERS)
    if have and tag:
        headers |= {"Range": f"bytes={have}-", "If-Range": tag}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if not is_safe(response.url):
            raise FetchError("it leads to an address that is not https")
        if response.status_code == 416:  # nothing follows: it is whole, or another file now
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return True
            path.unlink()
            return False
        if response.status_code in PASSING:
            raise requests.ConnectionError(f"the server answers {response.status_code}")
        if response.status_code not in (200, 206):
            raise FetchError(f"the server answers {response.status_code} {response.reason}")
        goes_on = response.status_code == 206
        if goes_on and _first_byte(response) != have:
            path.unlink(missing_ok=True)
            return False
        have = have if goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        _write_tag(path, url, response)
        progress(have, total)
        with open(path, "ab" if goes_on else "wb") as file:
            if total:
                _require_room(path, total - have)
            for piece in response.iter_content(PIECE):
                file.write(piece)
                have += len(piece)
                progress(have, total)
                check()
    if total is not None and have > total:
        raise FetchError("the server sends more than it announced")
    return total is None or have == total


def _require_room(path: Path, needed: int) -> None:
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
