"""nnU-Net v2's folders, as they are published, and forty ways in which they can't be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import nnunet_files as files
import numpy as np
import torch
from entry_case import EntryTestCase
from tiny_model import run

from FewShotSegLib import add_model
from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.inference.published import published_scores
from FewShotSegLib.models.formats.adding import Unanswered
from FewShotSegLib.models.formats.nnunet_trainers import changes_network, keeps_network
from FewShotSegLib.models.registry import Model, find_model


def changed(make: Callable[[], dict[str, Any]], path: str, value: Any) -> dict[str, Any]:
    """A document with one field at ``path`` (parts apart by /) changed, or removed for None."""
    data = make()
    *parents, last = path.split("/")
    inner = data
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return data


FULL = "configurations/3d_fullres"
NETWORK = f"{FULL}/architecture/arch_kwargs"


class FilesCase(EntryTestCase):
    """With a home of its own."""

    def added(self, **written: Any) -> Model:
        """What becomes of a folder."""
        shutil.rmtree(self.models, ignore_errors=True)
        shutil.rmtree(self.folder / "theirs", ignore_errors=True)
        folder = files.write(self.folder / "theirs", **written)
        return find_model(add_model(folder).id)


class ReadingTest(FilesCase):
    """Everything that is known from the files alone."""

    def test_all_of_it(self) -> None:
        found = self.added()
        entry = found.entry
        self.assertEqual(entry.id, "Tiny-3d_fullres")
        self.assertEqual(entry.classes, {"liver": 1, "left kidney": 2})
        self.assertEqual((entry.activation, entry.background), ("softmax", 0))
        self.assertEqual(
            (entry.modality, entry.window, entry.overlap), (("MR",), (8, 16, 16), 0.25)
        )
        preprocessing = entry.preprocessing["MR"]
        self.assertEqual(preprocessing.orientation, "SAR")
        self.assertEqual(preprocessing.spacing, (3, 1.5, 1.5))
        self.assertEqual(
            (preprocessing.intensity, preprocessing.mask, preprocessing.crop, preprocessing.least),
            ("standardise", None, "nonzero", (8, 16, 16)),
        )
        self.assertEqual(found.backbone.strides, (1, (1, 2, 2), (2, 4, 4)))
        torch.testing.assert_close(
            dict(found.backbone.state_dict()), dict(files.network().state_dict())
        )

    def test_every_path_that_means_it(self) -> None:
        folder = files.write(self.folder / "theirs")
        for number, path in enumerate(
            (
                folder,
                folder.parent,
                folder / "fold_0",
                folder / "fold_0" / "checkpoint_final.pth",
                folder / "plans.json",
            )
        ):
            with self.subTest(path.name):
                self.assertEqual(add_model(path, name=f"m{number}").id, f"m{number}")

    def test_old_plans_and_both_networks(self) -> None:
        for kind, name in (("plain", "PlainConvUNet"), ("residual", "ResidualEncoderUNet")):
            state = files.network(kind=kind).state_dict()
            for make in (files.plans, files.old_plans):
                with self.subTest(kind, make=make.__name__):
                    found = self.added(plan=make(name), weights=files.checkpoint(state))
                    torch.testing.assert_close(dict(found.backbone.state_dict()), dict(state))

    def test_inherited_configurations(self) -> None:
        plan = files.plans()
        plan["configurations"] |= {
            "child": {"inherits_from": "3d_fullres", "patch_size": [8, 16, 24]},
            "grandchild": {"inherits_from": "child", "batch_size": 2},
        }
        weights = files.checkpoint(
            files.network().state_dict(), init_args={"configuration": "grandchild"}
        )
        self.assertEqual(self.added(plan=plan, weights=weights).entry.window, (8, 16, 24))

    def test_axes_that_were_turned(self) -> None:
        plan = changed(files.plans, "transpose_forward", [2, 0, 1])
        found = self.added(plan=plan)
        self.assertEqual(found.entry.preprocessing["MR"].orientation, "RSA")

    def test_intensities(self) -> None:
        for scheme, masked, expected in (
            (
                "CTNormalization",
                False,
                {"intensity": "standardise", "low": -60, "high": 240, "mean": 90.5, "std": 20.25},
            ),
            ("ZScoreNormalization", True, {"intensity": "standardise", "mask": "filled"}),
            ("NoNormalization", False, {"intensity": "identity"}),
            ("RescaleTo01Normalization", False, {"intensity": "unit"}),
            ("RGBTo01Normalization", False, {"intensity": "window", "low": 0, "high": 255}),
        ):
            plan = changed(files.plans, f"{FULL}/normalization_schemes", [scheme])
            plan["configurations"]["3d_fullres"]["use_mask_for_norm"] = [masked]
            data = self.added(plan=plan).entry.preprocessing["MR"].to_json()
            self.assertEqual({k: data[k] for k in data if k in expected}, expected)
            self.assertEqual(
                set(data) - set(expected) - {"low", "high", "mask", "mean", "std"},
                {"orientation", "spacing", "crop", "resampling", "least"},
            )

    def test_labels_regions_and_ignore(self) -> None:
        labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
        found = self.added(
            data=files.dataset(labels=labels, regions_class_order=[1, 2]),
            weights=files.checkpoint(files.network(2).state_dict()),
        )
        self.assertEqual(found.entry.classes, {"whole": 0, "core": 1})
        self.assertEqual((found.entry.activation, found.entry.background), ("sigmoid", None))
        labels = {"background": 0, "a": 1, "b": 2, "ignore": 3}
        self.assertEqual(
            self.added(data=files.dataset(labels=labels)).entry.classes, {"a": 1, "b": 2}
        )
        labels = {"background": 0, "left kidney": 1, "kidney_left": 2}
        self.assertEqual(
            self.added(data=files.dataset(labels=labels)).entry.classes, {"left kidney": 1}
        )

    def test_prefixes_and_trainers(self) -> None:
        state = files.checkpoint(files.network().state_dict())
        names = state["network_weights"]
        for prefix in ("module.", "_orig_mod.", "_orig_mod.module."):
            renamed = {prefix + name: tensor for name, tensor in names.items()}
            found = self.added(weights={**state, "network_weights": renamed})
            self.assertIsNotNone(found.backbone)
        for trainer in ("nnUNetTrainer_4000epochs_NoMirroring", "nnUNetTrainerDA5"):
            self.assertIsNotNone(self.added(weights={**state, "trainer_name": trainer}).backbone)

    def test_a_trainer_with_batch_normalisation(self) -> None:
        torch.manual_seed(0)
        network = files.NNUNet("plain", files.LEVELS, [2, 1], out_channels=3, norm="batch").eval()
        weights = files.checkpoint(network.state_dict(), trainer_name="nnUNetTrainerBN")
        self.assertEqual(self.added(weights=weights).backbone.norm, "batch")

    def test_which_weights(self) -> None:
        for place in ("fold_1/checkpoint_final.pth", "fold_1/checkpoint_best.pth"):
            files.write(self.folder / "theirs", place=place)
        folder = files.write(self.folder / "theirs")
        added = add_model(folder)
        self.assertIn("Of its folds 0, 1 one is taken, 0; --fold takes another.", added.facts)
        added = add_model(folder, fold="1", checkpoint="checkpoint_best.pth", name="b")
        self.assertIn("The weights are fold_1/checkpoint_best.pth.", added.facts)
        folder = files.write(self.folder / "unfinished", place="fold_all/checkpoint_latest.pth")
        self.assertIn("had not ended", " ".join(add_model(folder, name="c").facts))

    def test_resampling_of_another_kind_is_said(self) -> None:
        plan = changed(files.plans, f"{FULL}/resampling_fn_data", "resample_torch_fornnunet")
        facts = add_model(files.write(self.folder / "theirs", plan=plan)).facts
        self.assertIn("a linear kernel", facts[-1])

    def test_what_was_found_is_said_in_words(self) -> None:
        ran = run("models", "add", str(files.write(self.folder / "theirs")))
        self.assertEqual(ran.status, 0, ran.err)
        for words in (
            "This is an nnU-Net v2 result folder.",
            "The configuration '3d_fullres' of 'Dataset007_Tiny': a PlainConvUNet of 3 levels",
            "It knows 2 classes: 'liver', 'left kidney'.",
            "voxels of 3 x 1.5 x 1.5 mm",
            "--model Tiny-3d_fullres takes it.",
        ):
            self.assertIn(words, ran.out)
        for arguments in ([], ["--json"], ["Tiny-3d_fullres"]):
            listed = run("models", *arguments)
            self.assertEqual(listed.status, 0, listed.err)
            self.assertIn("Tiny-3d_fullres", listed.out)
        self.assertEqual(run("remove", "Tiny-3d_fullres").status, 0)
        self.assertEqual(self.left(), {"SHA256SUMS"} & self.left())


class AskingTest(FilesCase):
    """What the files don't say."""

    def test_all_that_is_missing_is_asked_for_together(self) -> None:
        plan = changed(files.plans, "image_reader_writer", "SimpleITKIO")
        weights = files.checkpoint(files.network().state_dict(), trainer_name="OurTrainer")
        folder = files.write(
            self.folder / "theirs", plan, files.dataset(channel_names={"0": "zscore"}), weights
        )
        with self.assertRaises(Unanswered) as caught:
            add_model(folder)
        for words in ("--modality MR", "--orientation RAS", "--trainer OurTrainer"):
            self.assertIn(words, str(caught.exception))
        self.assertEqual(self.left(), set())
        answers = {"modality": "CT,MR", "orientation": "lps", "trainer": "OurTrainer"}
        found = find_model(add_model(folder, **answers).id)
        self.assertEqual(set(found.entry.preprocessing), {"CT", "MR"})
        self.assertEqual(found.entry.preprocessing["CT"].orientation, "SPL")

    def test_what_is_known_of_its_orientation(self) -> None:
        name = "Dataset297_TotalSegmentator_total_3mm_1559subj"
        for data_set, reader, known in (
            (name, "SimpleITKIO", "SAR"),
            ("Dataset007_Tiny", "SimpleITKIOWithReorient", "SAR"),
            ("Dataset007_Tiny", "NibabelIO", None),
        ):
            plan = {**files.plans(), "dataset_name": data_set, "image_reader_writer": reader}
            with self.subTest(data_set, reader=reader):
                if known is None:
                    with self.assertRaisesRegex(Unanswered, "read as they lie in their files"):
                        self.added(plan=plan)
                else:
                    entry = self.added(plan=plan).entry
                    self.assertEqual(entry.preprocessing["MR"].orientation, known)

    def test_of_several_trainings_one(self) -> None:
        folder = files.write(self.folder / "theirs")
        other = folder.with_name(folder.name.replace("fullres", "lowres"))
        shutil.copytree(folder, other)
        with self.assertRaisesRegex(Unanswered, "There are 2 trainings.*--configuration 3d_full"):
            add_model(folder.parent)
        self.assertEqual(add_model(folder.parent, configuration="3d_fullres").id, "Tiny-3d_fullres")

    def test_channels(self) -> None:
        for name, kind in (("CT", "CT"), ("T1w", "MR"), ("T2-FLAIR", "MR"), ("mri", "MR")):
            found = self.added(data=files.dataset(channel_names={"0": name}))
            self.assertEqual(found.entry.modality, (kind,))

    def test_answers_that_can_not_be(self) -> None:
        folder = files.write(self.folder / "theirs")
        for telling, answers in (
            ("turned to RAS before training: leave out --orient", {"orientation": "LPS"}),
            ("three letters", {"orientation": "RAX"}),
            ("CT, MR or CT,MR", {"modality": "PET"}),
            ("CT, MR or CT,MR", {"modality": "CT,CT"}),
            ("A fold is a number", {"fold": "../0"}),
            ("There is no file 'other.pth'", {"checkpoint": "other.pth"}),
            ("There is no file '../plans.json'", {"checkpoint": "../plans.json"}),
            ("are of the configuration '3d_fullres', not '2d'", {"configuration": "2d"}),
        ):
            with self.subTest(telling), self.assertRaisesRegex(InputError, telling):
                add_model(folder, **answers)
        self.assertEqual(self.left(), set())


class TrainersTest(EntryTestCase):
    """By their names alone."""

    def test_names(self) -> None:
        for name in (
            *("nnUNetTrainer", "nnUNetTrainerNoMirroring", "nnUNetTrainer_onlyMirror01_DASegOrd0"),
            *("nnUNetTrainer_250epochs", "nnUNetTrainer_1epoch", "nnUNetTrainerDiceTopK10Loss"),
            *("nnUNetTrainer_DASegOrd0_NoMirroring", "nnUNetTrainerAdan1en3"),
        ):
            self.assertTrue(keeps_network(name), name)
        for name in ("nnUNetTrainerOurs", "Trainer", "nnUNetTrainer_", "nnUNetTrainerUMambaBot"):
            self.assertFalse(keeps_network(name), name)
        for name in (
            "nnUNet_Primus_M_Trainer",
            "nnUNetTrainerUMambaBot",
            "nnUNetTrainer_SwinUNETR",
        ):
            self.assertTrue(changes_network(name), name)


class Trap:
    """Touches a file where a pickle with it is opened."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("opened"),)


def spoilt() -> dict[str, tuple[str, dict[str, Any]]]:
    """Of each wrong, hostile or half folder: what the sentence says, and what is written."""
    state = files.network().state_dict()
    weights = files.checkpoint(state)
    names = weights["network_weights"]
    first = next(iter(names))
    alias = next(name for name in names if "all_modules" in name)
    plan, data = files.plans, files.dataset

    def plan_with(path: str, value: Any) -> dict[str, Any]:
        return {"plan": changed(plan, path, value)}

    def weights_with(**changes: Any) -> dict[str, Any]:
        return {"weights": {**weights, **changes}}

    two = {
        "configurations": {
            "3d_fullres": {"inherits_from": "b"},
            "b": {"inherits_from": "3d_fullres"},
        }
    }
    return {
        "no JSON": ("plans.json is not JSON", {"plan": "{"}),
        "a list": ("is no object", {"plan": []}),
        "NaN": ("is not a number of JSON", {"plan": '{"a": NaN}'}),
        "nested": ("nested more than", {"plan": "[" * 90 + "]" * 90}),
        "no configurations": ("no 'configurations'", plan_with("configurations", None)),
        "another configuration": (
            "has no configuration '3d_lowres', only '3d_fullres'",
            weights_with(init_args={"configuration": "3d_lowres"}),
        ),
        "a circle": ("inherits from itself", {"plan": {**plan(), **two}}),
        "an heir of none": (
            "no configuration 'gone'",
            plan_with(f"{FULL}/inherits_from", "gone"),
        ),
        "2D": ("is 2D", plan_with(f"{FULL}/patch_size", [16, 16])),
        "a cascade": ("second of a cascade", plan_with(f"{FULL}/previous_stage", "3d_lowres")),
        "a preprocessor": (
            "prepares images with 'Ours'",
            plan_with(f"{FULL}/preprocessor_name", "Ours"),
        ),
        "a network": (
            "Its network is 'os.system'",
            plan_with(f"{FULL}/architecture/network_class_name", "os.system"),
        ),
        "an old network": (
            "Its network is 'Ours'",
            {"plan": changed(files.old_plans, f"{FULL}/UNet_class_name", "Ours")},
        ),
        "half an old plan": (
            "says nothing of the network",
            {"plan": changed(files.old_plans, f"{FULL}/conv_kernel_sizes", None)},
        ),
        "no network": ("says nothing of the network", plan_with(f"{FULL}/architecture", None)),
        "an argument": ("'attention' = True", plan_with(f"{NETWORK}/attention", True)),
        "non-linearity first": (
            "'nonlin_first' = True",
            plan_with(f"{NETWORK}/nonlin_first", True),
        ),
        "2D convolutions": ("'Conv2d'", plan_with(f"{NETWORK}/conv_op", "torch.nn.Conv2d")),
        "a normalisation": ("'GroupNorm'", plan_with(f"{NETWORK}/norm_op", "torch.nn.GroupNorm")),
        "its epsilon": (
            "Its normalisation has",
            plan_with(f"{NETWORK}/norm_op_kwargs", {"eps": 1}),
        ),
        "a non-linearity": ("'GELU'", plan_with(f"{NETWORK}/nonlin", "torch.nn.GELU")),
        "fewer kernels": ("no list of 3", plan_with(f"{NETWORK}/kernel_sizes", [[3, 3, 3]])),
        "an even kernel": ("an odd number", plan_with(f"{NETWORK}/kernel_sizes", [[2, 2, 2]] * 3)),
        "a stride at first": (
            "the 'stride' of the first level",
            plan_with(f"{NETWORK}/strides", [[2, 2, 2]] * 3),
        ),
        "many channels": (
            "billion parameters",
            plan_with(f"{NETWORK}/features_per_stage", [2048] * 3),
        ),
        "a normaliser": (
            "normalised by 'OurNormalization', which is not known",
            plan_with(f"{FULL}/normalization_schemes", ["OurNormalization"]),
        ),
        "no intensities": (
            "lack one of percentile_00_5",
            {
                "plan": {
                    **changed(plan, f"{FULL}/normalization_schemes", ["CTNormalization"]),
                    "foreground_intensity_properties_per_channel": {"0": {"mean": 1.0}},
                }
            },
        ),
        "an order of axes": (
            "no order of axes",
            plan_with("transpose_forward", [0, 0, 1]),
        ),
        "a spacing": ("'spacing' in plans.json is not", plan_with(f"{FULL}/spacing", [1, 1])),
        "no spacing": ("Spacing .* is not three", plan_with(f"{FULL}/spacing", [0, 1, 1])),
        "a patch": ("'patch_size' in plans.json", plan_with(f"{FULL}/patch_size", ["8", 8, 8])),
        "a large patch": ("'least' is|'window' is", plan_with(f"{FULL}/patch_size", [999] * 3)),
        "several images": (
            r"takes 2 images of each patient \('T1', 'T2'\)",
            {"data": data(channel_names={"0": "T1", "1": "T2"})},
        ),
        "no labels": ("no 'labels'", {"data": data(labels={})}),
        "labels of version 1": (
            "no label 'background' of value 0",
            {"data": data(labels={"0": "background", "1": "liver"})},
        ),
        "labels with a gap": (
            "not 0, 1, 2 and so on",
            {"data": data(labels={"background": 0, "liver": 2})},
        ),
        "a label of no value": (
            "'liver' in dataset.json has no value",
            {"data": data(labels={"background": 0, "liver": 1.5})},
        ),
        "regions without an order": (
            "no 'regions_class_order'",
            {"data": data(labels={"background": 0, "both": [1, 2], "liver": 1})},
        ),
        "ignore in between": (
            "'ignore' in dataset.json is not the one after the last",
            {"data": data(labels={"background": 0, "liver": 1, "ignore": 9})},
        ),
        "other classes": (
            "of another shape",
            {"data": data(labels={"background": 0, "liver": 1})},
        ),
        "another trainer's network": (
            "'nnUNet_Primus_M_Trainer', which trains another network",
            weights_with(trainer_name="nnUNet_Primus_M_Trainer"),
        ),
        "no weights in it": ("has no 'network_weights'", {"weights": {"state_dict": names}}),
        "a list of weights": ("has no 'network_weights'", {"weights": [1, 2]}),
        "no tensors": ("holds no tensors", weights_with(network_weights={})),
        "a text among tensors": ("is no tensor", weights_with(network_weights={**names, "x": "y"})),
        "an object": (r"a Python object \(", weights_with(trainer=Trap())),
        "a tensor less": (
            "missing: decoder",
            weights_with(
                network_weights={k: v for k, v in names.items() if "transpconvs" not in k}
            ),
        ),
        "a tensor more": (
            "not part of this architecture",
            weights_with(network_weights={**names, "attention.weight": torch.zeros(3)}),
        ),
        "another shape": (
            "two different tensors|of another shape",
            weights_with(network_weights={**names, first: torch.zeros(3)}),
        ),
        "two that differ": (
            "two different tensors for encoder.stages.0.0.convs.0.conv.weight",
            weights_with(network_weights={**names, alias: names[alias] + 1}),
        ),
        "one name twice": (
            "twice",
            weights_with(network_weights={**names, f"module.{first}": names[first]}),
        ),
    }


class RefusedTest(EntryTestCase):
    """Each is one sentence or two that say what is wrong, and nothing is added."""

    def refused(self, folder: Path) -> str:
        try:
            add_model(folder)
        except FewShotSegError as error:
            self.assertEqual(self.left(), set())
            return str(error)
        self.fail("it was added")

    def test_wrong_hostile_and_half_folders(self) -> None:
        cases = spoilt()
        self.assertGreater(len(cases), 45)
        for name, (telling, written) in cases.items():
            with self.subTest(name):
                folder = self.folder / f"case {name}"
                message = self.refused(files.write(folder, **written))
                self.assertRegex(message, telling)
                self.assertRegex(message, r"^[^\n]+\.$")
                shutil.rmtree(folder)
        self.assertFalse(Path("opened").exists())

    def test_missing_and_damaged_files(self) -> None:
        folder = files.write(self.folder / "theirs")
        weights = folder / "fold_0" / "checkpoint_final.pth"
        whole = weights.read_bytes()
        for name, telling, spoil in (
            ("half", "is not used: it is damaged", lambda: weights.write_bytes(whole[:5000])),
            ("empty", "is not used: it is damaged", lambda: weights.write_bytes(b"")),
            ("text", "is not used: it is damaged", lambda: weights.write_text("weights")),
            ("none", "the training has not ended", weights.unlink),
            ("no fold", "the training has not ended", weights.parent.rmdir),
            ("no data set", "no dataset.json", (folder / "dataset.json").unlink),
            ("no plans", "of no format that is known", (folder / "plans.json").unlink),
        ):
            with self.subTest(name):
                spoil()
                self.assertRegex(self.refused(folder), telling)

    def test_plans_that_were_left_behind(self) -> None:
        folder = files.write(self.folder / "theirs")
        (folder / "plans.json").unlink()
        self.assertRegex(self.refused(folder), "There is no plans.json.*Copy it there")

    def test_another_fold(self) -> None:
        folder = files.write(self.folder / "theirs")
        with self.assertRaisesRegex(FewShotSegError, "no checkpoint of fold 3 in .*, only 0"):
            add_model(folder, fold="3")

    def test_the_first_version(self) -> None:
        folder = self.folder / "nnUNetTrainerV2__nnUNetPlansv2.1"
        (folder / "fold_0").mkdir(parents=True)
        (folder / "plans.pkl").write_bytes(b"")
        (folder / "fold_0" / "model_final_checkpoint.model").write_bytes(b"")
        self.assertRegex(self.refused(folder), "nnU-Net's first version")

    def test_very_large_weights_are_not_opened(self) -> None:
        folder = files.write(self.folder / "theirs")
        with mock.patch("FewShotSegLib.models.formats.safe_files.MAX_WEIGHTS", 1000):
            self.assertRegex(self.refused(folder), "more than any file of weights")


class ScoresTest(FilesCase):
    """The model's own classes, in one window and in several."""

    def test_zero_shot_on_every_grid(self) -> None:
        """Scores lie where the image does, whatever the order of its axes."""
        found = self.added()
        rng = np.random.default_rng(0)
        array = rng.normal(100, 20, (20, 22, 14)).astype(np.float32)
        array[:3] = 0
        affine = np.diag([1.5, 1.5, 3.0, 1.0])
        straight = published_scores(
            found, Volume(array, Grid.from_affine(array.shape, affine)), "MR"
        )
        self.assertEqual(straight.shape, (3, *array.shape))
        self.assertEqual(straight[:, :3].unique().tolist(), [0, 1])
        self.assertGreater(float(straight[:, 3:].std()), 0.01)
        turned = affine[:, [2, 0, 1, 3]]
        turned[:, 1] *= -1
        turned[:3, 3] = affine[:3, 0] * (array.shape[0] - 1)
        other = np.ascontiguousarray(array.transpose(2, 0, 1)[:, ::-1])
        volume = Volume(other, Grid.from_affine(other.shape, turned))
        found_there = published_scores(found, volume, "MR")
        back = found_there.flip(2).permute(0, 2, 3, 1)
        torch.testing.assert_close(back, straight, atol=1e-4, rtol=1e-4)

    def test_another_modality_is_refused(self) -> None:
        volume = Volume(np.ones((4, 4, 4)), Grid.from_affine((4, 4, 4), np.eye(4)))
        with self.assertRaisesRegex(InputError, "is for MR, not for CT"):
            published_scores(self.added(), volume, "CT")

    def test_the_entry_says_all(self) -> None:
        """What was added works without the folder that it came from."""
        self.added()
        shutil.rmtree(self.folder / "theirs")
        data = json.loads((self.models / "Tiny-3d_fullres.json").read_text())
        self.assertEqual(data["weights"], "Tiny-3d_fullres.safetensors")
        self.assertNotIn(str(self.folder), json.dumps(data))
        self.assertIsNotNone(find_model("Tiny-3d_fullres").backbone)
