"""MONAI's own files added: its transforms and networks give the same logits on the same image."""

from __future__ import annotations

import json
import unittest
from pathlib import Path
from typing import Any

import monai_files
import numpy as np
import torch
from backbone_interface import apply_head
from entry_case import EntryTestCase
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    Lambdad,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
)
from torch import Tensor, nn

from FewShotSegLib import add_model
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.models.registry import find_model


def template_transforms(config: dict[str, Any]) -> list[Any]:
    """What MONAI's Auto3DSeg template does before its network, put together from MONAI's own."""
    spacing = np.array(config["resample_resolution"])
    steps: list[Any] = [Orientationd("image", "RAS", labels=None)]
    if config["crop_foreground"]:
        steps.append(CropForegroundd("image", "image", margin=10, allow_smaller=True))
    steps.append(
        Spacingd(
            "image",
            spacing,
            mode="bilinear",
            dtype=torch.float,
            min_pixdim=spacing * 0.75,
            max_pixdim=spacing * 1.25,
        )
    )
    mode = config["normalize_mode"]
    if mode in ("ct", "range"):
        low, high = config["intensity_bounds"]
        steps.append(ScaleIntensityRanged("image", low, high, -1, 1, clip=False))
        steps.append(Lambdad("image", torch.sigmoid))
    elif mode == "pet":
        steps.append(Lambdad("image", lambda x: torch.sigmoid((x - x.min()) / x.std())))
    else:
        steps.append(NormalizeIntensityd("image", nonzero=True, channel_wise=True))
        if mode == "meanstdtanh":
            steps.append(Lambdad("image", lambda x: 3 * torch.tanh(x / 3)))
    return steps


class MonaiFiles(EntryTestCase):
    """Files written by MONAI's own code, in a folder of their own."""

    def theirs(self, volume: Volume, steps: list[Any], network: nn.Module) -> Tensor:
        """MONAI's logits on the original grid, (K, i, j, k)."""
        image = MetaTensor(torch.from_numpy(volume.array[None].copy()), affine=volume.grid.affine)
        compose = Compose(steps)
        data = compose({"image": image})
        with torch.inference_mode():
            x = data["image"].as_tensor()[None].float()
            pad = [n for s in reversed(x.shape[2:]) for n in (0, -s % 4)]
            logits = network(torch.nn.functional.pad(x, pad, mode="replicate"))
        logits = logits[0][(slice(None), *(slice(n) for n in x.shape[2:]))]
        data["pred"] = MetaTensor(logits.clone(), meta=data["image"].meta)
        inverse = Invertd("pred", compose, orig_keys="image", nearest_interp=False)
        return inverse(data)["pred"].as_tensor()

    def ours(self, volume: Volume, model_id: str) -> Tensor:
        """The same by the model that was added."""
        model = find_model(model_id)
        (preprocessing,) = model.entry.preprocessing.values()
        image, placement = preprocessing(volume)
        pad = [n for s in reversed(image.shape[2:]) for n in (0, -s % 4)]
        with torch.inference_mode():
            padded = torch.nn.functional.pad(image, pad, mode="replicate")
            logits = apply_head(model.backbone, model.backbone.features(padded)[0])[0]
        logits = logits[(slice(None), *(slice(n) for n in image.shape[2:]))]
        return torch.stack([placement.to_original(row, kernel="linear") for row in logits])

    def assert_equal(self, volume: Volume, theirs: Tensor, ours: Tensor) -> None:
        """Logits to 1e-3 and classes of 99.9 % where the network sees something."""
        self.assertEqual(ours.shape, theirs.shape)
        seen = theirs.abs().sum(0) > 0
        self.assertGreater(float(seen.float().mean()), 0.5)
        scale = float(theirs[:, seen].std())
        self.assertGreater(scale, 0.05)
        self.assertLess(float((ours - theirs)[:, seen].abs().max()), 1e-3 * max(1, scale))
        same = (ours.argmax(0) == theirs.argmax(0))[seen].float().mean()
        self.assertGreaterEqual(float(same), 0.999)


class Auto3DSegTest(MonaiFiles):
    """``model.pt`` of a SegResNetDS."""

    MODES = (
        {"normalize_mode": "ct"},
        {"normalize_mode": "range", "intensity_bounds": [0.0, 200.0], "crop_foreground": False},
        {"normalize_mode": "meanstd", "modality": "mri"},
        {"normalize_mode": "meanstdtanh", "modality": "mri", "crop_foreground": False},
        {"normalize_mode": "pet"},
        {"resample_resolution": [1.2, 1.2, 1.5]},  # near enough to stay
        {"network": {**monai_files.AUTO3DSEG["network"], "resolution": [1.5, 1.5, 4.0]}},
    )

    def test_logits_are_monais(self) -> None:
        volume = monai_files.patient()
        for number, changes in enumerate(self.MODES):
            with self.subTest(**{k: v for k, v in changes.items() if k != "network"}):
                folder = self.folder / f"their model {number}"
                network = monai_files.auto3dseg(folder, changes)
                added = add_model(folder / "model.pt")
                steps = template_transforms({**monai_files.AUTO3DSEG, **changes})
                theirs = self.theirs(volume, steps, network)
                self.assert_equal(volume, theirs, self.ours(volume, added.id))

    def test_what_is_known_of_it(self) -> None:
        monai_files.auto3dseg(self.folder / "kidneys")
        added = add_model(self.folder / "kidneys")
        entry = find_model(added.id).entry
        self.assertEqual((entry.id, entry.modality), ("kidneys-auto3dseg", ("CT",)))
        self.assertEqual(entry.classes, {"left kidney": 1, "liver": 2})
        self.assertEqual((entry.activation, entry.background), ("softmax", 0))
        self.assertEqual(entry.window, (32, 32, 32))
        self.assertIn("SegResNetDS with 3 rows", " ".join(added.facts))

    def test_names_by_the_table_beside_it(self) -> None:
        """As SlicerMONAIAuto3DSeg's models have it; and a model of overlapping classes."""
        folder = self.folder / "named"
        monai_files.auto3dseg(folder, {"class_names": None})
        (folder / "labels.csv").write_text("LabelValue,Name,Color\n1,spleen,red\n2,pancreas,blue\n")
        entry = find_model(add_model(folder).id).entry
        self.assertEqual(entry.classes, {"spleen": 1, "pancreas": 2})
        monai_files.auto3dseg(
            self.folder / "overlapping", {"sigmoid": True, "class_names": ["a", "b", "c"]}
        )
        entry = find_model(add_model(self.folder / "overlapping").id).entry
        self.assertEqual((entry.classes, entry.background), ({"a": 0, "b": 1, "c": 2}, None))
        self.assertEqual(entry.activation, "sigmoid")


class BundleTest(MonaiFiles):
    """A folder with ``configs`` and ``models``."""

    def steps(self, inference: dict[str, Any]) -> list[Any]:
        """MONAI's own parser's transforms, without reading the file."""
        config = {**monai_files.INFERENCE, **inference}
        parser = ConfigParser(config)
        return list(parser.get_parsed_content("preprocessing").transforms[2:])

    def variants(self) -> dict[str, dict[str, Any]]:
        load = monai_files.INFERENCE["preprocessing"]["transforms"][:3]
        spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.4, 1.5, 2.0]}
        normalize = {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True}
        scale = {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0}
        crop = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "margin": 3}

        def of(*steps: Any) -> dict[str, Any]:
            return {"preprocessing": {"_target_": "Compose", "transforms": [*load, *steps]}}

        segresnet = {"_target_": "SegResNet", "init_filters": 8, "out_channels": 3}
        return {
            "as it is": {},
            "standardised, then scaled": of(spacing, normalize, scale),
            "scaled, then standardised": of(spacing, scale, {**normalize, "nonzero": False}),
            "intensities first": of(normalize, spacing),
            "cropped": of(crop, spacing, normalize),
            "fixed numbers": of(
                spacing, {**normalize, "nonzero": False, "subtrahend": 30.0, "divisor": 90.0}
            ),
            "another network": {
                "network_def": {
                    **segresnet,
                    "dropout_prob": 0.2,
                    "blocks_down": [1, 1, 1],
                    "blocks_up": [1, 1],
                }
            },
        }

    def test_logits_are_monais(self) -> None:
        volume = monai_files.patient()
        for name, inference in self.variants().items():
            with self.subTest(name):
                folder = self.folder / name.replace(", ", " ")
                network = monai_files.bundle(folder, inference)
                added = add_model(folder)
                theirs = self.theirs(volume, self.steps(inference), network)
                self.assert_equal(volume, theirs, self.ours(volume, added.id))

    def test_what_is_known_of_it(self) -> None:
        monai_files.bundle(self.folder / "spleen_ct")
        entry = find_model(add_model(self.folder / "spleen_ct").id).entry
        self.assertEqual((entry.id, entry.title), ("spleen_ct", "Spleen and liver"))
        self.assertEqual((entry.classes, entry.background), ({"spleen": 1, "liver": 2}, 0))
        self.assertEqual(entry.preprocessing["CT"].spacing, (1.5, 1.5, 2.0))
        self.assertEqual((entry.window, entry.overlap), ((32, 32, 32), 0.5))

    def test_yaml(self) -> None:
        import yaml

        folder = self.folder / "yaml"
        monai_files.bundle(folder)
        path = folder / "configs" / "inference.json"
        (folder / "configs" / "inference.yaml").write_text(
            yaml.safe_dump(json.loads(path.read_text()))
        )
        path.unlink()
        self.assertEqual(find_model(add_model(folder).id).entry.classes, {"spleen": 1, "liver": 2})

    def test_a_published_swin_unetr_merges_as_its_monai_did(self) -> None:
        network = {"_target_": "SwinUNETR", "img_size": 96, "in_channels": 1, "out_channels": 3}
        definition = {"network_def": {**network, "feature_size": 12, "use_checkpoint": False}}
        for version, order in (("1.3.0", "monai-0.9"), ("1.5.1", "monai-1.5")):
            folder = self.folder / f"swin {version}"
            made = {
                "network_def": {
                    k: v for k, v in definition["network_def"].items() if k != "img_size"
                }
            }
            monai_files.bundle(folder, made, {"monai_version": version})
            config = {**monai_files.INFERENCE, **definition}
            monai_files.write_json(folder / "configs" / "inference.json", config)
            entry = find_model(add_model(folder).id).entry
            self.assertEqual(entry.architecture["downsample"], order)


class PlainNetworkTest(MonaiFiles):
    """A state dict alone; all else is said."""

    ANSWERS = {
        "network": "segresnet",
        "arguments": json.dumps(
            {"out_channels": 3, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}
        ),
        "modality": "MR",
        "orientation": "RAS",
        "spacing": "1,1.5,2",
        "intensity": "standardise nonzero",
        "classes": "left putamen=1,right putamen=2",
    }

    def saved(self, path: Path) -> nn.Module:
        from monai.networks.nets import SegResNet

        torch.manual_seed(2)
        network = SegResNet(**json.loads(self.ANSWERS["arguments"])).eval()
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path
        )
        return network

    def test_it_is_used_as_said(self) -> None:
        network = self.saved(self.folder / "putamen.pth")
        added = add_model(self.folder / "putamen.pth", **self.ANSWERS)
        model = find_model(added.id)
        entry = model.entry
        self.assertEqual((entry.id, entry.modality), ("putamen", ("MR",)))
        self.assertEqual(entry.classes, {"left putamen": 1, "right putamen": 2})
        image = torch.randn(1, 1, 16, 16, 16)
        with torch.inference_mode():
            logits = apply_head(model.backbone, model.backbone.features(image)[0])
            torch.testing.assert_close(logits, network(image))

    def test_what_is_not_said_is_asked_for_together(self) -> None:
        self.saved(self.folder / "putamen.pth")
        with self.assertRaises(Exception) as caught:
            add_model(self.folder / "putamen.pth")
        for flag in ("--network", "--modality", "--orientation", "--spacing", "--intensity"):
            self.assertIn(flag, str(caught.exception))


if __name__ == "__main__":
    unittest.main()
