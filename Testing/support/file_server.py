"""A server on this computer for one file, with the habits of real ones: ranges, tags, cut lines."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MOST_REQUESTS = 30
"""Whoever asks more often than any test should is refused for good."""


class FileServer:
    """Serves ``content`` at ``url``.

    Attributes:
        cuts: after how many bytes each next answer breaks off; beyond them answers are whole.
        ranges: whether it can go on in the middle. tag: its ETag, empty for none.
        statuses: what each next request is answered with instead.
        asked: of each GET, its Range header, None where there was none. heads: how many HEADs came.
        head_status: what HEAD is answered with. tells_size: whether answers have a Content-Length.
        redirect: where it sends everybody.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.ranges, self.tag, self.redirect = True, '"one"', ""
        self.asked: list[str | None] = []
        self.heads, self.head_status, self.tells_size = 0, 200, True
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FileServer]:
        """While it answers."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def do_HEAD(self) -> None:
                outer._answer_head(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _answer_head(self, request: BaseHTTPRequestHandler) -> None:
        self.heads += 1
        request.close_connection = True
        request.send_response(302 if self.redirect else self.head_status)
        if self.redirect:
            request.send_header("Location", self.redirect)
        if self.tells_size:
            request.send_header("Content-Length", str(len(self.content)))
        request.end_headers()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        request.close_connection = True
        if len(self.asked) > MOST_REQUESTS or self.statuses or self.redirect:
            status = self.statuses.pop(0) if self.statuses else 302 if self.redirect else 404
            request.send_response(status)
            if self.redirect:
                request.send_header("Location", self.redirect)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        same = request.headers.get("If-Range") == self.tag
        if wanted and self.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            last = len(self.content) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        if self.tag:
            request.send_header("ETag", self.tag)
        if self.tells_size:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked wanted the headers alone
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
