"""Folders of volumes: found, segmented, gone on with after a kill, and listed worst first."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib.image
import numpy as np
from dicom_series import Written, save, stored_values
from scipy import ndimage
from tiny_model import STRUCTURES, Ran, TrainedWorld, run

from FewShotSegLib.core.annotation import Structure, parse_structures
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.core.trust import LEARNED, LOOK, UNUSABLE, VERDICTS
from FewShotSegLib.evaluation.folders import SUPPORT, find_references
from FewShotSegLib.evaluation.metrics import evaluate_files
from FewShotSegLib.io.queries import DicomSeries, find_queries
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.overlay.contact_sheet import Card, Line, contact_sheet
from FewShotSegLib.overlay.thumbnail import comment_of, draw_thumbnail, with_comment
from FewShotSegLib.pipeline import batch, listing
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.batch import segment_each
from FewShotSegLib.pipeline.newest import newest_results
from FewShotSegLib.pipeline.rows import SUPPORT_WARNING, is_support

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


class Finding(unittest.TestCase):
    """What is a volume in a folder, and what it is called."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory())) / "archive"

    def put(self, *names: str) -> None:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    def found(self, *paths: str) -> dict[str, str]:
        """By name, the path within the folder."""
        queries = find_queries([self.folder / path for path in paths or ("",)])
        self.assertEqual(len({f.name for f in queries}), len(queries))
        return {
            f.name: Path(os.fspath(f.query)).relative_to(self.folder).as_posix() for f in queries
        }

    def test_images_but_no_segmentations_or_hidden_files(self) -> None:
        self.put("a10.nii.gz", "a2.nii.gz", "a2_seg.nii.gz", "b.seg.nrrd", "._a2.nii.gz", "n.txt")
        self.assertEqual(list(self.found().items()), [("a2", "a2.nii.gz"), ("a10", "a10.nii.gz")])

    def test_a_file_is_itself_whatever_it_is_called(self) -> None:
        self.put("a_seg.nii.gz")
        self.assertEqual(self.found("a_seg.nii.gz", "none.nrrd"),
                         {"a_seg": "a_seg.nii.gz", "none": "none.nrrd"})  # fmt: skip

    def test_patients_folders_name_their_images(self) -> None:
        self.put("p1/ct.nii.gz", "p1/ct_seg.nii.gz", "p2/t1.nii", "p2/t2.nii", "p3/x/y/ct.mha")
        self.assertEqual(
            self.found(),
            {
                "p1": "p1/ct.nii.gz",
                "p2_t1": "p2/t1.nii",
                "p2_t2": "p2/t2.nii",
                "p3": "p3/x/y/ct.mha",
            },
        )

    def test_folders_of_results_are_left_out(self) -> None:
        self.put("a.nii.gz", "out/a_prob_x.nii.gz", "other/b.nii.gz", "other/report.json")
        (self.folder / "out" / "report.json").write_text('{"format": "fewshotseg-report-1"}')
        self.assertEqual(self.found(), {"a": "a.nii.gz", "other": "other/b.nii.gz"})

    def test_a_folder_with_nothing_stands_for_itself(self) -> None:
        self.put("readme.txt")
        self.assertEqual(self.found(), {"archive": "."})

    def test_dicom_of_one_series_and_of_several(self) -> None:
        for place, uid, text in (
            ("p1", "1.2.3", "thin"),
            ("p2/study", "1.2.4", "soft tissue"),
            ("p2/study", "1.2.5", None),
        ):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
            tags = {"SeriesInstanceUID": uid, "SeriesDescription": text}
            series = Written(stored_values(), tags=tags)
            series.write(self.folder / place, ending=f"_{uid}.dcm")
        queries = {f.name: f.query for f in find_queries([self.folder])}
        self.assertEqual(list(queries), ["p1", "p2_study_soft_tissue_4", "p2_study_series_5"])
        self.assertEqual(queries["p1"], self.folder / "p1")
        several = queries["p2_study_series_5"]
        self.assertIsInstance(several, DicomSeries)
        self.assertEqual(os.fspath(several), str(self.folder / "p2" / "study"))
        volume = read_image(several, several.uid)
        np.testing.assert_array_equal(volume.array, read_image(self.folder / "p1").array)
        with self.assertRaisesRegex(InputError, "2 DICOM series"):
            read_image(self.folder / "p2" / "study")
        with self.assertRaisesRegex(InputError, "no DICOM images"):
            read_image(self.folder / "p2" / "study", "9.9")


class References(Finding):
    """Which segmentation is a volume's."""

    def test_by_name_whatever_its_ends(self) -> None:
        self.put(
            "pt_1_ct.nii.gz", "pt_1_seg.nii.gz", "pt_2_seg.nii.gz", "P3/ct.nii", "P3/ct_seg.nii"
        )
        found = find_references(self.folder)
        self.assertEqual(sorted(found), ["p3", "pt_1", "pt_2"])
        self.assertEqual(found["p3"].name, "ct_seg.nii")
        self.put("x/pt_1.seg.nrrd", "x/other.seg.nrrd")
        with self.assertRaisesRegex(InputError, "may both be the reference of 'pt_1'"):
            find_references(self.folder)

    def test_a_folder_of_segmentations_alone(self) -> None:
        self.put("labels/case_1.nii.gz", "labels/case_2.nii.gz")
        self.assertEqual(sorted(find_references(self.folder)), ["case_1", "case_2"])

    def test_dicom_segmentations_by_their_headers(self) -> None:
        """The images beside them are none, nor is what can't be read."""
        places = {"pt_1/scan": "1.dcm", "pt_2/scan": "2.dcm", "": "pt_3_seg.dcm"}
        for place, name in places.items():
            (self.folder / place).mkdir(parents=True, exist_ok=True)
            series = Written(stored_values(), tags={"SOPClassUID": SEGMENTATION})
            save(series.slice(0), self.folder / place / name)
        Written(stored_values()).write(self.folder / "pt_1" / "scan", ending="_image.dcm")
        (self.folder / "pt_4").mkdir()
        Written(stored_values()).write(self.folder / "pt_4")
        self.put("pt_5_seg.dcm")
        found = find_references(self.folder)
        self.assertEqual(
            found,
            {
                "pt_1": self.folder / "pt_1" / "scan" / "1.dcm",
                "pt_2": self.folder / "pt_2" / "scan" / "2.dcm",
                "pt_3": self.folder / "pt_3_seg.dcm",
            },
        )


class Tags(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def classes(self) -> list[str | None]:
        return [attributes["class"] for tag, attributes in self.tags if tag == "article"]


class Page(unittest.TestCase):
    def test_nothing_comes_from_elsewhere_and_names_are_only_text(self) -> None:
        name = "<script>alert('x')</script>\"\u202e&"
        card = Card(name, "look at this", [Line(name, "fine", "1.0", "0.8", [name])], name, b"jpg")
        page = contact_sheet(name, name, [card])
        tags = Tags(page)
        self.assertEqual([tag for tag, _ in tags.tags].count("script"), 1)
        shown = name.replace("\u202e", r"\u202e")
        self.assertIn(shown, "".join(tags.text))
        for _, attributes in tags.tags:
            for key in ("src", "href"):
                self.assertRegex(attributes.get(key) or "data:", "^data:")
        self.assertNotRegex(page, r"https?://|@import|url\(")

    def test_cards_keep_their_order_and_kinds(self) -> None:
        kinds = ["failed", "do not use", "look at this", "not known", "fine"]
        tags = Tags(contact_sheet("t", "s", [Card(k, k) for k in kinds]))
        self.assertEqual(tags.classes(), ["failed", "unusable", "look", "unknown", "fine"])
        boxes = [a["value"] for tag, a in tags.tags if a.get("type") == "checkbox"]
        self.assertEqual(boxes, tags.classes())


class Thumbnail(unittest.TestCase):
    def test_contours_are_where_the_structure_is(self) -> None:
        """In each of the three planes, around what is bright in the image."""
        shape = (40, 50, 30)
        mask = np.zeros(shape, bool)
        mask[8:20, 10:30, 6:18] = True
        grid = Grid(shape, (2.0, 1.5, 3.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        image = Volume(np.where(mask, 200, -50).astype(np.int16), grid, "CT")
        red = Structure("box", 1, (1.0, 0.0, 0.0))
        pictures = [
            matplotlib.image.imread(
                io.BytesIO(draw_thumbnail(image, {"box": mask}, structures)), "jpg"
            ).astype(int)
            for structures in ([], [red])
        ]
        bright = pictures[0].min(2) > 150
        self.assertEqual(ndimage.label(bright)[1], 3)
        drawn = abs(pictures[1] - pictures[0]).max(2) > 60
        edge = bright & ~ndimage.binary_erosion(bright, iterations=2)
        self.assertGreater(drawn[edge].mean(), 0.5)
        self.assertGreater(ndimage.binary_dilation(edge, iterations=3)[drawn].mean(), 0.98)
        colour = pictures[1][drawn].mean(0)
        self.assertGreater(colour[0], colour[2] + 50)


class Newest(unittest.TestCase):
    """Which of several results of a volume counts."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_what_is_there_by_time_and_what_is_of_this_run(self) -> None:
        early, late = ({"time": f"2026-01-0{day}T10:00:00.000+00:00"} for day in (1, 2))
        reports = {"a.seg.nrrd": late, "a_seg.nii.gz": early, "b_seg.nrrd": early, "own.nii": early}
        for name in reports:
            (self.folder / name).touch()
        self.assertEqual(
            list(newest_results(self.folder, reports)), ["a.seg.nrrd", "b_seg.nrrd", "own.nii"]
        )
        of_now = newest_results(self.folder, reports, {"a_seg.nii.gz"})
        self.assertEqual(list(of_now), ["a_seg.nii.gz", "b_seg.nrrd", "own.nii"])
        (self.folder / "a.seg.nrrd").unlink()
        self.assertEqual(newest_results(self.folder, reports), of_now)

    def test_reports_of_before_count_by_their_file(self) -> None:
        reports = {"a.seg.nrrd": {}, "a_seg.nii.gz": {"time": "soon"}, "b_seg.nii.gz": {}}
        for seconds, name in enumerate(("a_seg.nii.gz", "a.seg.nrrd"), 1):
            (self.folder / name).touch()
            os.utime(self.folder / name, (seconds, seconds))
        found = newest_results(self.folder, reports)
        self.assertEqual(list(found), ["a.seg.nrrd", "b_seg.nii.gz"])
        os.utime(self.folder / "a_seg.nii.gz", (3, 3))
        found = newest_results(self.folder, reports)
        self.assertEqual(list(found), ["a_seg.nii.gz", "b_seg.nii.gz"])

    def test_reports_of_before_only_warn_of_a_support(self) -> None:
        for report, learned in (
            ({"is_support": True}, True),
            ({"warnings": ["x", SUPPORT_WARNING]}, True),
            ({"warnings": ["x"]}, False),
            ({}, False),
        ):
            self.assertEqual(is_support(report), learned)


class ManyVolumes(TrainedWorld):
    """The command on a folder: three that are good, one cut short."""

    def setUp(self) -> None:
        super().setUp()
        self.data, self.out = self.folder / "data", self.folder / "out"
        for name, patient in (
            ("p1", self.query),
            ("p2", self.supports[0]),
            ("p3", self.supports[1]),
        ):
            (self.data / name).mkdir(parents=True)
            shutil.copy(patient.image, self.data / name / "ct.nii.gz")
            shutil.copy(patient.segmentation, self.data / name / "ct_seg.nii.gz")
        whole = self.query.image.read_bytes()
        (self.data / "p0").mkdir()
        (self.data / "p0" / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])

    def arguments(self, *more: str) -> list[str]:
        return self.segment_arguments(self.adapter, self.out, str(self.data), *more)

    def segmented(self, *more: str) -> Ran:
        return run(*self.arguments(*more))

    def table(self) -> list[dict[str, str]]:
        text = (self.out / "volumes.csv").read_bytes().decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))

    def counting(self) -> tuple[list[str], Any]:
        """The queries that are really segmented."""
        real, calls = batch.segment, []

        def count(*arguments: Any, **options: Any) -> Any:
            calls.append(Path(arguments[1]).parent.name)
            return real(*arguments, **options)

        return calls, mock.patch.object(batch, "segment", count)

    def test_one_command_one_table_one_page(self) -> None:
        ran = self.segmented()
        self.assertEqual(ran.status, 2)
        self.assertIn("1 of 4 queries could not be segmented; the other 3 were.", ran.err)
        self.assertNotIn("Traceback", ran.err)
        names = {"p1_seg.nii.gz", "p2_seg.nii.gz", "p3_seg.nii.gz"}
        others = {"report.json", "volumes.csv", "volumes.html", "pictures"}
        self.assertEqual(set(os.listdir(self.out)), names | others)
        rows = self.table()
        self.assertEqual(len(rows), 3 * 2 + 1)
        self.assertEqual({r["result"] for r in rows if not r["error"]}, names)
        self.assertEqual([r["volume"] for r in rows if r["error"]], ["p0"])
        reports = json.loads((self.out / "report.json").read_text("utf-8"))["results"]
        for row in rows:
            if row["error"]:
                continue
            entry = reports[row["result"]]["structures"][row["structure"]]
            self.assertEqual(float(row["ml"]), entry["volume_ml"])
            self.assertEqual(row["verdict"], entry["trust"]["verdict"])
            self.assertEqual(row["reasons"], "; ".join(entry["trust"]["reasons"]))
            self.assertGreater(float(row["seconds"]), 0)
            learned = row["volume"] != "p1"
            self.assertEqual(reports[row["result"]]["is_support"], learned)
            self.assertEqual(row["reasons"].startswith(LEARNED), learned)
            if learned:
                self.assertIn(row["verdict"], (LOOK, UNUSABLE))
        self.assertLess(ran.out.rindex("expected Dice"), ran.out.rindex("volumes.csv"))
        tags = Tags((self.out / "volumes.html").read_text("utf-8"))
        self.assertEqual(tags.classes()[0], "failed")
        self.assertEqual(len(tags.classes()), 4)
        self.assertEqual([tag for tag, _ in tags.tags].count("img"), 3)
        picture = matplotlib.image.imread(self.out / "pictures" / "p1.jpg")
        self.assertEqual(picture.shape[2], 3)

    def test_what_is_done_is_not_done_again(self) -> None:
        first = self.segmented()
        before = (self.out / "p2_seg.nii.gz").stat().st_mtime_ns
        calls, counted = self.counting()
        with counted:
            second = self.segmented()
        self.assertEqual(calls, ["p0"])  # the one that failed is tried again
        self.assertEqual((self.out / "p2_seg.nii.gz").stat().st_mtime_ns, before)
        self.assertEqual(second.out.count("(done before)"), 3)
        self.assertEqual(len(self.table()), 7)
        self.assertEqual(second.out.splitlines()[-1], first.out.splitlines()[-1])
        calls, counted = self.counting()
        with counted:
            self.segmented("--no-transductive")
            self.assertEqual(sorted(calls), ["p0", "p1", "p2", "p3"])  # other options
            calls.clear()
            shutil.copy(self.supports[1].image, self.data / "p1" / "ct.nii.gz")
            (self.out / "p2_seg.nii.gz").unlink()
            self.segmented("--no-transductive")
            self.assertEqual(
                sorted(calls), ["p0", "p1", "p2"]
            )  # other voxels; a result that is gone
            calls.clear()
            self.segmented("--no-transductive", "--again")
            self.assertEqual(sorted(calls), ["p0", "p1", "p2", "p3"])

    def test_from_python_it_is_asked_for(self) -> None:
        options = {"model": str(self.model), "runtime": self.runtime}
        for resume, known in ((False, 0), (False, 0), (True, 3)):
            found = list(
                segment_each(self.adapter, [self.data], self.out, resume=resume, **options)
            )
            self.assertEqual([o.name for o in found], ["p0", "p1", "p2", "p3"])
            self.assertEqual(sum(o.before is not None for o in found), known)
            self.assertEqual(sum(o.report is not None for o in found), 3)

    def test_killed_half_way_and_started_again(self) -> None:
        """A real process, killed without warning while its third volume is at work."""
        command = [sys.executable, "-m", "FewShotSegLib", *self.arguments("--events")]
        root = str(Path(batch.__file__).resolve().parents[2])
        with subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if event.get("phase") == "segment" and event.get("subject") == "ct.nii.gz":
                    if (self.out / "p1_seg.nii.gz").exists():
                        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                        break
            process.stdout.read()
        self.assertTrue((self.out / "p1_seg.nii.gz").exists())
        self.assertFalse((self.out / "p3_seg.nii.gz").exists())
        self.assertTrue((self.out / "volumes.csv").exists())
        calls, counted = self.counting()
        with counted:
            ran = self.segmented()
        self.assertEqual(ran.status, 2)
        self.assertEqual(calls, ["p0", "p2", "p3"])
        self.assertEqual(len(self.table()), 7)
        page = (self.out / "volumes.html").read_text("utf-8")
        self.assertEqual(page.count("<img "), 3)
        left = [name for name in os.listdir(self.out) if re.search(r"partial|tmp", name)]
        self.assertEqual(left, [])

    def test_a_folder_is_evaluated(self) -> None:
        self.segmented()
        shutil.rmtree(self.data / "p3")
        scores = self.folder / "scores.csv"
        arguments = ["evaluate", "--reference", str(self.data), "--prediction", str(self.out)]
        ran = run(*arguments, "--csv", str(scores), "--json", str(self.folder / "s.json"))
        self.assertEqual(ran.status, 2)
        self.assertIn("1 of 3 could not be compared:\n", ran.err)
        self.assertIn("p3: there is no reference in", ran.err)
        rows = list(csv.DictReader(io.StringIO(scores.read_bytes().decode("utf-8-sig"))))
        self.assertEqual(len(rows), 2 * 2 + 1)
        for row in rows:
            if row["note"].startswith("there is no reference"):
                self.assertEqual(row["volume"], "p3")
                continue
            pair = (
                self.data / row["volume"] / "ct_seg.nii.gz",
                self.out / f"{row['volume']}_seg.nii.gz",
            )
            one = evaluate_files(*pair, parse_structures(STRUCTURES))[row["structure"]]
            self.assertEqual(float(row["dice"]), round(one.dice, 4))
            self.assertEqual(float(row["reference_ml"]), round(one.reference_ml, 4))
            self.assertIn(row["verdict"], VERDICTS)
            self.assertEqual(row["note"].startswith(SUPPORT), row["volume"] == "p2")
        # p2 is a support: p1 alone is in the means.
        self.assertEqual(ran.out.count("mean of 1 "), 2)
        self.assertEqual(ran.out.count(SUPPORT), 2)
        written = json.loads((self.folder / "s.json").read_text("utf-8"))["volumes"]
        self.assertEqual(sorted(written), ["p1", "p2", "p3"])
        self.assertTrue(written["p2"]["is_support"])
        pair = self.data / "p1" / "ct_seg.nii.gz", self.out / "p1_seg.nii.gz"
        arguments = ["evaluate", "--reference", str(pair[0]), "--prediction", str(pair[1])]
        ran = run(*arguments, "--csv", str(scores))
        self.assertEqual(ran.status, 2)
        self.assertIn("--csv is for a folder of results", ran.err)

    def test_of_two_formats_the_newest_counts(self) -> None:
        """p1 and p2 again by another adapter, p3 only as before."""
        self.segmented("--format", "seg.nrrd")
        before = {path.name: path.read_bytes() for path in self.out.glob("*.seg.nrrd")}
        trained, other = TrainedAdapter.load(self.adapter), self.folder / "other.fseft"
        trained.training["seed"] = 7
        trained.save(other)
        shutil.move(self.data / "p3", self.folder / "p3")
        for more in (["--no-pictures"], []):  # what was done before gets no picture either
            run(*self.segment_arguments(other, self.out, str(self.data), *more))
        for name, data in before.items():
            self.assertEqual((self.out / name).read_bytes(), data)
        both = ["p1_seg.nii.gz", "p2_seg.nii.gz", "p3.seg.nrrd"]
        for wanted, again in ((both, None), (sorted(before), self.folder / "p3")):
            if again is not None:  # nothing is left to do, but what was asked for is listed
                shutil.move(again, self.data / "p3")
                self.segmented("--format", "seg.nrrd")
            rows = [row for row in self.table() if not row["error"]]
            self.assertEqual(len(rows), 3 * 2)
            self.assertEqual(sorted({row["result"] for row in rows}), wanted)
            page = Tags((self.out / "volumes.html").read_text("utf-8"))
            self.assertEqual(len(page.classes()), 4)
            pictured = [a["alt"] for tag, a in page.tags if tag == "img"]
            self.assertEqual(sorted(pictured), ["p3"] if again is None else ["p1", "p2", "p3"])
            text = "".join(page.text)
            by = " by 2 adapters" if again is None else ""
            self.assertIn(f"{self.out.name}3 segmented{by}, 1 failed", text)
        scored = run("evaluate", "--reference", str(self.data), "--prediction", str(self.out))
        self.assertEqual(scored.status, 0, scored.err)
        self.assertEqual(len(re.findall("(?m)^p[123] ", scored.out)), 3 * 2, scored.out)

    def test_a_picture_of_a_report_of_before_is_shown(self) -> None:
        """Neither of them says when it was made."""
        self.segmented()
        path = self.out / "report.json"
        reports = json.loads(path.read_text("utf-8"))
        for report in reports["results"].values():
            del report["time"]
        path.write_text(json.dumps(reports), "utf-8")
        picture = self.out / "pictures" / "p1.jpg"
        drawn = picture.read_bytes()
        comment = comment_of(drawn)
        self.assertIn("p1_seg.nii.gz", comment)
        plain = drawn.replace(with_comment(b"", comment), b"")
        self.assertEqual(with_comment(plain, comment), drawn)
        picture.write_bytes(plain)
        self.segmented()
        page = Tags((self.out / "volumes.html").read_text("utf-8"))
        self.assertEqual([a["alt"] for tag, a in page.tags if tag == "img"], ["p1"])

    def test_another_table_in_the_way_stays(self) -> None:
        self.out.mkdir()
        for name in ("volumes.csv", "volumes.html"):
            (self.out / name).write_bytes(b"my own\xff")
            ran = self.segmented()
            self.assertEqual(ran.status, 2)
            self.assertIn(f"{name} is there already and is not FewShotSeg's", ran.err)
            self.assertEqual((self.out / name).read_bytes(), b"my own\xff")
            self.assertEqual(os.listdir(self.out), [name])
            (self.out / name).unlink()

    def test_a_picture_that_fails_costs_no_result(self) -> None:
        with mock.patch.object(listing, "draw_thumbnail", side_effect=ValueError("odd")):
            ran = self.segmented()
        self.assertIn("There is no picture of p1. odd", ran.err)
        self.assertEqual(len(self.table()), 7)

    def test_one_of_a_folder_is_as_one_alone(self) -> None:
        for name in ("p0", "p2", "p3"):
            shutil.rmtree(self.data / name)
        self.assertEqual(self.segmented().status, 0)
        self.assertEqual(sorted(os.listdir(self.out)), ["p1_seg.nii.gz", "report.json"])


if __name__ == "__main__":
    unittest.main()
