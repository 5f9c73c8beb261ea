"""Pieces in parallel are what they are one after another: results, gradients, errors."""

from __future__ import annotations

import threading
import unittest
from unittest import mock

import torch
from torch import Tensor, nn

from FewShotSegLib.compute.parallel import MOST, differentiable_in_parallel, in_parallel
from FewShotSegLib.core.errors import Cancelled

CPU = torch.device("cpu")


class AtOnce(unittest.TestCase):
    """On four threads, whatever this computer has."""

    def setUp(self) -> None:
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(4)

    def test_pieces_run_at_the_same_time_and_keep_their_order(self) -> None:
        """Each waits for the others, so that one after another would never end."""
        barrier = threading.Barrier(MOST)

        def meet(piece: int) -> tuple[int, int]:
            barrier.wait(600)
            return piece, torch.get_num_threads()

        self.assertEqual(in_parallel(meet, range(MOST), CPU), [(n, 1) for n in range(MOST)])
        self.assertEqual(torch.get_num_threads(), 4)

    def test_more_threads_than_pieces_share_a_piece(self) -> None:
        self.assertEqual(in_parallel(lambda _: torch.get_num_threads(), [1, 2], CPU), [2, 2])

    def test_one_thread_or_a_gpu_takes_one_after_another(self) -> None:
        main = threading.get_ident()

        def where(_: int) -> int:
            return threading.get_ident()

        self.assertNotIn(main, in_parallel(where, [1, 2], CPU))
        self.assertEqual(in_parallel(where, [1], CPU), [main])
        self.assertEqual(in_parallel(where, [1, 2], torch.device("cuda")), [main, main])
        torch.set_num_threads(1)
        self.assertEqual(in_parallel(where, [1, 2], CPU), [main, main])
        self.assertEqual(in_parallel(where, [], CPU), [])

    def test_who_stops_is_heard_and_nothing_new_begins(self) -> None:
        begun = []

        def stop(piece: int) -> None:
            begun.append(piece)
            raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            in_parallel(stop, range(100), CPU)
        self.assertLess(len(begun), 100)
        self.assertEqual(torch.get_num_threads(), 4)


class Gradients(unittest.TestCase):
    """Of a small network, to the last bit: a piece has one thread either way."""

    def setUp(self) -> None:
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv3d(2, 3, 3), nn.ReLU(), nn.Conv3d(3, 1, 1))
        self.unused = nn.Parameter(torch.ones(1))
        self.pieces = [torch.randn(1, 2, 6, 5, 4 + n) for n in range(5)]

    def parameters(self) -> list[Tensor]:
        return [*self.network.parameters(), self.unused]

    def gradients(self, threads: int, weight: float = 1.0) -> list[Tensor | None]:
        """Of a loss in which all pieces meet."""
        torch.set_num_threads(threads)
        for parameter in self.parameters():
            parameter.grad = None
        results = differentiable_in_parallel(self.network, self.pieces, self.parameters(), CPU)
        sums = torch.stack([result.sigmoid().sum() for result in results])
        (weight * sums.sum() / sums.square().sum()).backward()
        return [parameter.grad for parameter in self.parameters()]

    def test_they_are_the_same_on_any_number_of_threads(self) -> None:
        torch.set_num_threads(1)
        sums = torch.stack([self.network(piece).sigmoid().sum() for piece in self.pieces])
        (sums.sum() / sums.square().sum()).backward()
        plain = [parameter.grad for parameter in self.network.parameters()]
        for threads in (1, 2, 4):
            *found, unused = self.gradients(threads)
            self.assertIsNone(unused)
            for gradient, other in zip(found, plain, strict=True):
                torch.testing.assert_close(gradient, other, atol=1e-7, rtol=1e-5)
        for one, other in zip(self.gradients(1), self.gradients(4), strict=True):
            self.assertTrue(one is other is None or torch.equal(one, other))

    def test_what_is_frozen_gets_none(self) -> None:
        self.network[0].requires_grad_(False)
        first, _, last, _, _ = self.gradients(4)
        self.assertIsNone(first)
        self.assertGreater(float(last.abs().sum()), 0)

    def test_nothing_is_kept_where_no_gradient_is_wanted(self) -> None:
        torch.set_num_threads(4)
        with torch.no_grad():
            results = differentiable_in_parallel(self.network, self.pieces, self.parameters(), CPU)
        self.assertFalse(any(result.requires_grad for result in results))
        with torch.inference_mode():
            results = in_parallel(self.network, self.pieces, CPU)
        self.assertTrue(all(result.is_inference() for result in results))

    def test_an_error_in_a_gradient_is_raised(self) -> None:
        torch.set_num_threads(4)
        results = differentiable_in_parallel(self.network, self.pieces, self.parameters(), CPU)
        with (
            mock.patch("torch.autograd.grad", side_effect=Cancelled("Stopped.")),
            self.assertRaises(Cancelled),
        ):
            results[0].sum().backward()


if __name__ == "__main__":
    unittest.main()
