"""Servers that mean no good: every address judged, bytes capped, nobody waited for without end."""

from __future__ import annotations

import gzip
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from file_server import FileServer

from FewShotSegLib.models import fetching
from FewShotSegLib.models.fetching import (
    FetchError,
    FetchRefused,
    fetch,
    is_private,
    is_safe,
    remote_size,
)

CONTENT = bytes(range(256)) * 4
Talk = Callable[[socket.socket], None]


class OddServer:
    """Speaks to every caller as it is set: ``talks`` one after the other, then the last again.

    Attributes:
        calls: how many came.
    """

    def __init__(self, test: unittest.TestCase, *talks: Talk) -> None:
        self.talks, self.calls = talks, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/weights.pt"
        test.addCleanup(self.socket.close)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.socket.accept()
            except OSError:
                return
            talk = self.talks[min(self.calls, len(self.talks) - 1)]
            self.calls += 1
            threading.Thread(target=self._speak, args=(caller, talk), daemon=True).start()

    @staticmethod
    def _speak(caller: socket.socket, talk: Talk) -> None:
        with caller:
            try:
                while b"\r\n\r\n" not in caller.recv(4096):
                    pass
                talk(caller)
            except OSError:
                pass  # the caller left


def says(*headers: str, body: bytes = b"", status: str = "200 OK") -> Talk:
    """An answer with these headers."""
    head = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""])
    return lambda caller: caller.sendall(head.encode() + body)


def leads_to(url: str) -> Talk:
    return says(f"Location: {url}", "Content-Length: 0", status="302 Found")


class FetchingTestCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "part"
        for name, value in (("PAUSE_SECONDS", 0.0), ("PIECE", 512), ("PACE_SECONDS", 20)):
            patch = mock.patch.object(fetching, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())

    def assert_refused(
        self, telling: str, url: str, kind: type[FetchError] = FetchRefused, **options: object
    ) -> None:
        with self.assertRaisesRegex(kind, telling) as caught:
            fetch(url, self.path, **options)
        self.assertIs(type(caught.exception), kind)


class AddressTest(FetchingTestCase):
    """Where a download may come from."""

    def test_addresses(self) -> None:
        for url in ("https://example.org/a", "https://example.org:8443/a?b=c", "http://[::1]:80/"):
            self.assertTrue(is_safe(url), url)
        for url in (
            *("http://example.org/a", "file:///etc/passwd", "ftp://example.org/a", "x", ""),
            *("https://", "https://[::1", "https://a:b/", "https://user:word@example.org/a"),
            *("http://127.0.0.1.example.org/", "http://localhost@example.org/", "data:,x"),
        ):
            self.assertFalse(is_safe(url), url)

    def test_private_networks(self) -> None:
        for host in (
            *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
            *("[::1]", "[fd00::1]", "[fe80::1]", "[::ffff:10.0.0.1]", "localhost"),
        ):
            self.assertTrue(is_private(f"https://{host}/a"), host)
        for host in ("8.8.8.8", "[2606:4700::1111]", "name.invalid"):
            self.assertFalse(is_private(f"https://{host}/a"), host)

    def test_every_hop_is_judged_before_it_is_asked(self) -> None:
        for url in (
            *("http://example.invalid/w.pt", "//example.invalid/w.pt", "file:///etc/passwd"),
            *("ftp://example.invalid/w.pt", "data:,weights", "https://a:b@example.invalid/"),
        ):
            second = OddServer(self, leads_to(url))
            server = OddServer(self, leads_to(second.url))
            with self.subTest(url):
                self.assert_refused("an address that is not https", server.url)
                self.assertEqual((server.calls, second.calls), (1, 1))
                self.assertIsNone(remote_size(server.url))
                self.assertEqual(self.left(), [])

    def test_a_hop_from_https_to_this_computer_is_not_taken(self) -> None:
        inside = OddServer(self, says("Content-Length: 4", body=b"data"))
        server = OddServer(self, leads_to(inside.url))
        public = lambda url: url == inside.url  # noqa: E731
        with mock.patch.object(fetching, "is_private", public):
            self.assert_refused("into a private network", server.url)
        self.assertEqual((server.calls, inside.calls), (1, 0))

    def test_a_circle_ends(self) -> None:
        server = OddServer(self, leads_to("/again"))
        self.assert_refused("leads on more than 10 times", server.url)
        self.assertEqual(server.calls, 11)

    def test_a_relative_hop_is_followed(self) -> None:
        answer = says(f"Content-Length: {len(CONTENT)}", body=CONTENT)
        server = OddServer(self, leads_to("../elsewhere?x=1"), answer)
        fetch(server.url, self.path)
        self.assertEqual(self.path.read_bytes(), CONTENT)

    def test_a_cut_line_behind_a_redirection_is_taken_up(self) -> None:
        with FileServer(CONTENT * 8).running() as files:
            files.cuts = [3000]
            server = OddServer(self, leads_to(files.url))
            fetch(server.url, self.path)
            self.assertEqual(self.path.read_bytes(), CONTENT * 8)
            self.assertRegex(files.asked[1], r"bytes=\d{3,}-")


class AmountTest(FetchingTestCase):
    """How much may come."""

    def endless(self, caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):  # 40 MB: far above every limit here
            caller.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")

    def test_an_endless_answer_is_cut_at_the_limit_and_nothing_stays(self) -> None:
        server = OddServer(self, self.endless)
        seen: list[int] = []
        for limit, untold in ((50_000, 2**30), (None, 60_000)):
            with mock.patch.object(fetching, "MAX_UNTOLD_BYTES", untold):
                self.assert_refused(
                    "sends more than the 0 MB",
                    server.url,
                    limit=limit,
                    progress=lambda done, total: seen.append(done),
                )
            self.assertLessEqual(max(seen), 60_000)
            self.assertEqual(self.left(), [])
        self.assertEqual(server.calls, 2)

    def test_more_is_announced_than_there_can_be(self) -> None:
        server = OddServer(self, says("Content-Length: 5000", body=bytes(5000)))
        self.assert_refused("sends more than", server.url, limit=4999)
        with mock.patch.object(fetching, "MAX_BYTES", 4999):
            self.assert_refused("sends more than", server.url)
        self.assertEqual(self.left(), [])
        fetch(server.url, self.path, limit=5000)
        self.assertEqual(self.path.stat().st_size, 5000)

    def test_lengths_that_are_none(self) -> None:
        for length in ("-1", "1e9", "12, 12", "0x10", "٣", "9" * 40):
            server = OddServer(self, says(f"Content-Length: {length}", body=CONTENT))
            with self.subTest(length), self.assertRaises(FetchError):
                fetch(server.url, self.path)
            self.assertEqual(self.left(), [])

    def test_more_than_was_announced_is_not_taken(self) -> None:
        server = OddServer(self, says("Content-Length: 10", body=CONTENT))
        fetch(server.url, self.path)
        self.assertEqual(self.path.read_bytes(), CONTENT[:10])

    def test_less_than_was_announced_is_not_whole(self) -> None:
        server = OddServer(self, says("Content-Length: 10000", body=CONTENT))
        self.assert_refused("the connection was cut", server.url, FetchError)
        self.assertLessEqual(server.calls, fetching.ATTEMPTS + 1)

    def test_what_comes_compressed_is_not_unpacked(self) -> None:
        bomb = gzip.compress(bytes(10**6))
        for coding in ("gzip", "deflate", "br", "identity, gzip"):
            headers = (f"Content-Encoding: {coding}", f"Content-Length: {len(bomb)}")
            server = OddServer(self, says(*headers, body=bomb))
            with self.subTest(coding):
                self.assert_refused("compressed", server.url)
                self.assertEqual((server.calls, self.left()), (1, []))
        server = OddServer(
            self, says("Content-Encoding: identity", "Content-Length: 3", body=b"abc")
        )
        fetch(server.url, self.path)
        self.assertEqual(self.path.read_bytes(), b"abc")

    def test_a_server_that_sends_a_byte_and_hangs_up_is_left(self) -> None:
        server = OddServer(self, says("Content-Length: 1000", body=b"x"))
        self.assert_refused("the connection was cut", server.url, FetchError)
        self.assertLessEqual(server.calls, fetching.ATTEMPTS)


class PaceTest(FetchingTestCase):
    """How long a server is listened to. The limits are shortened, far above a drop's pause."""

    def drip(self, before: bytes) -> Talk:
        gone = threading.Event()
        self.addCleanup(gone.set)

        def talk(caller: socket.socket) -> None:
            caller.sendall(before)
            while not gone.wait(0.05):
                caller.sendall(b"x")

        return talk

    def test_drops_one_by_one_are_not_waited_for(self) -> None:
        for before in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: ",
            b"",
        ):
            server = OddServer(self, self.drip(before))
            with self.subTest(before), mock.patch.object(fetching, "PACE_SECONDS", 2.0):
                self.assert_refused("sends next to nothing", server.url, FetchError)
                self.assertEqual(server.calls, 1)

    def test_a_size_is_not_waited_for_either(self) -> None:
        server = OddServer(self, self.drip(b"HTTP/1.1 200 OK\r\nX: "))
        with mock.patch.object(fetching, "ASK_SECONDS", 0.5):
            self.assertIsNone(remote_size(server.url))

    def test_a_stop_is_noticed_while_nothing_comes(self) -> None:
        gone = threading.Event()
        self.addCleanup(gone.set)
        for head in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"):
            server = OddServer(self, lambda caller, head=head: (caller.sendall(head), gone.wait()))

            def stop(server: OddServer = server) -> None:
                if server.calls:
                    raise KeyboardInterrupt

            with self.subTest(head), self.assertRaises(KeyboardInterrupt):
                fetch(server.url, self.path, check=stop)

    def test_no_thread_stays_once_a_server_has_spoken(self) -> None:
        server = OddServer(self, says(f"Content-Length: {len(CONTENT)}", body=CONTENT))
        fetch(server.url, self.path)
        end = time.monotonic() + 600
        while time.monotonic() < end and any(
            thread.name == "FewShotSeg download" for thread in threading.enumerate()
        ):
            time.sleep(0.01)
        names: Sequence[str] = [thread.name for thread in threading.enumerate()]
        self.assertNotIn("FewShotSeg download", names)


if __name__ == "__main__":
    unittest.main()
