"""Any segmentation file, name or list of structures: the right masks on the right grid, or one
clear sentence."""

from __future__ import annotations

import tempfile
import unicodedata
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from annotation_grids import part_of
from hypothesis import assume, given
from hypothesis import strategies as st
from segment_files import write_nrrd
from soak_profile import examples
from tiny_model import write_array

from FewShotSegLib.core.annotation import (
    MAX_VALUE,
    Structure,
    name_key,
    parse_structures,
    require_structures,
)
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.metrics import evaluate, evaluate_files
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments

SHAPE = (6, 5, 4)
GRID = Grid(SHAPE, (0.75, 1.5, 3.0), (10.0, -20.0, 30.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
WHOLE = f"0 {SHAPE[0] - 1} 0 {SHAPE[1] - 1} 0 {SHAPE[2] - 1}"

names = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), min_size=1, max_size=12
).filter(name_key)
headers = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r\0\\"))
odd_numbers = st.one_of(
    st.integers(-3, 400).map(str),
    st.sampled_from(["", " ", "1.5", "0x1", "1e9", "NaN", "65536", "9" * 5000, "²", "١"]),
    headers,
)


def make_layers(draw: st.DrawFn, count: int, most: int = 3) -> np.ndarray:
    """Layers (layer, i, j, k) of a few label values, with some voxels of each."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    values = np.concatenate([[0], rng.choice(255, most, replace=False) + 1])
    return rng.choice(values, (count, *SHAPE)).astype(np.uint8)


@st.composite
def described(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, dict[str, str]], dict[str, Any]]:
    """Layers, a header that describes all of their label values, and the masks by name.

    Fields that can be done without are left out now and then; numbers have gaps.
    """
    count = draw(st.integers(1, 3))
    layers = make_layers(draw, count)
    places = [
        (layer, int(value)) for layer in range(count) for value in np.unique(layers[layer]) if value
    ]
    places = draw(st.permutations(places))
    titles = draw(
        st.lists(headers.filter(name_key), min_size=len(places), max_size=len(places),
                 unique_by=name_key)
    )  # fmt: skip
    numbers = sorted(
        draw(st.lists(st.integers(0, 40), min_size=len(places), max_size=len(places), unique=True))
    )
    left_out = {key for key in ("ID", "Extent", "Color", "Tags") if draw(st.booleans())}
    if count == 1 and draw(st.booleans()):
        left_out.add("Layer")
    fields, masks = {}, {}
    for number, title, (layer, value) in zip(numbers, titles, places, strict=True):
        own = {
            "ID": f"Segment_{number}",
            "Name": title,
            "Layer": str(layer),
            "LabelValue": str(value),
            "Extent": WHOLE,
            "Color": draw(st.sampled_from(["1 0 0", "", "red", "nan 0 0", "2 2 2", "1 0"])),
            "Tags": draw(st.sampled_from(["", "|", "TerminologyEntry:", "TerminologyEntry:a~b|"])),
        }
        fields[str(number)] = {key: text for key, text in own.items() if key not in left_out}
        masks[title.strip()] = layers[layer] == value
    return layers, fields, masks


@st.composite
def scrambled(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, dict[str, str]]]:
    """Layers, and a header with anything in it."""
    layers = make_layers(draw, draw(st.integers(1, 3)))
    keys = dict.fromkeys(("ID", "Name", "Color", "Tags"), headers)
    keys |= {"Layer": odd_numbers, "LabelValue": odd_numbers}
    keys["Extent"] = st.one_of(st.just(WHOLE), headers)
    segment = st.fixed_dictionaries({}, optional=keys)
    return layers, draw(
        st.dictionaries(st.integers(0, 6).map(str), segment, min_size=1, max_size=5)
    )


class FolderTestCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)


class Segmentations(FolderTestCase):
    """What a header says, and what it leaves out."""

    @examples(30)
    @given(described(), st.sampled_from(["first", "last"]), st.data())
    def test_a_described_file_has_the_masks_it_describes(
        self, made: tuple[np.ndarray, Any, dict[str, np.ndarray]], list_axis: str, data: Any
    ) -> None:
        layers, fields, masks = made
        path = write_nrrd(self.folder / "x.seg.nrrd", layers, fields, list_axis=list_axis)
        start = data.draw(st.tuples(*[st.integers(-2, 0)] * 3))
        grid = part_of(GRID, start, tuple(n + 2 for n in SHAPE))
        inside = tuple(slice(-o, -o + n) for o, n in zip(start, SHAPE, strict=True))
        found = read_annotation(path, grid).masks
        self.assertEqual(set(found), set(masks))
        for name, mask in found.items():
            expected = np.zeros(grid.shape, bool)
            expected[inside] = masks[name]
            np.testing.assert_array_equal(mask, expected)

    @examples(40)
    @given(scrambled())
    def test_any_header_is_read_by_its_values_or_refused(
        self, made: tuple[np.ndarray, dict[str, dict[str, str]]]
    ) -> None:
        layers, fields = made
        path = write_nrrd(self.folder / "x.seg.nrrd", layers, fields)
        try:
            annotation = read_annotation(path, GRID)
        except InputError as error:
            self.assertIn(path.name, str(error))
            return
        require_structures(annotation.structures, "those read")
        self.assertEqual(len(annotation.structures), len(annotation.masks))
        places = {
            (layers[layer] == value).tobytes()
            for layer in range(len(layers))
            for value in np.unique(layers[layer])
            if value
        }
        for mask in annotation.masks.values():
            self.assertIn(mask.tobytes(), places)

    @examples(25)
    @given(st.lists(names, min_size=1, max_size=4, unique_by=name_key), st.data())
    def test_names_come_back(self, titles: list[str], data: Any) -> None:
        values = data.draw(
            st.lists(
                st.integers(1, MAX_VALUE), min_size=len(titles), max_size=len(titles), unique=True
            )
        )
        rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
        masks = {title: rng.random(SHAPE) < 0.3 for title in titles}
        structures = [Structure(*pair) for pair in zip(titles, values, strict=True)]
        path = self.folder / "x.seg.nrrd"
        write_segments(path, masks, structures, GRID)
        wanted = [Structure(unicodedata.normalize("NFD", title), n) for n, title in
                  enumerate(titles, 1)]  # fmt: skip
        for title, other in zip(titles, wanted, strict=True):
            if masks[title].any():
                found = read_annotation(path, GRID, [other]).masks
                np.testing.assert_array_equal(found[other.name], masks[title])
        found = read_annotation(path, GRID).structures
        self.assertEqual([s.value for s in found],
                         [s.value for s in structures if masks[s.name].any()])  # fmt: skip


class LabelMaps(FolderTestCase):
    """Only the very grid will do."""

    @examples(40)
    @given(
        st.tuples(*[st.integers(-1, 1)] * 3),
        st.tuples(*[st.sampled_from([0, 0, 0, 1e-9, 0.3, 1, -2])] * 3),
        st.tuples(*[st.sampled_from([1, 1, 1, 1.01, 2])] * 3),
        st.tuples(*[st.sampled_from([1, 1, 1, -1])] * 3),
        st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
    )
    def test_the_same_grid_or_a_sentence(
        self, more: Any, shift: Any, stretch: Any, signs: Any, extension: str
    ) -> None:
        shape = tuple(n + m for n, m in zip(SHAPE, more, strict=True))
        spacing = tuple(s * f for s, f in zip(GRID.spacing, stretch, strict=True))
        grid = replace(part_of(GRID, shift, shape), spacing=spacing,
                       direction=tuple(np.diag(signs).astype(float).ravel()))  # fmt: skip
        labels = np.random.default_rng(0).choice([0, 3, 200], shape).astype(np.uint8)
        path = write_array(self.folder / ("x" + extension), labels, grid)
        same = (shape == SHAPE and max(map(abs, shift)) < 1e-6 and set(stretch) == {1}
                and set(signs) == {1})  # fmt: skip
        folder = self.folder / "masks"
        folder.mkdir(exist_ok=True)
        mask = write_array(folder / "liver.nrrd", (labels == 3).astype(np.uint8), grid)
        if same:
            for value in (3, 200):
                np.testing.assert_array_equal(
                    read_annotation(path, GRID).masks[f"label_{value}"], labels == value
                )
            found = read_annotation(folder, GRID).masks["liver"]
            np.testing.assert_array_equal(found, labels == 3)
        else:
            for source, name in ((path, path.name), (folder, mask.name)):
                with self.assertRaisesRegex(InputError, f"different grids.*{name}"):
                    read_annotation(source, GRID)

    @examples(10)
    @given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=4, max_size=4))
    def test_two_crops_score_as_the_whole(self, corners: list[tuple[int, int, int]]) -> None:
        grid = replace(GRID, shape=(9, 9, 9))
        masks = []
        for name, (start, size) in zip("rp", (corners[:2], corners[2:]), strict=True):
            part = part_of(grid, start, tuple(n + 1 for n in size))
            mask = np.zeros(grid.shape, bool)
            own = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
            mask[own] = True
            masks.append({"a": mask})
            crop = {"a": np.ones(part.shape, bool)}
            write_segments(self.folder / f"{name}.seg.nrrd", crop, [Structure("a", 1)], part)
            labels = mask.astype(np.uint8)
            write_array(self.folder / f"{name}.nrrd", labels, grid)
        expected = evaluate(*masks, grid)["a"]
        wanted = [Structure("a", 1)]
        for reference, prediction in (
            ("r.seg.nrrd", "p.seg.nrrd"), ("r.nrrd", "p.seg.nrrd"), ("r.seg.nrrd", "p.nrrd"),
            ("r.nrrd", "p.nrrd"),
        ):  # fmt: skip
            scores = evaluate_files(self.folder / reference, self.folder / prediction, wanted)
            for field in ("dice", "hd95_mm", "surface_dice", "volume_ml", "reference_ml"):
                self.assertAlmostEqual(
                    getattr(scores["a"], field), getattr(expected, field), places=5, msg=field
                )


class StructureLists(unittest.TestCase):
    """``4=parotid_right,5=parotid_left``."""

    @examples(100)
    @given(st.one_of(st.text(), st.text("0123456789=,. aAäß٣²\0\n/-", max_size=30)))
    def test_any_text_is_a_list_or_a_sentence(self, text: str) -> None:
        try:
            structures = parse_structures(text)
        except InputError as error:
            self.assertIn("write it like 4=parotid_right", str(error))
            return
        require_structures(structures, "those read")
        self.assertEqual(len(structures), text.count(",") + 1)
        for structure, item in zip(structures, text.split(","), strict=True):
            number, _, name = item.partition("=")
            self.assertEqual((structure.value, structure.name), (int(number), name.strip()))

    @examples(60)
    @given(
        st.lists(
            st.tuples(
                st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text()), names
            ),
            max_size=4,
        )
    )
    def test_any_list_is_sound_or_refused(self, pairs: list[tuple[Any, str]]) -> None:
        structures = [Structure(name, value) for value, name in pairs]
        values = [value for value, _ in pairs]
        keys = [unicodedata.normalize("NFC", name).strip().casefold() for _, name in pairs]
        sound = (
            all(type(value) is int and 1 <= value <= 65535 for value in values)
            and len(set(values)) == len(values)
            and len({unicodedata.normalize("NFC", key) for key in keys}) == len(keys)
        )
        if sound:
            require_structures(structures, "These")
        else:
            with self.assertRaises(InputError):
                require_structures(structures, "These")

    @examples(60)
    @given(names)
    def test_one_name_has_one_key(self, name: str) -> None:
        assume(name_key(name))
        key = name_key(name)
        self.assertEqual(name_key(f"  {name}\t"), key)
        self.assertEqual(name_key(unicodedata.normalize("NFD", name)), key)
        self.assertEqual(name_key(key), key)


if __name__ == "__main__":
    unittest.main()
