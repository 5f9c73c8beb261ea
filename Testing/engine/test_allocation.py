"""Freed memory is kept, measured by the pages that the kernel has to hand out anew."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import unittest
from unittest import mock

from FewShotSegLib.compute import allocation

SIZE, ROUNDS = 64 * 2**20, 8
PROGRAM = f"""
import ctypes, resource, sys
from FewShotSegLib.compute.allocation import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
counts = []
for _ in range({ROUNDS}):
    before = faults()
    block = ctypes.c_void_p(libc.malloc({SIZE}))
    ctypes.memset(block, 1, {SIZE})
    libc.free(block)
    counts.append(faults() - before)
print(kept, min(counts[1:]), max(counts[1:]))
"""


def has_the_setting() -> bool:
    """Whether this is glibc 2.35 or newer."""
    library, version = platform.libc_ver()
    return library == "glibc" and [int(n) for n in re.findall(r"\d+", version)[:2]] >= [2, 35]


@unittest.skipUnless(has_the_setting(), "only glibc from 2.35 on has the setting")
class KeepFreedMemory(unittest.TestCase):
    """In processes of their own: the setting holds until the end of one."""

    def faults(self, how: str) -> tuple[str, int, int]:
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        kept, least, most = run.stdout.split()
        return kept, int(least), int(most)

    def test_a_block_that_was_freed_is_used_again(self) -> None:
        kept, _, most = self.faults("kept")
        self.assertEqual(kept, "True")
        self.assertLess(most, 100)

    def test_without_it_every_block_is_new(self) -> None:
        """Otherwise the test above could not fail."""
        _, least, _ = self.faults("as it comes")
        self.assertGreater(least, 100)


class Elsewhere(unittest.TestCase):
    """Systems without the setting are left as they are."""

    def test_a_library_without_it(self) -> None:
        for error in (AttributeError("no mallopt"), TypeError("no name"), OSError("no library")):
            with mock.patch.object(allocation.ctypes, "CDLL", side_effect=error):
                self.assertFalse(allocation.keep_freed_memory())


if __name__ == "__main__":
    unittest.main()
