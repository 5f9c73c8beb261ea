"""What is not the structure is not taken for it: pieces and the border."""

from __future__ import annotations

import unittest
from dataclasses import replace

import numpy as np
from annotation_grids import ball
from islands import GRID, MAIN, islands
from tiny import random_features
from tiny_model import make_grid

from FewShotSegLib.compute.pieces import Pieces, find_pieces, reaches_border
from FewShotSegLib.core.size_prior import SizePrior
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.pipeline.remarks import change_remark, far_from, piece_remark


class FindingPieces(unittest.TestCase):
    def test_sizes_and_distances(self) -> None:
        mask = islands((MAIN, 10), ((60, 40, 45), 5), ((20, 40, 12), 7))
        pieces = find_pieces(mask, GRID)
        sizes = [
            ball(GRID, c, r).sum() * 6.0
            for c, r in ((MAIN, 10), ((20, 40, 12), 7), ((60, 40, 45), 5))
        ]
        self.assertEqual(pieces.volumes, tuple(sizes))
        # From the last voxel of one to the first of the other: 60 - 4 - (20 + 9), and along k
        # 45 - 9 - (12 + 6).
        self.assertEqual(pieces.distances, (0.0, 18.0, 27.0))
        # Each a voxel of its own ball, the one at the centre or next to it.
        for place, centre in zip(pieces.places, (MAIN, (20, 40, 12), (60, 40, 45)), strict=True):
            voxel = np.linalg.solve(GRID.affine, [*place, 1.0])[:3]
            np.testing.assert_allclose(voxel, voxel.round(), atol=1e-9)
            self.assertTrue(mask[tuple(voxel.round().astype(int))])
            self.assertLess(np.abs(voxel * GRID.spacing - centre).max(), 3.0)

    def test_on_an_oblique_grid(self) -> None:
        grid = replace(make_grid(shape=(30, 20, 20)), spacing=(1.0, 2.0, 3.0))
        mask = np.zeros(grid.shape, bool)
        mask[2:6, 4:8, 4:8] = mask[15:18, 4:8, 4:8] = True
        self.assertAlmostEqual(find_pieces(mask, grid).distances[1], 10.0)

    def test_corners_hold_together_and_specks_are_none(self) -> None:
        mask = islands((MAIN, 10))
        diagonal = np.arange(5)
        mask[50 + diagonal, 10 + diagonal, 5 + diagonal] = True
        self.assertEqual(len(find_pieces(mask, GRID).volumes), 1)  # 5 voxels are a speck
        mask[50 + diagonal, 10 + diagonal, 6 + diagonal] = True
        self.assertEqual(find_pieces(mask, GRID).volumes[1:], (60.0,))
        small = np.zeros(GRID.shape, bool)
        small[5, 5, 5:9] = small[40, 5, 5:7] = True  # of a structure of four voxels, two are half
        self.assertEqual(find_pieces(small, GRID).volumes, (24.0, 12.0))
        self.assertEqual(find_pieces(small & False, GRID), Pieces())

    def test_what_an_annotation_shows_in_pieces(self) -> None:
        both = find_pieces(islands((MAIN, 10), ((60, 40, 45), 8), ((60, 70, 45), 3)), GRID)
        self.assertEqual((len(both.volumes), both.own, both.apart), (3, 2, both.distances[1]))
        one = find_pieces(islands((MAIN, 10), ((60, 70, 45), 3)), GRID)
        self.assertEqual((len(one.volumes), one.own, one.apart), (2, 1, 0.0))


class TheBorder(unittest.TestCase):
    """The largest piece decides, or as many as the supports show."""

    def test_a_false_island_is_not_the_structure(self) -> None:
        whole, island = islands((MAIN, 10)), islands(((78, 40, 45), 5))
        cut = islands(((3, 40, 45), 10))
        for mask, expected in (
            (whole | island, False),
            (cut | island, True),
            (cut, True),
            (whole, False),
            (island, True),
            (whole & False, False),
        ):
            self.assertEqual(reaches_border(mask, at_least=10), expected)
        # Left and right in one: the smaller half counts where two are expected.
        half = islands(((76, 40, 45), 9))
        self.assertFalse(reaches_border(whole | half, at_least=10))
        self.assertTrue(reaches_border(whole | half, at_least=10, count=2))
        self.assertTrue(reaches_border(whole | half, at_least=10, count=None))
        self.assertFalse(reaches_border(whole | island, at_least=1, count=None))

    def test_within_a_field_of_view(self) -> None:
        view = (slice(0, 60), slice(0, 40), slice(0, 30))
        mask = islands((MAIN, 10), ((57, 40, 45), 4))
        self.assertFalse(reaches_border(mask, view, 5))
        self.assertTrue(reaches_border(mask, view, 5, count=2))

    def test_a_query(self) -> None:
        import torch

        shape = (40, 20, 16)
        features = random_features(shape)
        query = Query(
            features, 1.0, (slice(0, 40), slice(0, 20), slice(0, 16)), torch.device("cpu")
        )
        probability = torch.zeros((2, *shape), dtype=torch.float16)
        probability[0, 8:18, 5:15, 4:12] = probability[0, 36:40, 5:10, 4:9] = 1
        probability[1, 0:9, 5:15, 4:12] = 1
        self.assertEqual(query.measure(probability).cut_off, (False, True))
        priors = [SizePrior(100.0, pieces=2), SizePrior(100.0)]
        self.assertEqual(query.measure(probability, priors).cut_off, (True, True))


class Remarks(unittest.TestCase):
    """The words."""

    def said(self, prior: SizePrior, *parts: tuple[float, float]) -> str | None:
        """Of pieces, each ml and mm away."""
        pieces = Pieces(tuple(ml * 1000 for ml, _ in parts), tuple(mm for _, mm in parts))
        remark = piece_remark("liver", pieces, prior)
        return remark and remark.brief

    def test_far_and_many(self) -> None:
        one = SizePrior(1e6, pieces=1)
        six = ((900, 0), (9, 90), (5, 55), (3, 8), (1, 41), (1, 40))
        self.assertEqual(self.said(one, *six), "6 pieces, 3 of them more than 4 cm away")
        self.assertEqual(
            self.said(one, (900, 0), (1, 55)), "2 pieces, the other more than 4 cm away"
        )
        self.assertEqual(self.said(one, (9, 0), (1, 5), (1, 5), (1, 5)), "4 pieces")
        self.assertEqual(self.said(one, (9, 0), (4, 5)), "2 pieces")
        self.assertIsNone(self.said(one, (900, 0), (1, 5), (1, 5)))
        self.assertIsNone(self.said(one, (900, 0)))
        self.assertIsNone(self.said(one))

    def test_what_the_supports_show_is_not_called_false(self) -> None:
        two = SizePrior(3e5, pieces=2, apart=80.0)
        self.assertIsNone(self.said(two, (150, 0), (140, 95)))
        self.assertIsNone(self.said(two, (150, 0)))
        self.assertEqual(
            self.said(two, (150, 0), (140, 80), (5, 130)),
            "3 pieces, 1 of them more than 12 cm away",
        )
        self.assertEqual(self.said(two, (150, 0), (140, 80), (20, 60)), "3 pieces")

    def test_far_is_nearer_for_what_is_small(self) -> None:
        for ml, mm in ((1000, 40), (5, 40), (1, 24.8), (0.01, 10)):
            self.assertAlmostEqual(far_from(ml * 1000, SizePrior(1.0)), mm, delta=0.05)

    def test_sentences(self) -> None:
        pieces = Pieces((9000.0, 1000.0), (0.0, 60.0))
        self.assertEqual(
            piece_remark("liver", pieces, SizePrior(1.0)).sentence,
            "liver is in 2 pieces, the other more than 4 cm away; the largest has 90 % of its "
            "volume: if it should be one piece, keep the largest alone (--largest-component; "
            "Largest piece only in Slicer).",
        )
        three = Pieces((5000.0, 4000.0, 1000.0), (0.0, 60.0, 20.0))
        self.assertEqual(
            piece_remark("kidney", three, SizePrior(1.0, pieces=2, apart=70.0)).sentence,
            "kidney is in 3 pieces (the supports show 2); the largest has 50 % of its volume: "
            "check whether all of them belong to it.",
        )

    def test_halved_and_doubled(self) -> None:
        for before, after, what in (
            (80.7, 31.4, "halved"), (10, 4.99, "halved"), (10, 0, "halved"), (10, 5, None),
            (10, 20, None), (10, 20.1, "doubled"), (0, 3, "doubled"), (0, 0, None), (7, 7, None),
        ):  # fmt: skip
            remark = change_remark("parotid", before, after)
            self.assertEqual(remark and remark.brief, what and f"transduction more than {what} it")
        self.assertEqual(
            change_remark("parotid", 80.7, 31.4).sentence,
            "Transduction more than halved parotid, from 80.7 to 31.4 ml: its size is then what "
            "was expected, not what was found. Check that it is in this image at all, and look at "
            "the result without transduction.",
        )


if __name__ == "__main__":
    unittest.main()
