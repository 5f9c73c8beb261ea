"""Slicer segmentations that other programs wrote: read as Slicer reads them."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from segment_files import (
    FULL,
    GRID,
    LAYERS,
    LIVER,
    SPLEEN,
    VESSEL,
    Fields,
    make_layers,
    voxels_of,
    without,
    write_nrrd,
)

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments


class SegmentFilesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "x.seg.nrrd"

    def read(
        self, layers: np.ndarray, fields: Fields, wanted: list[Structure] | None = None, **more: Any
    ) -> dict[str, frozenset[tuple[int, int, int]]]:
        """Voxels of the image by structure."""
        write_nrrd(self.path, layers, fields, **more)
        masks = read_annotation(self.path, GRID, wanted).masks
        return {name: voxels_of(mask) for name, mask in masks.items()}

    def assert_refused(self, telling: str, *arguments: Any, **more: Any) -> None:
        with self.assertRaisesRegex(InputError, telling):
            self.read(*arguments, **more)


class WrittenElsewhere(SegmentFilesTestCase):
    """What other programs leave out."""

    ALL = {"liver": LIVER, "spleen": SPLEEN, "vessel": VESSEL}

    def test_without_ids_and_extents(self) -> None:
        for list_axis in ("first", "last"):
            with self.subTest(list_axis):
                found = self.read(LAYERS, without(FULL, "ID"), list_axis=list_axis)
                self.assertEqual(found, self.ALL)

    def test_by_name_without_ids(self) -> None:
        wanted = [Structure("Vessel", 9), Structure("spleen", 4)]
        found = self.read(LAYERS, without(FULL, "ID"), wanted)
        self.assertEqual(found, {"Vessel": VESSEL, "spleen": SPLEEN})

    def test_without_names(self) -> None:
        self.assertEqual(
            self.read(LAYERS, without(FULL, "Name")), {"A": LIVER, "B": SPLEEN, "C": VESSEL}
        )

    def test_with_layers_and_values_alone(self) -> None:
        self.assertEqual(
            self.read(LAYERS, without(FULL, "Name", "ID")),
            {"Segment_1": LIVER, "Segment_2": SPLEEN, "Segment_1_1": VESSEL},
        )

    def test_without_any_description(self) -> None:
        self.assertEqual(
            self.read(LAYERS, {}),
            {"Segment_1": LIVER, "Segment_2": SPLEEN, "Segment_1_1": VESSEL},
        )
        plain = self.path.with_name("x.nrrd")
        write_nrrd(plain, LAYERS, {})
        with self.assertRaisesRegex(InputError, "2 values a voxel"):
            read_annotation(plain, GRID)

    def test_values_that_a_file_without_ids_does_not_describe(self) -> None:
        found = self.read(LAYERS, without({"0": FULL["0"]}, "ID"))
        self.assertEqual(found, {"liver": LIVER, "Segment_2": SPLEEN, "Segment_1": VESSEL})

    def test_values_that_a_file_with_ids_does_not_describe_are_no_segments(self) -> None:
        self.assertEqual(self.read(LAYERS, {"0": FULL["0"]}), {"liver": LIVER})

    def test_without_layers(self) -> None:
        # Each its own layer, as Slicer wrote before 4.11; with one layer that alone can be meant.
        two = make_layers({1: LIVER}, {1: VESSEL})
        fields = without({"0": FULL["0"], "1": FULL["2"]}, "Layer")
        self.assertEqual(self.read(two, fields), {"liver": LIVER, "vessel": VESSEL})
        one = {"0": FULL["0"], "1": FULL["1"]}
        for missing in (("Layer",), ("Layer", "ID")):
            found = self.read(LAYERS[:1], without(one, *missing))
            self.assertEqual(found, {"liver": LIVER, "spleen": SPLEEN})
        self.assert_refused("segment 2 is said to be in layer 2", LAYERS, without(FULL, "Layer"))

    def test_without_values(self) -> None:
        two = make_layers({1: LIVER}, {1: VESSEL})
        fields = without({"0": FULL["0"], "2": FULL["2"]}, "LabelValue")
        self.assertEqual(self.read(two, fields), {"liver": LIVER, "vessel": VESSEL})
        self.assert_refused(
            "does not say which label value its segment 'liver' has; layer 0 has 7",
            make_layers({7: LIVER}, {1: VESSEL}),
            fields,
        )
        self.assert_refused(
            "does not tell the segments 'liver' and 'spleen' apart",
            LAYERS,
            without(FULL, "LabelValue"),
        )

    def test_gaps_in_the_numbering(self) -> None:
        gappy = {"0": FULL["0"], "3": FULL["1"], "11": FULL["2"]}
        self.assertEqual(self.read(LAYERS, gappy), self.ALL)
        late = {str(int(number) + 5): own for number, own in FULL.items()}
        self.assertEqual(self.read(LAYERS, late), self.ALL)

    def test_a_single_layer(self) -> None:
        one = without({"0": FULL["0"], "1": FULL["1"]}, "ID")
        self.assertEqual(self.read(LAYERS[:1], one), {"liver": LIVER, "spleen": SPLEEN})

    def test_names_and_colours_of_any_kind(self) -> None:
        name = "Größe, links \N{PILL} =:\\\\ 100 %"
        fields = {"0": {**FULL["0"], "Name": name, "Color": "red", "Tags": "no|tag:|:|"}}
        found = self.read(LAYERS[:1], fields)
        self.assertEqual(found, {name.replace("\\\\", "\\"): LIVER})
        # Decomposed, as macOS composes names.
        wanted = [Structure("gro\u0308\u00dfe", 3)]
        fields["0"]["Name"] = "GRÖSSE"
        self.assertEqual(self.read(LAYERS[:1], fields, wanted), {wanted[0].name: LIVER})

    def test_a_name_of_several_lines_is_written_readably(self) -> None:
        mask = make_layers({1: LIVER})[0] > 0
        for name, there in (("a\r\nb", "a\nb"), ("a\rb", "a\nb"), ("a\nb", "a\nb")):
            write_segments(self.path, {name: mask}, [Structure(name, 1)], GRID)
            self.assertEqual(list(read_annotation(self.path, GRID).masks), [there])

    def test_names_that_are_not_utf_8(self) -> None:
        write_nrrd(self.path, LAYERS[:1], {"0": {**FULL["0"], "Name": "Groesse"}})
        self.path.write_bytes(self.path.read_bytes().replace(b"Groesse", b"Gr\xf6\xdfe"))
        self.assertEqual(list(read_annotation(self.path, GRID).masks), ["Größe"])

    def test_extents(self) -> None:
        whole = "0 5 0 4 0 3"
        for extents in ((whole, whole), ("1 2 1 1 1 1", "3 3 3 3 2 2"), (whole, "0 -1 0 -1 0 -1")):
            fields = {
                str(n): {**FULL[str(n)], "Extent": extent} for n, extent in enumerate(extents)
            }
            self.assertEqual(self.read(LAYERS[:1], fields), {"liver": LIVER, "spleen": SPLEEN})
        for extents in (("1 2 1 1 1 1",) * 2, ("0 -1 0 -1 0 -1",) * 2):
            fields = {
                str(n): {**FULL[str(n)], "Extent": extent} for n, extent in enumerate(extents)
            }
            self.assert_refused("voxels outside the extents", LAYERS[:1], fields)

    def test_fields_that_are_not_as_slicer_writes_them(self) -> None:
        for key, value in (
            *(("LabelValue", text) for text in ("0", "-1", "65536", "one", "1.5", "9" * 5000)),
            *(("Layer", text) for text in ("-1", "1", "x")),
            *(("Extent", text) for text in ("0 5 0 4", "a b c d e f", "0 1 2 3 4 5 6")),
        ):
            with self.subTest(key=key, value=value[:10]):
                fields = {"0": {**FULL["0"], key: value}}
                self.assert_refused("is damaged: .*segment 0.*from Slicer", LAYERS[:1], fields)


class AsSlicer(SegmentFilesTestCase):
    """The same files through Slicer's own storage node."""

    CASES: Mapping[str, tuple[np.ndarray, Fields, dict[str, Any]]] = {
        "whole": (LAYERS, FULL, {}),
        "list axis last": (LAYERS, FULL, {"list_axis": "last"}),
        "without IDs": (LAYERS, without(FULL, "ID"), {}),
        "without the first ID": (LAYERS, {**FULL, **without({"0": FULL["0"]}, "ID")}, {}),
        "without names": (LAYERS, without(FULL, "Name"), {}),
        "without anything": (LAYERS, {}, {}),
        "one of three": (LAYERS, {"0": FULL["0"]}, {}),
        "one layer": (LAYERS[:1], {"0": FULL["0"], "1": FULL["1"]}, {}),
        "before 4.11": (
            make_layers({1: LIVER}, {1: VESSEL}),
            without({"0": FULL["0"], "1": FULL["2"]}, "Layer", "LabelValue"),
            {},
        ),
        "offset of the reference": (
            LAYERS,
            FULL,
            {"others": {"Segmentation_ReferenceImageExtentOffset": "3 2 1"}},
        ),
        "extents": (
            LAYERS[:1],
            {
                "0": {**FULL["0"], "Extent": "1 2 1 1 1 1"},
                "1": {**FULL["1"], "Extent": "3 3 3 3 2 2"},
            },
            {"others": {"Segmentation_ReferenceImageExtentOffset": "0 0 0"}},
        ),
    }
    LOSES = {
        "a gap": (LAYERS, {"0": FULL["0"], "3": FULL["1"], "4": FULL["2"]}, {}),
        "no layers": (LAYERS[:1], without({"0": FULL["0"], "1": FULL["1"]}, "Layer"), {}),
    }
    """Where Slicer drops segments that the header describes."""

    def setUp(self) -> None:
        super().setUp()
        try:
            import slicer
            import vtk  # noqa: F401

            self.slicer = slicer
            slicer.vtkMRMLSegmentationStorageNode  # noqa: B018
        except (ImportError, AttributeError) as error:
            self.skipTest(f"Slicer's own reader needs slicer-core ({error})")

    def slicer_reads(self) -> list[tuple[str, frozenset[tuple[int, int, int]]]]:
        """Names and the image's voxels that have each segment, in Slicer's order."""
        import vtk
        from vtk.util.numpy_support import vtk_to_numpy

        scene = self.slicer.vtkMRMLScene()
        node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        storage.SetFileName(str(self.path))
        self.assertEqual(storage.ReadData(node), 1)
        segmentation, found = node.GetSegmentation(), []
        for number in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(number)
            image = segment.GetRepresentation("Binary labelmap")
            low, high = np.reshape(image.GetExtent(), (3, 2)).T
            shape = high - low + 1
            scalars = vtk_to_numpy(image.GetPointData().GetScalars())
            array = scalars.reshape(shape[::-1]).transpose(2, 1, 0)
            voxels = np.argwhere(array == segment.GetLabelValue()) + low
            matrix = vtk.vtkMatrix4x4()
            image.GetImageToWorldMatrix(matrix)
            affine = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
            to_image = np.linalg.inv(GRID.affine) @ affine
            places = np.rint(voxels @ to_image[:3, :3].T + to_image[:3, 3]).astype(int)
            found.append((segment.GetName(), frozenset(tuple(v) for v in places.tolist())))
        return found

    def test_the_same_voxels_and_names(self) -> None:
        for name, (layers, fields, more) in self.CASES.items():
            with self.subTest(name):
                ours = self.read(layers, fields, **more)
                theirs = self.slicer_reads()
                self.assertGreater(len(theirs), 0)
                self.assertEqual(
                    sorted(map(sorted, ours.values())), sorted(sorted(v) for _, v in theirs)
                )
                # Slicer forgets the names of a file without a first ID.
                if "ID" in fields.get("0", {}) or not fields:
                    self.assertEqual(ours, dict(theirs))

    def test_what_slicer_loses_is_kept(self) -> None:
        for name, (layers, fields, more) in self.LOSES.items():
            with self.subTest(name):
                ours = self.read(layers, fields, **more)
                theirs = dict(self.slicer_reads())
                self.assertLess(theirs.items(), ours.items())

    def test_what_slicer_cuts_away_is_refused(self) -> None:
        fields = {str(n): {**FULL[str(n)], "Extent": "1 2 1 1 1 1"} for n in (0, 1)}
        self.assert_refused("voxels outside the extents", LAYERS[:1], fields)
        self.assertEqual(self.slicer_reads(), [("liver", LIVER), ("spleen", frozenset())])


if __name__ == "__main__":
    unittest.main()
