"""Supports that are annotated on some slices only: by Python, by the command, and in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from pipeline_case import PipelineTestCase, state_bytes
from tiny_model import (
    QUICK,
    STRUCTURES,
    Patient,
    make_grid,
    run,
    write_array,
    write_patient,
)

from FewShotSegLib.cli.describe import adapter_text
from FewShotSegLib.compute.known_voxels import plane_of
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import adapt, adaptation, read_support
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata

AXIS = 2
"""Along which slices are left out."""
SHORT = replace(QUICK, epochs=3)


class SparseCase(PipelineTestCase):
    """With two larger patients, whose structures are on seven slices or so."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.whole = [write_patient(cls.world, f"large{n}", n + 20, scale=1.4) for n in range(2)]
        cls.plane = plane_of(AXIS, make_grid())

    def setUp(self) -> None:
        super().setUp()
        self.events: list[dict[str, Any]] = []
        self.listening = replace(self.runtime, events=self.events.append)

    def labels(self, patient: Patient) -> np.ndarray:
        return read_image(patient.segmentation).array

    def drawn(self, patient: Patient, one: bool = False) -> Patient:
        """The same on every other slice alone, or on one."""
        labels = self.labels(patient)
        used = np.flatnonzero(labels.any((0, 1)))
        kept = used[len(used) // 2 : len(used) // 2 + 1] if one else used[::2]
        known = np.zeros(labels.shape, bool)
        known[..., kept] = True
        path = self.folder / f"{patient.image.name}-{one}.nii.gz"
        return Patient(patient.image, write_array(path, labels * known, make_grid()))

    def mask(self, name: str, known: np.ndarray, grid: Grid | None = None) -> Path:
        path = self.folder / f"{name}.nii.gz"
        return write_array(path, known.astype(np.uint8), grid or make_grid())

    def kept(self, name: str, axis: int, numbers: slice, in_turns: bool = False) -> Patient:
        """The first patient on some of the slices along an axis that have structures; with
        ``in_turns`` the second structure is on those between them instead."""
        patient = self.whole[0]
        labels = self.labels(patient)
        along = np.moveaxis(labels, axis, 0)
        used = np.flatnonzero(along.any((1, 2)))[numbers]
        known = np.zeros(labels.shape, bool)
        np.moveaxis(known, axis, 0)[used] = True
        turns = np.zeros(labels.shape, bool)
        np.moveaxis(turns, axis, 0)[used + 1] = True
        second = 5 if in_turns else -1  # the pea
        drawn = labels * np.where(labels == second, turns, known)
        path = write_array(self.folder / f"{name}.nii.gz", drawn.astype(np.uint8), make_grid())
        return Patient(patient.image, path)

    def warnings(self) -> str:
        return "\n".join(e["message"] for e in self.events if e["event"] == "warning")

    def learn(self, patients: Sequence[Patient], sparse: Any, **options: Any) -> TrainedAdapter:
        usual = {"settings": SHORT, "runtime": self.listening}
        return self.adapt(*[p.paths for p in patients], sparse=sparse, **{**usual, **options})


class Training(SparseCase):
    def test_what_is_unknown_changes_nothing(self) -> None:
        """To the bit, by whatever method: the labels there may be any."""
        patient = self.whole[0]
        labels, rng = self.labels(patient), np.random.default_rng(0)
        known = np.zeros(labels.shape, bool)
        known[4:18, 3:16, 3:8] = True
        noise = rng.choice([0, 4, 5], labels.shape).astype(np.uint8)
        other = write_array(self.folder / "o.nii.gz", np.where(known, labels, noise), make_grid())
        self.assertFalse(np.array_equal(read_image(other).array, labels))
        mask = self.mask("known", known)
        for options in (
            {},
            {"method": "linear-probe"},
            {"method": "ft", "settings": {"epochs": 1}, "epochs": 2},
            {"method": "ft", "preset": "published", "settings": {}, "epochs": 2},
        ):
            own = {"model": str(self.model), "structures": STRUCTURES, "runtime": self.listening}
            own |= {"settings": SHORT, **options}
            with self.subTest(options):
                first = adapt([patient.paths], sparse=mask, **own)
                second = adapt([(patient.image, other)], sparse=mask, **own)
                self.assertEqual(state_bytes(first), state_bytes(second))
                self.assertEqual(first.content_sha256(), second.content_sha256())
                whole = adapt([(patient.image, other)], **own)
                self.assertNotEqual(state_bytes(first), state_bytes(whole))

    def test_drawn_slices_by_themselves_or_by_name(self) -> None:
        patients = [self.drawn(p) for p in self.whole]
        first = self.learn(patients, "auto")
        self.assertEqual(self.warnings(), "")
        for sparse in (self.plane, [self.plane] * 2, ("auto", self.plane)):
            found = self.learn(patients, sparse)
            self.assertEqual(found.content_sha256(), first.content_sha256())
        record = first.supports[0]["known"]
        used = np.flatnonzero(self.labels(patients[0]).any((0, 1)))
        self.assertEqual((record["plane"], record["slices"]), (self.plane, len(used)))

    def test_it_is_never_taken_for_sparse_by_itself(self) -> None:
        patients = [self.drawn(p) for p in self.whole]
        found = self.learn(patients, None)
        self.assertFalse(any("known" in s for s in found.supports))
        self.assertTrue(all(prior.basis is None for prior in found.priors.values()))

    def test_one_without_a_gap_is_whole_and_that_is_said(self) -> None:
        usual = self.learn(self.whole, None)
        self.assertEqual(self.warnings(), "")
        found = self.learn(self.whole, "auto")
        self.assertEqual(state_bytes(found), state_bytes(usual))
        self.assertEqual(found.priors, usual.priors)
        self.assertIn("Support 2 is drawn without a gap, and is taken for whole", self.warnings())
        self.events.clear()
        silent = self.learn(self.whole, "whole")
        self.assertEqual((state_bytes(silent), self.warnings()), (state_bytes(usual), ""))

    def test_an_interrupted_training_is_gone_on_with_where_the_same_is_known(self) -> None:
        """A corner that is known to be empty changes no target, and yet the training."""
        patient, marks = self.whole[0], []
        usual = {
            "out": self.folder / "a.fseft",
            "priors_ml": {"bean": 5.0, "pea": 5.0},
            "gamma": 0.4,
        }
        known = self.labels(patient).any((0, 1))
        with mock.patch.object(adaptation, "Checkpoint") as kept:
            kept.return_value.restore.side_effect = InterruptedError
            for more in (False, True, False):
                mask = np.zeros(self.labels(patient).shape, bool)
                mask[..., known] = True
                mask[:2, :2, 0] = more
                with self.assertRaises(InterruptedError):
                    self.learn([patient], self.mask("m", mask), **usual)
                marks.append(kept.call_args[0][1])
        self.assertEqual(marks[0], marks[2])
        self.assertNotEqual(marks[0], marks[1])

    def test_from_memory(self) -> None:
        """A Support says itself what is known; a mask on a file says the same."""
        whole = read_support(*self.whole[0].paths, STRUCTURES)
        known = np.zeros(whole.volume.grid.shape, bool)
        known[..., [4, 6]] = True
        own = replace(whole, annotation=replace(whole.annotation, known=known))
        first = self.adapt(own, settings=SHORT)
        mask = self.mask("two", known)
        second = self.adapt(self.whole[0].paths, sparse=[mask], settings=SHORT)
        self.assertEqual(first.content_sha256(), second.content_sha256())
        wrong = replace(own, annotation=replace(own.annotation, known=known[:-1]))
        with self.assertRaisesRegex(InputError, "What is known of .* voxels"):
            self.adapt(wrong)


class Sizes(SparseCase):
    def test_evenly_spread_slices_tell_the_size_and_it_is_said_so(self) -> None:
        patients, path = [self.drawn(p) for p in self.whole], self.folder / "a.fseft"
        found, usual = self.learn(patients, "auto", out=path), self.learn(self.whole, None)
        for name, prior in found.priors.items():
            true = usual.priors[name].mean
            self.assertEqual(prior.basis, "slices")
            self.assertLess(abs(prior.mean - true), 2.5 * prior.uncertainty)
            self.assertLess(abs(prior.mean - true), 0.15 * true)
            self.assertGreater(prior.gamma, 0.3 + 0.99 * prior.uncertainty / prior.mean)
            self.assertEqual(prior.pieces, 1)
            self.assertIn(name, found.supports[1]["uncertainty_mm3"])
        self.assertEqual(self.warnings(), "")
        data = read_metadata(path)
        self.assertEqual(data["format"], 6)
        loaded = TrainedAdapter.load(path)
        self.assertEqual(loaded.priors, found.priors)
        self.assertEqual(loaded.content_sha256(), found.content_sha256())
        self.assertIn("estimated from drawn slices, to ", adapter_text(data))
        self.assertIn("on 2 support(s) (2 of them annotated in part), ", adapter_text(data))
        self.assertIn("annotated in part it was measured there alone", adapter_text(data))
        report = self.segment(adapter=loaded).report["structures"]["bean"]
        self.assertEqual(report["prior"]["basis"], "slices")
        self.assertGreater(report["prior"]["uncertainty_ml"], 0)
        self.assertIn("measured there alone", report["expected_dice"]["sentence"])

    def test_whole_annotations_alone_where_there_are_any(self) -> None:
        patients = [self.whole[0], self.drawn(self.whole[1])]
        found = self.learn(patients, ["whole", "auto"])
        alone = self.learn(self.whole[:1], None)
        self.assertIn("2 support(s) (1 of them annotated in part)", adapter_text(found.metadata()))
        self.assertNotIn("annotated in part", adapter_text(alone.metadata()))
        for name, prior in found.priors.items():
            self.assertEqual((prior.basis, prior.count), (None, 1))
            self.assertEqual(prior.mean, alone.priors[name].mean)

    def test_a_box_with_background_all_around_shows_the_whole(self) -> None:
        labels = self.labels(self.whole[0])
        known = np.zeros(labels.shape, bool)
        places = np.argwhere(labels)
        box = [
            slice(max(0, a - 1), b + 2) for a, b in zip(places.min(0), places.max(0), strict=True)
        ]
        known[tuple(box)] = True
        found = self.learn(self.whole[:1], self.mask("box", known))
        usual = self.learn(self.whole[:1], None)
        self.assertEqual(found.priors, usual.priors)
        self.assertIn("known", found.supports[0])

    def test_without_a_size_transduction_has_no_say(self) -> None:
        patients = [self.drawn(p, one=True) for p in self.whole]
        found = self.learn(patients, self.plane, settings=QUICK)
        self.assertIn("The size of bean is not known", self.warnings())
        self.assertEqual({p.basis for p in found.priors.values()}, {"part"})
        self.assertEqual(found._repr_html_().count("<td>not known</td>"), 2)
        self.assertIn("not known: no annotation shows all of it", adapter_text(found.metadata()))
        result = self.segment(adapter=found)
        report = result.report["structures"]["bean"]
        self.assertEqual(report["transduction"]["changed_voxels"], 0)
        self.assertTrue(any("size of bean is not known" in w for w in result.report["warnings"]))
        self.assertEqual((report["prior"]["lower_ml"], report["prior"]["upper_ml"]), (0, None))
        known = self.learn(patients, self.plane, priors_ml={"bean": 5.0})
        self.assertEqual((known.priors["bean"].mean, known.priors["bean"].basis), (5000, None))
        self.assertEqual(self.warnings().count("The size of bean"), 1)


class BadInput(SparseCase):
    def refused(self, pattern: str, sparse: Any, patients: Sequence[Patient] = ()) -> None:
        with self.subTest(pattern), self.assertRaisesRegex(InputError, pattern):
            self.learn(patients or self.whole[:1], sparse, validate=False)

    def test_each_is_a_sentence(self) -> None:
        labels = self.labels(self.whole[0])
        other = make_grid("straight")
        self.refused("different grids", self.mask("grid", np.ones(labels.shape), other))
        self.refused("mask .* is empty", self.mask("empty", np.zeros(labels.shape)))
        corner = np.zeros(labels.shape)
        corner[:2, :2, :2] = 1
        self.refused("hides all that is annotated", self.mask("corner", corner))
        self.refused("There is no mask axail.*auto, sagittal, coronal, axial", "axail")
        self.refused("There are 2 supports, and it is said of 3", ["auto"] * 3, self.whole)
        self.refused("one for all 2 supports", self.mask("one", corner), self.whole)
        for wrong in (3, [], [None], "", {"auto": 1}):
            self.refused("What is known of supports is one of", wrong)

    def test_a_plane_that_the_gaps_contradict(self) -> None:
        for axis, other in ((0, 1), (1, 2), (2, 0)):
            plane, wrong = plane_of(axis, make_grid()), plane_of(other, make_grid())
            patients = [self.kept(f"every{axis}", axis, slice(0, None, 2))]
            self.refused(
                f"drawn on {wrong} slices, .* drawn on {plane} .*Say {plane}", wrong, patients
            )
            self.assertEqual(self.warnings(), "")

    def test_a_plane_that_the_gaps_make_unlikely_is_a_warning(self) -> None:
        wrong = plane_of(0, make_grid())
        found = self.learn([self.drawn(self.whole[0], one=True)], wrong, validate=False)
        self.assertRegex(self.warnings(), f"'bean' looks .* drawn on {self.plane} ones. If so, say")
        self.assertEqual(found.priors["bean"].basis, "part")

    def test_structures_on_slices_of_two_kinds(self) -> None:
        first = self.labels(self.kept("first", 2, slice(0, None, 2)))
        second = self.labels(self.kept("second", 1, slice(0, None, 2)))
        one, other = 4, 5
        both = np.where(first == one, one, 0) + np.where(
            (second == other) & (first != one), other, 0
        )
        path = write_array(self.folder / "b.nii.gz", both.astype(np.uint8), make_grid())
        patients = [Patient(self.whole[0].image, path)]
        for sparse in ("auto", self.plane, plane_of(1, make_grid())):
            self.refused("Draw all of them on slices of one kind", sparse, patients)

    def test_a_mask_has_one_label_and_names_background(self) -> None:
        labels = self.labels(self.whole[0])
        self.refused("is no mask: it has 2 labels", self.whole[0].segmentation)
        self.refused("nothing is known to be background", self.mask("own", labels > 0))
        around = labels > 0
        around[1:] |= labels[:-1] > 0
        self.learn(self.whole[:1], self.mask("around", around), validate=False)

    def test_a_word_of_supports_that_are_not_there(self) -> None:
        found = self.learn(self.whole[:1], None, validate=False)
        for sparse in ("auto", self.plane, str(self.mask("m", np.ones((2, 2, 2))))):
            with self.assertRaisesRegex(InputError, "there are none.*--support.*--sparse"):
                self.segment(adapter=found, sparse=sparse)

    def test_structures_that_were_drawn_in_turns(self) -> None:
        for sparse in ("auto", self.plane):
            self.events.clear()
            self.learn(
                [self.kept("t", 2, slice(0, None, 2), in_turns=True)], sparse, validate=False
            )
            self.assertIn("draw all structures on each slice, or give a mask", self.warnings())

    def test_supports_of_a_refinement_are_as_at_the_training(self) -> None:
        patients = [self.drawn(p) for p in self.whole]
        found, pairs = self.learn(patients, "auto"), [p.paths for p in patients]
        with self.assertRaisesRegex(InputError, "Support 1 was annotated in part.*--sparse"):
            self.segment(adapter=found, supports=pairs)
        for said in ("auto", "whole"):
            self.assertTrue(self.segment(adapter=found, supports=pairs, sparse=said).masks)
        with self.assertRaisesRegex(InputError, "Support 1 was annotated in part.*--sparse"):
            self.adapt(*pairs, continue_from=found, structures=None, settings={})
        more = {"continue_from": found, "structures": None, "settings": {}, "epochs": 1}
        second = self.adapt(*pairs, sparse="auto", validate=False, **more)
        self.assertEqual([r.added for r in second.rounds], [2, 0])


class Command(SparseCase):
    def arguments(self, out: Path, *more: str) -> list[str]:
        patients = [self.drawn(p) for p in self.whole]
        return self.adapt_arguments(out, "--no-validate", *more, supports=patients, epochs=2)

    def test_every_form(self) -> None:
        whole = np.ones(self.labels(self.whole[0]).shape)
        whole[..., :3] = 0
        forms = {
            "alone": ["--sparse"],
            "named": ["--sparse", self.plane],
            "each": ["--sparse", "auto", self.plane],
            "masks": ["--sparse", str(self.mask("m", whole)), "whole"],
        }
        found = {}
        for name, form in forms.items():
            out = self.folder / f"{name}.fseft"
            ran = run(*self.arguments(out, *form))
            self.assertEqual(ran.status, 0, ran.err)
            found[name] = TrainedAdapter.load(out)
        first = found["alone"].content_sha256()
        self.assertEqual({found[name].content_sha256() for name in ("named", "each")}, {first})
        self.assertEqual(["known" in s for s in found["masks"].supports], [True, False])
        result = self.folder / "seg.nii.gz"
        support = ["--support", *map(str, self.drawn(self.whole[0]).paths)]
        arguments = self.segment_arguments(
            self.folder / "alone.fseft", result, *support, "--sparse", "auto", str(self.query.image)
        )
        ran = run(*arguments)
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(result.exists())

    def test_what_is_wrong_is_a_sentence(self) -> None:
        out = self.folder / "no.fseft"
        ran = run(*self.arguments(out, "--sparse", "nothing.nii.gz", "auto"))
        self.assertEqual(ran.status, 2)
        self.assertIn("There is no mask nothing.nii.gz", ran.err)
        self.assertFalse(out.exists())
