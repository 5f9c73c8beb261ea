"""Odd headers that are legitimate, and odd names: read right."""

from __future__ import annotations

import os
import struct
import sys
import unittest

import numpy as np
from header_case import INF, NAN, OBLIQUE, TURNS, VALUES, HeaderTestCase, place
from raw_images import TO_LPS, metaimage, more_axes, nifti, nrrd

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.io.volumes import read_image


class LegitimateTest(HeaderTestCase):
    """Each read in this process or apart, as ``understood`` says."""

    def test_every_format_every_way_round(self) -> None:
        for name, turn in TURNS.items():
            for order in "<>":
                affine = place(turn)
                for made in (
                    *(nifti(VALUES, affine, order=order, forms=f) for f in ("s", "q", "sq")),
                    nifti(VALUES, affine, order=order).packed(),
                    *(nrrd(VALUES, affine, order=order, space=s) for s in ("RAS",)),
                    nrrd(VALUES, affine, order=order, space="left-anterior-superior"),
                    nrrd(VALUES, affine, order=order, stored="gzip", detached=True),
                    metaimage(VALUES, affine, order=order),
                    metaimage(VALUES, affine, order=order, compressed=True, detached=True),
                ):
                    with self.subTest(name, order=order, file=next(iter(made.files))):
                        self.assert_right(made, understood=True)

    def test_nifti(self) -> None:
        affine = place(OBLIQUE)
        sheared = affine.copy()
        sheared[:3, 0] += 0.3 * sheared[:3, 1]
        good_qform = nifti(VALUES, affine, forms="sq")
        bent = nifti(VALUES, sheared, forms="s").files["x.nii"][280:328]
        data = good_qform.files["x.nii"]
        good_qform.files["x.nii"] = data[:280] + bent + data[328:]
        nothing = {"a": (280, "f", NAN), "b": (256, "f", INF)}
        for name, made in {
            "four axes": nifti(VALUES, affine, **more_axes(1)),
            "seven axes": nifti(VALUES, affine, **more_axes(4)),
            "doubles": nifti(VALUES / 8, affine),
            "scaled": nifti(VALUES, affine, slope=(2.5, -1000.0)),
            "a slope of 0": nifti(VALUES, affine, slope=(0.0, 0.0)),
            "a slope that is NaN": nifti(VALUES, affine, slope=(NAN, NAN)),
            "metres": nifti(VALUES, affine, unit=1),
            "micrometres, q": nifti(VALUES, affine, unit=3, forms="q"),
            "no unit": nifti(VALUES, affine, unit=0),
            "a gap": nifti(VALUES, affine, gap=64),
            "neither form": nifti(VALUES, affine, forms=""),
            "numbers that are not numbers where no form is": nifti(
                VALUES, affine, forms="", **nothing
            ),
            "a sheared sform and a good qform": good_qform,
            "spacings that nearly agree": nifti(
                VALUES, affine, forms="s", near=(80, "f", 0.7 * (1 + 1e-5))
            ),
        }.items():
            with self.subTest(name):
                made.values = made.values.astype(np.float64)
                self.assert_right(made, understood=True)
        extended = nifti(VALUES, affine, gap=32)
        data = bytearray(extended.files["x.nii"])
        data[348], data[352:368] = 1, struct.pack("<ii8s", 32, 6, b"comment ")
        extended.files["x.nii"] = bytes(data)
        self.assert_right(extended, understood=False)

    def test_nrrd(self) -> None:
        affine = place(OBLIQUE)
        plain = TO_LPS @ np.diag([2.0, 3.0, 4.0, 1.0])
        without = {"space_directions": None, "space_origin": None, "kinds": None}
        without["spacings"] = "2 3 4"
        for name, made, understood in (
            ("key and value", nrrd(VALUES, affine, extra="a b:=c: d\n"), True),
            ("units", nrrd(VALUES, affine, extra='space units: "mm" "mm" "mm"\n'), True),
            ("four axes", nrrd(VALUES, affine, extra="content: it\n"), True),
            ("hex", nrrd(VALUES, affine, stored="hex"), False),
            ("ascii", nrrd(VALUES, affine, stored="ascii"), False),
            ("labels", nrrd(VALUES, affine, extra='labels: "x" "y" "z"\n'), False),
            ("spacings", nrrd(VALUES, plain, space=None, **without), True),
        ):
            with self.subTest(name):
                self.assert_right(made, understood)

    def test_metaimage(self) -> None:
        affine = place(OBLIQUE)
        sized = metaimage(VALUES, affine, ElementSpacing=None, ElementSize="0.7 1.1 3.3")
        for name, made, understood in (
            ("a comment", metaimage(VALUES, affine, Comment="made by hand"), True),
            ("a field of its maker's", metaimage(VALUES, affine, Site="seven"), False),
            ("sizes for spacings", sized, True),
            ("one channel", metaimage(VALUES, affine, ElementNumberOfChannels="1"), True),
            ("from the end", metaimage(VALUES, affine, HeaderSize="-1", detached=True), False),
            ("bytes of Latin-1", metaimage(VALUES, affine, Site="M\xfcnchen"), False),
        ):
            with self.subTest(name):
                self.assert_right(made, understood)


class NameTest(HeaderTestCase):
    @unittest.skipUnless(sys.platform == "linux", "names are not bytes here")
    def test_names_that_are_not_utf8(self) -> None:
        data = nifti(VALUES, place()).files["x.nii"]
        latin = os.fsdecode(b"Gr\xf6\xdfe")
        for name in (f"{latin}.nii", f"{latin}/x.nii", f"{latin}/x.dcm"):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            asked = path.parent if name.endswith("dcm") else path
            self.assert_refused(r"Gr\\xf6\\xdfe.* is not in UTF-8.*rename", asked)

    @unittest.skipUnless(sys.platform == "linux", "names are not bytes here")
    def test_pairs(self) -> None:
        for ending in ("_ct.nii", "_seg.nii"):
            (self.folder / (os.fsdecode(b"p\xe9") + ending)).touch()
        with self.assertRaisesRegex(InputError, r"p\\xe9_ct.nii is not in UTF-8"):
            find_pairs(self.folder)

    def test_names_that_cannot_be(self) -> None:
        self.assert_refused("no file's name can have", self.folder / "a\0.nii")
        self.assert_refused("can't be opened", self.folder / ("a" * 300 + ".nii"))
        for name in ("a\0", "a" * 300):
            with self.assertRaises(InputError):
                find_pairs(self.folder / name)

    def test_names_in_every_script(self) -> None:
        for name in ("Größe 日本 🩻.nii", "a'b\"c;$(d).nii"):
            path = self.folder / name
            try:
                path.write_bytes(nifti(VALUES, place()).files["x.nii"])
            except OSError:  # Windows forbids some
                continue
            np.testing.assert_array_equal(read_image(path).array, VALUES)

    @unittest.skipUnless(hasattr(os, "mkfifo"), "no pipes with names here")
    def test_a_pipe(self) -> None:
        os.mkfifo(self.folder / "x.nii")
        self.assert_refused("does not exist", self.folder / "x.nii")


if __name__ == "__main__":
    unittest.main()
