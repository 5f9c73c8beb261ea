"""Wrong, hostile and half files of MONAI's formats: each is refused in words, and adds nothing."""

from __future__ import annotations

import io
import json
import pickle
import unittest
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai_files
import torch
from entry_case import EntryTestCase

from FewShotSegLib import add_model
from FewShotSegLib.core.errors import InputError, ModelError

NETWORK = monai_files.AUTO3DSEG["network"]
STEPS = monai_files.INFERENCE["preprocessing"]["transforms"]
DEFINITION = monai_files.INFERENCE["network_def"]


class Opener:
    """What would run something when a pickle that holds it is opened."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle was run",))


def auto3dseg(**changes: Any) -> Callable[[Path], Path]:
    """A ``model.pt`` whose configuration differs; the weights are of the usual network."""

    def make(folder: Path) -> Path:
        monai_files.auto3dseg(folder)
        data = torch.load(folder / "model.pt", weights_only=False)
        data["config"] = {**data["config"], **changes}
        torch.save(data, folder / "model.pt")
        return folder / "model.pt"

    return make


def resaved(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Path]:
    """A ``model.pt`` of which something else differs."""

    def make(folder: Path) -> Path:
        monai_files.auto3dseg(folder)
        data = torch.load(folder / "model.pt", weights_only=False)
        torch.save(change(data), folder / "model.pt")
        return folder / "model.pt"

    return make


def bundle(**changes: Any) -> Callable[[Path], Path]:
    """A bundle whose inference.json differs."""

    def make(folder: Path) -> Path:
        monai_files.bundle(folder)
        config = {**monai_files.INFERENCE, **changes}
        monai_files.write_json(folder / "configs" / "inference.json", config)
        return folder

    return make


def with_steps(*steps: dict[str, Any]) -> Callable[[Path], Path]:
    """A bundle with other transforms after the orientation."""
    return bundle(preprocessing={"_target_": "Compose", "transforms": [*STEPS[:3], *steps]})


def with_file(name: str, content: bytes | None) -> Callable[[Path], Path]:
    """A bundle with a file of other content, or without it."""

    def make(folder: Path) -> Path:
        monai_files.bundle(folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        return folder

    return make


def metadata(**changes: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        monai_files.bundle(folder, metadata=changes)
        return folder

    return make


def truncated(folder: Path) -> Path:
    monai_files.auto3dseg(folder)
    path = folder / "model.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def old_pickle(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.pth").write_bytes(pickle.dumps({"state_dict": {}, "hook": Opener()}))
    return folder / "model.pth"


def bomb(folder: Path) -> Path:
    """Its pickle would be 64 MB when it is opened."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"normalize_mode" + bytes(2**26))
    return folder / "model.pt"


def empty(folder: Path) -> Path:
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"")
    return folder / "model.pt"


def two_dimensional(folder: Path) -> Path:
    return auto3dseg(network={**NETWORK, "spatial_dims": 2})(folder)


def without_a_tensor(data: dict[str, Any]) -> dict[str, Any]:
    data["state_dict"].popitem()
    return data


def spacing(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], **arguments}


FAULTY: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a truncated file": (truncated, "damaged, or no PyTorch file"),
    "an empty file": (empty, "damaged, or no PyTorch file"),
    "a pickled object": (resaved(lambda d: {**d, "hook": Opener()}), "holds a Python object"),
    "a whole pickled network": (
        resaved(lambda d: {**d, "network": torch.nn.Linear(2, 2)}),
        "holds a Python object",
    ),
    "an old pickle that runs code": (old_pickle, "holds a Python object|damaged"),
    "a bomb": (bomb, "damaged, or no PyTorch file"),
    "no weights": (resaved(lambda d: {"config": d["config"]}), "no 'state_dict'"),
    "weights of a list": (resaved(lambda d: {**d, "state_dict": [1]}), "no 'state_dict'"),
    "text among the tensors": (
        resaved(lambda d: {**d, "state_dict": {**d["state_dict"], "x": "y"}}),
        "is no tensor but of the type str",
    ),
    "a tensor too few": (resaved(without_a_tensor), "Tensors missing: net.up_layers"),
    "another width": (
        auto3dseg(network={**NETWORK, "init_filters": 16}),
        "Tensors of another shape",
    ),
    "an unknown network": (auto3dseg(network={"_target_": "DiNTS"}), "names the network 'DiNTS'"),
    "a network of a module": (
        auto3dseg(network={"_target_": "os.system", "command": "true"}),
        "names the network 'os.system'",
    ),
    "no network": (auto3dseg(network={}), "names no network"),
    "a surprising argument": (
        auto3dseg(network={**NETWORK, "surprise": 1}),
        "'architecture' .MonaiSegResNetDS. .*surprise",
    ),
    "an expression": (
        auto3dseg(network={**NETWORK, "init_filters": "$__import__('os').getpid()"}),
        "which is not run. Write its value there",
    ),
    "an unknown normaliser": (auto3dseg(normalize_mode="zscore"), "normalises intensities by 'zsc"),
    "two images": (auto3dseg(extra_modalities={"pet": "pet"}), "several images together"),
    "four channels": (auto3dseg(input_channels=4), "several images together"),
    "2D": (two_dimensional, "2D slices can't be used"),
    "a region of two sides": (auto3dseg(roi_size=[64, 64]), "three numbers of voxels"),
    "transforms of one's own": (
        auto3dseg(custom_transforms={"after_resample_transforms": [{"_target_": "scripts.X"}]}),
        "transforms of its own",
    ),
    "odd bounds": (auto3dseg(intensity_bounds=[1.0]), "'intensity_bounds' in .* not two values"),
    "an unknown spacing": (auto3dseg(resample=False), "Say it with --spacing"),
    "an unknown orientation": (auto3dseg(orientation_ras=False), "Say it with --orientation"),
    "PET": (auto3dseg(modality="pet"), "Say it with --modality"),
    "a bundle of channels": (
        bundle(network_def={**DEFINITION, "in_channels": 4}),
        "several input channels can't be used",
    ),
    "a bundle of slices": (
        bundle(network_def={**DEFINITION, "spatial_dims": 2}),
        "2D slices can't be used",
    ),
    "a bundle of an own network": (
        bundle(network_def={"_target_": "scripts.networks.unest.UNesT"}),
        "names the network 'scripts.networks.unest.UNesT'",
    ),
    "a bundle without a network": (bundle(network_def=None, network=None), "no 'network_def'"),
    "a bundle's expression": (
        bundle(network_def={**DEFINITION, "out_channels": "$len(@labels)"}),
        "'network_def#out_channels' in inference.json is the expression",
    ),
    "an expression that runs": (
        with_steps(spacing(pixdim="$__import__('os').listdir('/')")),
        "which is not run",
    ),
    "a reference to nothing": (with_steps(spacing(pixdim="@nothing")), "'@nothing', which is not"),
    "a reference to itself": (bundle(pixdim="@pixdim"), "refers to itself"),
    "a transform without a meaning": (
        with_steps({"_target_": "Resized", "keys": "image", "spatial_size": [96, 96, 96]}),
        "has the transform 'Resized', which can't be done here",
    ),
    "a transform of one's own": (
        with_steps({"_target_": "scripts.transforms.Own", "keys": "image"}),
        "has the transform 'scripts.transforms.Own'",
    ),
    "a random transform": (
        with_steps({"_target_": "RandGaussianNoised", "keys": "image"}),
        "has the transform 'RandGaussianNoised'",
    ),
    "a function": (
        with_steps({"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}),
        "has the transform 'Lambdad'",
    ),
    "nearest resampling": (with_steps(spacing(mode="nearest")), "'Spacingd' with mode 'nearest'"),
    "an odd argument": (with_steps(spacing(diagonal=True)), "with diagonal True"),
    "intensities twice": (
        with_steps(
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
        ),
        "after another mapping of intensities",
    ),
    "no preprocessing": (bundle(preprocessing=None), "no list of transforms"),
    "a bundle without a spacing": (with_steps(), "Say it with --spacing"),
    "a bundle's channels in its metadata": (
        metadata(network_data_format={"inputs": {"image": {"num_channels": 4}}}),
        "images of 4 channels",
    ),
    "no inference.json": (with_file("configs/inference.json", None), "no inference.json or"),
    "half an inference.json": (with_file("configs/inference.json", b'{"network_def": {'), "JSON"),
    "a list": (with_file("configs/inference.json", b"[1, 2]"), "no list of named values"),
    "no weights in a bundle": (with_file("models/model.pt", None), "large_files.yml"),
    "hostile weights in a bundle": (
        with_file("models/model.pt", pickle.dumps(Opener())),
        "holds a Python object|damaged",
    ),
}


class RefusedTest(EntryTestCase):
    """One sentence or two that say what to do, and nothing in the models' folder."""

    def test_each_is_refused_in_words(self) -> None:
        for number, (name, (make, telling)) in enumerate(FAULTY.items()):
            with self.subTest(name):
                path = make(self.folder / f"their {number}")
                with self.assertRaisesRegex((ModelError, InputError), telling) as caught:
                    add_model(path)
                message = str(caught.exception)
                self.assertNotIn("\n", message)
                self.assertLess(len(message), 900)
                self.assertEqual(self.left() - {"SHA256SUMS"}, set())

    def test_there_are_forty(self) -> None:
        self.assertGreaterEqual(len(FAULTY), 40)

    def test_answers_that_cannot_be(self) -> None:
        torch.save({"conv.weight": torch.zeros(2, 2)}, self.folder / "w.pt")
        said = {
            "network": "segresnet",
            "arguments": json.dumps({"out_channels": 2}),
            "modality": "CT",
            "orientation": "RAS",
            "spacing": "1,1,1",
            "intensity": "unit",
        }
        for telling, change in (
            ("names the network 'vnet'", {"network": "vnet"}),
            ("--arguments is a JSON object", {"arguments": "out_channels=2"}),
            ("--arguments is a JSON object", {"arguments": "[2]"}),
            ("'out_channels' .*, not 0", {"arguments": '{"out_channels": 0}'}),
            ("--modality is CT, MR", {"modality": "PET"}),
            ("--orientation is three letters", {"orientation": "RAR"}),
            ("--spacing is three lengths", {"spacing": "1,1"}),
            ("--intensity is such as", {"intensity": "window 1"}),
            ("--classes is NAME=ROW", {"classes": "liver=2"}),
            ("Tensors missing", {}),
        ):
            with self.subTest(telling), self.assertRaisesRegex((ModelError, InputError), telling):
                add_model(self.folder / "w.pt", **{**said, **change})

    def test_a_damaged_safetensors_file(self) -> None:
        (self.folder / "w.safetensors").write_bytes(io.BytesIO(b"\xff" * 64).getvalue())
        with self.assertRaisesRegex(ModelError, "damaged, or no safetensors file"):
            add_model(self.folder / "w.safetensors")


if __name__ == "__main__":
    unittest.main()
