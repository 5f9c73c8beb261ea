"""A brain parcellated by HighRes3DNet as it is published, without any support: labels, a picture.

    python Testing/benchmarks/parcellation_picture.py T1.nii.gz picture.png [--labels labels.nii.gz]

It needs the weights (``fewshotseg download highres3dnet``) and minutes on a CPU. With ``--labels``
the label map is written there, or taken from there where it exists.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from matplotlib.colors import ListedColormap, hsv_to_rgb
from matplotlib.figure import Figure

from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.features.sliding_window import blend_windows, place_windows
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model


def main() -> None:
    """Parcellate, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    volume = read_image(args.image)
    if args.labels is not None and args.labels.is_file():
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(args.labels))).T
    else:
        labels = parcellate(volume)
        if args.labels is not None:
            image = sitk.GetImageFromArray(labels.T)
            image.CopyInformation(sitk.ReadImage(str(args.image)))
            sitk.WriteImage(image, str(args.labels))
    draw(volume.array, labels, args.picture)


def parcellate(volume: Volume) -> np.ndarray:
    """Rows of the published head, (i, j, k) uint8 on the volume's own grid of 1 mm."""
    model = find_model("highres3dnet")
    begun = time.perf_counter()
    image, placement = model.entry.preprocessing["MR"](volume)
    stride = model.backbone.strides[-1]
    windows = place_windows(placement.shape, model.entry.window, model.entry.overlap, stride)
    after = [n - m for n, m in zip(windows.padded, placement.shape, strict=True)]
    image = F.pad(image, [n for size in reversed(after) for n in (0, size)], mode="replicate")
    weights, biases = model.backbone.head_weights()
    rows = torch.zeros(windows.padded)

    def predict(window: torch.Tensor) -> list[torch.Tensor]:
        with torch.inference_mode():
            return model.backbone.features(window)[:1]

    def write(_level: int, first: int, planes: torch.Tensor) -> None:
        for number in range(planes.shape[1]):
            scores = torch.einsum("kc,cjl->kjl", weights, planes[:, number])
            rows[first + number] = (scores + biases[:, None, None]).argmax(0)

    blend_windows(image, windows, predict, write)
    print(f"{windows.count} windows, {time.perf_counter() - begun:.0f} s")
    inner = rows[tuple(slice(n) for n in placement.shape)]
    nearest = placement.to_original(inner, kernel="linear").round()
    return nearest.numpy().astype(np.uint8)


def draw(array: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Three slices through the middle, without and with the parcels."""
    rng = np.random.default_rng(4)
    hues = np.stack(
        [rng.permutation(160) / 160, rng.uniform(0.5, 1, 160), rng.uniform(0.7, 1, 160)]
    )
    colours = ListedColormap(hsv_to_rgb(hues.T))
    figure = Figure((9, 5.4), dpi=100)
    axes = figure.subplots(2, 3)
    middle = [n // 2 for n in array.shape]
    for column, axis in enumerate((2, 1, 0)):
        grey = np.take(array, middle[axis], axis).T
        parcels = np.take(labels, middle[axis], axis).T
        for row in range(2):
            plot = axes[row, column]
            plot.imshow(grey, cmap="gray", origin="lower")
            if row:
                shown = np.ma.masked_less(parcels, 4)  # rows 1 to 3 have no names
                plot.imshow(
                    shown,
                    cmap=colours,
                    vmin=0,
                    vmax=159,
                    alpha=0.6,
                    origin="lower",
                    interpolation="nearest",
                )
            plot.set_axis_off()
    figure.tight_layout(pad=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
