"""Several queries: each fails alone, in a sentence, and the others are done."""

from __future__ import annotations

import errno
import gzip
import os
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tiny_model import Ran, TrainedWorld, run, write_array

import FewShotSegLib as fss
from FewShotSegLib.core.errors import (
    Cancelled,
    FewShotSegError,
    InputError,
    OutOfMemory,
    StorageError,
    in_words,
)
from FewShotSegLib.evaluation.benchmark import run as benchmark_run
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import batch, segment_each
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


class BatchTest(TrainedWorld):
    """A good query, what is wrong in every way, and a good one again."""

    def odd_files(self) -> list[Path]:
        """Files that can't be segmented."""
        folder = self.folder / "odd"
        folder.mkdir()
        volume = read_image(self.query.image)
        whole = self.query.image.read_bytes()
        header = gzip.decompress(whole)[:352]
        files = {
            "absent.nii.gz": None,
            "empty.nii.gz": b"",
            "text.nrrd": b"hello",
            "cut.nii.gz": whole[: len(whole) // 2],
            "header.nii": header,
            "notes.txt": b"x",
            "dots.mha": b"ObjectType = Image\nNDims = 12\n",
        }
        for name, data in files.items():
            if data is not None:
                (folder / name).write_bytes(data)
        (folder / "a folder").mkdir()
        nan = volume.array.astype(np.float32)
        nan[0, 0, 0] = np.nan
        flat = write_array(folder / "nan.nii.gz", nan, volume.grid)
        return [*(folder / name for name in files), folder / "a folder", flat]

    def segmented(self, *queries: Path, out: Path | None = None) -> Ran:
        texts = [str(query) for query in queries]
        return run(*self.segment_arguments(self.adapter, out or self.folder / "out", *texts))

    def test_every_kind_of_odd_file(self) -> None:
        odd = self.odd_files()
        ran = self.segmented(self.query.image, *odd, self.supports[0].image)
        self.assertEqual(ran.status, 2)
        self.assertEqual(
            sorted(os.listdir(self.folder / "out")),
            ["pictures", "query_seg.nii.gz", "report.json", "support0_seg.nii.gz"]
            + ["volumes.csv", "volumes.html"],
        )
        self.assertNotIn("Traceback", ran.err)
        end = ran.err[ran.err.rindex("fewshotseg: ") :]
        self.assertIn(
            f"{len(odd)} of {len(odd) + 2} queries could not be segmented; the other 2", end
        )
        for path in odd:
            self.assertEqual(end.count(f"  {path}"), 1, path)

    def test_a_file_in_the_way_of_one(self) -> None:
        out = self.folder / "out"
        out.mkdir()
        (out / "query_seg.nii.gz").write_bytes(b"drawn by hand")
        ran = self.segmented(self.query.image, self.supports[0].image, out=out)
        self.assertEqual(ran.status, 2)
        self.assertIn("1 of 2 queries could not be segmented; the other 1 was.", ran.err)
        self.assertEqual((out / "query_seg.nii.gz").read_bytes(), b"drawn by hand")
        self.assertTrue((out / "support0_seg.nii.gz").exists())

    def failing(self, error: Any, on: int = 0) -> Any:
        """``segment`` of which one call raises."""
        real, calls = batch.segment, []

        def segment(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments[1])
            if len(calls) == on + 1:
                raise error
            return real(*arguments, **options)

        return mock.patch.object(batch, "segment", segment)

    def test_errors_that_nobody_foresaw(self) -> None:
        for error, reported in (
            (ValueError("odd"), r"unexpected happened \(ValueError: odd\)"),
            (MemoryError(), "memory is not enough"),
            (RuntimeError("could not create a primitive"), "memory is not enough"),
            (StorageError("The disk is full."), "The disk is full"),
            (OSError(errno.EIO, "Input/output error", "x.nii"), "Input/output error"),
            (ZeroDivisionError(), r"unexpected happened \(ZeroDivisionError\)"),
        ):
            with self.subTest(type(error).__name__), self.failing(error):
                ran = self.segmented(self.query.image, self.supports[0].image)
                self.assertEqual(ran.status, 2)
                self.assertRegex(ran.err, reported)
                self.assertIn("the other 1 was", ran.err)
                self.assertTrue((self.folder / "out" / "support0_seg.nii.gz").exists())

    def test_who_stops_stops_all(self) -> None:
        for error in (Cancelled("Stopped."), KeyboardInterrupt()):
            with self.failing(error):
                ran = self.segmented(self.query.image, self.supports[0].image)
            self.assertEqual(ran.status, 2)
            self.assertIn("Stopped", ran.err)
            self.assertFalse((self.folder / "out" / "support0_seg.nii.gz").exists())

    def test_from_python(self) -> None:
        bad = self.folder / "bad.nii.gz"
        bad.write_bytes(b"garbage")
        queries = [bad, self.query.image]
        options = {"model": str(self.model), "runtime": self.runtime}
        found = list(fss.segment_each(self.adapter, queries, self.folder / "out", **options))
        self.assertEqual([outcome.query for outcome in found], queries)
        self.assertIsInstance(found[0].error, InputError)
        self.assertIsNone(found[0].result)
        self.assertIsNone(found[1].error)
        path = self.folder / "out" / "query_seg.nii.gz"
        self.assertEqual(Path(found[1].out), path)
        np.testing.assert_array_equal(read_image(path).array, found[1].result.labels)

    def test_what_is_wrong_for_all_is_reported_before_the_first(self) -> None:
        trained = TrainedAdapter.load(self.adapter)
        for queries, options in (
            (["a/x.nii.gz", "b/x.nii.gz"], {"model": str(self.model)}),
            (["x.nii.gz"], {"model": "nobody"}),
        ):
            with self.assertRaises(FewShotSegError):
                segment_each(trained, queries, self.folder / "out", **options)


class BenchmarkQueriesTest(unittest.TestCase):
    """In a benchmark as well."""

    def test_failed_rows_are_reported_and_the_others_kept(self) -> None:
        """The whole of it is in test_benchmark.py; here its loop alone."""
        draw = mock.Mock(queries=("a", "b", "c"), seed=0)
        cell = mock.Mock(draw=draw, shots=1, setting="s")
        cell.task.name, cell.method.name, cell.method.refine = "glands", "adapter", False
        cell.missing.return_value = ["a", "b", "c"]
        rows: dict[str, Any] = {}
        results = mock.Mock(path=Path("rows"))
        results.add.side_effect = lambda row: rows.update({row["query"]: row})
        cell.rows = lambda results: list(rows.values())

        def row(cell: Any, query: str, *rest: Any) -> dict[str, Any]:
            if query == "b":
                raise ValueError("odd")
            return {"query": query, "dice": {"gland": 0.5}}

        events: list[dict[str, Any]] = []
        problems: list[str] = []
        plan = mock.Mock(tasks=[cell.task])
        forecast = mock.Mock()
        forecast.workload.return_value = {"queries_done": 0, "queries": 3}
        forecast.remaining.return_value = []
        with (
            mock.patch.multiple(
                benchmark_run,
                adapt=mock.Mock(),
                _row=row,
                cases_of=mock.Mock(return_value=mock.MagicMock()),
                Forecast=mock.Mock(return_value=forecast),
                Timing=mock.Mock(),
                CaseReader=mock.Mock(),
                cells=mock.Mock(),
            ),
        ):
            failed = benchmark_run.run_benchmark(
                plan, results, [cell], mock.Mock(), problems, runtime=fss_runtime(events)
            )
        self.assertEqual(sorted(rows), ["a", "c"])
        self.assertEqual(len(failed), 1)
        self.assertRegex(failed[0], r"adapter on b of glands: .*ValueError: odd")
        self.assertEqual(problems, failed)
        self.assertEqual([e["mean_dice"] for e in events if e["event"] == "cell"], [0.5])


def fss_runtime(events: list[dict[str, Any]]) -> Any:
    from FewShotSegLib.pipeline.runtime import Runtime

    return Runtime("cpu", events=events.append)


class InWordsTest(unittest.TestCase):
    """Errors of any library as one of ours."""

    def test_kinds(self) -> None:
        own = InputError("x")
        self.assertIs(in_words(own), own)
        for error in (
            MemoryError(),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            RuntimeError("could not create a memory object"),
            RuntimeError("could not create a primitive descriptor for a convolution"),
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
            OSError(errno.ENOMEM, "Cannot allocate memory"),
            MemoryError("Unable to allocate 3 TiB for an array"),
        ):
            self.assertIsInstance(in_words(error), OutOfMemory, error)
        for error in (RuntimeError("size mismatch"), ValueError("out of memory")):
            self.assertNotIsInstance(in_words(error), OutOfMemory, error)
        self.assertIn("(x.nii)", str(in_words(OSError(errno.EIO, "Input/output error", "x.nii"))))


if __name__ == "__main__":
    unittest.main()
