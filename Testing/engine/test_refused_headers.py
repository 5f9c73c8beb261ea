"""Odd headers that are refused in one sentence, and the process that ITK reads in."""

from __future__ import annotations

import subprocess
import sys
import unittest
from collections.abc import Callable
from unittest import mock

import numpy as np
import SimpleITK as sitk
from header_case import INF, NAN, OBLIQUE, VALUES, HeaderTestCase, place
from raw_images import metaimage, nifti, nrrd

from FewShotSegLib.io import image_files, image_process


class RefusedTest(HeaderTestCase):
    def test_nifti(self) -> None:
        affine = place(OBLIQUE)
        for telling, patches in (
            ("no NIfTI signature", {"magic": (344, "4s", b"xxxx")}),
            ("no NIfTI signature", {"magic": (344, "4s", b"\0\0\0\0")}),
            ("half of a NIfTI pair", {"magic": (344, "4s", b"ni1\0")}),
            ("NIfTI-2", {"size": (0, "i", 540)}),
            ("not NIfTI, as its name says", {"size": (0, "i", 349)}),
            ("not numbers", {"a": (280, "f", NAN)}),
            ("not numbers", {"a": (292, "f", INF)}),
            ("not numbers", {"a": (280, "f", INF), "b": (300, "f", -INF)}),
            ("not numbers", {"a": (80, "f", NAN)}),
            ("no usable place", {"a": (280, "f", 1e30)}),
            ("no usable place", {"a": (292, "f", 3e7)}),
            ("would be 1e.06", {"a": (80, "f", 1e6)}),
            ("contradicts itself", {"a": (80, "f", 1.4)}),
            ("contradicts itself", {"a": (80, "f", 0)}),
            ("0 x 5 x 4", {"a": (42, "h", 0)}),
            ("-6 x 5 x 4", {"a": (42, "h", -6)}),
            ("6 x 5 x 4", {"a": (40, "h", 9)}),
            ("type that can't be read", {"a": (70, "h", 1)}),
            ("type that can't be read", {"a": (70, "h", 1536)}),
            ("begin at byte", {"a": (108, "f", 0)}),
            ("begin at byte", {"a": (108, "f", NAN)}),
            ("begin at byte", {"a": (108, "f", -352)}),
            ("begin at byte", {"a": (108, "f", 1e20)}),
            ("fewer voxels", {"a": (108, "f", 4000)}),
            ("scaled by inf", {"a": (112, "f", INF)}),
            ("scaled by 0 and shifted by 5", {"a": (112, "f", 0), "b": (116, "f", 5)}),
            ("scaled by 1 and shifted by nan", {"b": (116, "f", NAN)}),
            ("scaled by 1e-30", {"a": (112, "f", 1e-30)}),
            ("cut short|memory", {"a": (42, "3h", 0)} | {"a": (42, "h", 32767)}),
        ):
            patched = {k: v for k, v in patches.items()}
            for packed in (False, True):
                with self.subTest(telling, **{k: v[2] for k, v in patches.items()}):
                    made = nifti(VALUES, affine, **patched)
                    self.assert_refused(telling, made.packed() if packed else made)

    def test_nifti_qform(self) -> None:
        for telling, patches in (
            ("not numbers", {"a": (256, "f", NAN)}),
            ("not numbers", {"a": (268, "f", INF)}),
            ("no usable place", {"a": (80, "f", 1e6)}),
            ("no usable place", {"a": (80, "f", 1e-30)}),
            ("would be -0.7", {"a": (80, "f", -0.7)}),
            ("longer than 1", {"a": (256, "f", 1.4)}),
            ("a qfac that is not 1", {"a": (76, "f", -0.5)}),
        ):
            with self.subTest(telling, **patches):
                self.assert_refused(telling, nifti(VALUES, place(), forms="q", **patches))

    def test_nifti_without_axes_of_its_own(self) -> None:
        singular = place()
        singular[:3, 1] = singular[:3, 0]
        self.assert_refused("singular", nifti(VALUES, singular))
        self.assert_refused("singular", nifti(VALUES, np.diag([1.0, 1.0, 0.0, 1.0])))

    def test_nrrd(self) -> None:
        affine = place(OBLIQUE)
        for telling, fields in (
            ("not numbers", {"space_origin": "(nan,0,0)"}),
            ("not numbers", {"space_origin": "(nan,nan,nan)"}),
            ("not numbers", {"space_directions": "(inf,0,0) (0,1,0) (0,0,1)"}),
            ("singular", {"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}),
            ("singular", {"space_directions": "(1e-300,0,0) (0,1,0) (0,0,1)"}),
            ("1e.06", {"space_directions": "(1e6,0,0) (0,1,0) (0,0,1)"}),
            ("1e.300|singular", {"space_directions": "(1e300,0,0) (0,1,0) (0,0,1)"}),
            ("begin at", {"space_origin": "(1e9,0,0)"}),
            ("for 'space directions'", {"space_directions": "(1,0,0) (0,1,0)"}),
            ("for 'space origin'", {"space_origin": "1 2 3"}),
            ("17-dimensional", {"dimension": "17", "sizes": "1 " * 17}),
            ("for 'sizes'", {"sizes": "-6 5 4"}),
            ("for 'sizes'", {"sizes": "6 5"}),
            ("for 'sizes'", {"sizes": "99999999999 5 4"}),
            ("does not fit in this computer's memory", {"sizes": "100000 100000 100000"}),
            ("fewer voxels", {"sizes": "7 5 4"}),
            ("fewer voxels", {"byte_skip": "100"}),
            ("for 'byte skip'", {"byte_skip": "-2"}),
            ("the type 'block'", {"type": "block"}),
            ("none of NRRD's", {"encoding": "rot13"}),
            ("'endian'", {"endian": None}),
            ("no 'sizes'", {"sizes": None}),
            ("measured in 'm'", {"space_units": '"m" "m" "m"'}),
            ("measured in 'um'", {"space_units": '"um" "um" "um"'}),
            ("is not there", {"data_file": "/dev/zero"}),
            ("is not there", {"data_file": "gone.raw"}),
        ):
            with self.subTest(telling, **fields):
                self.assert_refused(telling, nrrd(VALUES, affine, **fields))
        self.assert_refused("'dimension' twice", nrrd(VALUES, affine, extra="dimension: 3\n"))
        packed = nrrd(VALUES, affine, stored="gzip", sizes="6000 5000 40")
        self.assert_refused("fewer voxels", packed)

    def test_metaimage(self) -> None:
        affine = place(OBLIQUE)
        for telling, fields in (
            ("11-dimensional", {"NDims": "11"}),
            ("100-dimensional", {"NDims": "100", "DimSize": "1 " * 100}),
            ("for 'NDims'", {"NDims": "-1"}),
            ("for 'NDims'", {"NDims": "nan"}),
            ("for 'Offset'", {"Offset": "nan 0 0"}),
            ("for 'Offset'", {"Offset": "0 0"}),
            ("begin at", {"Offset": "1e9 0 0"}),
            ("for 'ElementSpacing'", {"ElementSpacing": "inf 1 1"}),
            ("singular", {"ElementSpacing": "1e-300 1 1"}),
            ("would be", {"ElementSpacing": "1e-9 1 1"}),
            ("would be", {"ElementSpacing": "1e6 1 1"}),
            ("would be", {"ElementSpacing": "0 1 1"}),
            ("would be", {"ElementSpacing": "-1 1 1"}),
            ("for 'TransformMatrix'", {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"}),
            ("singular", {"TransformMatrix": "1 0 0 1 0 0 0 0 1"}),
            ("not of length 1", {"TransformMatrix": "2 0 0 0 1 0 0 0 1"}),
            ("for 'DimSize'", {"DimSize": "-6 5 4"}),
            ("memory", {"DimSize": "100000 100000 100000"}),
            ("fewer voxels", {"DimSize": "7 5 4"}),
            ("fewer voxels", {"HeaderSize": "10"}),
            ("the type 'MET_STRING'", {"ElementType": "MET_STRING"}),
            ("'ElementNumberOfChannels'", {"ElementNumberOfChannels": "0"}),
            ("for 'BinaryData'", {"BinaryData": "perhaps"}),
            ("not an image", {"ObjectType": "Tube"}),
            ("is not there", {"ElementDataFile": "gone.raw"}),
            ("is not there", {"ElementDataFile": "/dev/zero"}),
            ("no 'DimSize'", {"DimSize": None}),
            ("not MetaImage, as its name says", {"ElementDataFile": None}),
        ):
            with self.subTest(telling, **fields):
                self.assert_refused(telling, metaimage(VALUES, affine, **fields))


class ApartTest(HeaderTestCase):
    """The process that ITK reads in where it might crash."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.write(metaimage(VALUES, place(OBLIQUE), Site="seven"))

    def child(self, program: str) -> Callable[..., subprocess.Popen]:
        """In place of the child's program, another."""
        real = subprocess.Popen

        def start(command: list[str], **kwargs) -> subprocess.Popen:
            self.started = real([sys.executable, "-c", program], **kwargs)
            return self.started

        return mock.patch.object(image_process.subprocess, "Popen", start)

    def test_metadata_and_values_come_through(self) -> None:
        apart, said = image_process.read_apart("file", self.path)
        here = image_files.read_file_here(self.path)
        self.assertEqual(said, {})
        self.assertEqual(apart.GetMetaData("Site"), "seven")
        self.assertEqual(apart.GetPixelID(), here.GetPixelID())
        np.testing.assert_array_equal(*map(sitk.GetArrayViewFromImage, (apart, here)))
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            self.assertEqual(getattr(apart, get)(), getattr(here, get)())

    def test_a_crash_costs_a_sentence(self) -> None:
        for program in (
            "import os; os.abort()",
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            'import sys; print(\'{"shape": [9, 9, 9], "dtype": "<i2"}\'); sys.exit(3)',
            "raise SystemExit(3)",
        ):
            if sys.platform == "win32" and "kill" in program:
                continue
            with self.subTest(program), self.child(program):
                self.assert_refused("reader crashed on it", self.path)

    def test_too_long_costs_a_sentence_and_the_child_is_gone(self) -> None:
        with mock.patch.multiple(image_process, SECONDS=1.0, GRACE=0.0):
            with self.child("import time; time.sleep(600)"):
                self.assert_refused("has not come to an end", self.path)
        self.assertIsNotNone(self.started.poll())

    @unittest.skipUnless(sys.platform == "linux", "signals")
    def test_a_child_that_nobody_waits_for_ends_by_itself(self) -> None:
        program = (
            "import re, sys\n"
            "from FewShotSegLib.io import image_child, image_files\n"
            "image_files.read_file_here = lambda path: re.match('(a*)*b', 'a' * 60)\n"
            "image_child.main('file', '2', sys.argv[1])\n"
        )  # in C, which holds Python up
        ended = subprocess.run(
            [sys.executable, "-c", program, str(self.path)],
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.assertEqual((ended.stdout, ended.stderr), (b"", b""))  # no traceback, which ends in 1
        self.assertEqual(ended.returncode, image_process.LATE)


if __name__ == "__main__":
    unittest.main()
