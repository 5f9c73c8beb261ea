"""Pre-train the small stand-in backbone: `python pretrain_standin.py DATA_FOLDER WORK_FOLDER`.

A stopgap until the embedded foundation model is trained by `fewshotseg pretrain`. It learns, on
partially labelled head-and-neck CT (eq. 1: an organ counts only where it was contoured), three
organs, tissue classes and body coordinates, and, on synthetic contrasts painted onto brain label
maps, twelve groups of brain structures, so that MR images are not foreign to it. It never sees
`openkbp/dev`, a parotid contour or a hippocampus case. Resumable: run the same command again.
With `--export`, the averaged weights of the last checkpoint are written as the registry entry.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from FewShotSegLib.backbones.dynamic_unet import DynamicUNet

ORGANS = ["brainstem", "spinal_cord", "mandible"]
CROP = (80, 80, 64)
SPACING = 3.0
HU_WINDOW = (-200.0, 300.0)
TISSUE_EDGES = (-700.0, -150.0, -20.0, 150.0)
# FreeSurfer label values of each group; left and right are one class here.
BRAIN_GROUPS = [
    (2, 41),
    (3, 42),
    (4, 5, 14, 15, 43, 44),
    (10, 49),
    (11, 50),
    (12, 51),
    (13, 52),
    (16,),
    (17, 53),
    (18, 54),
    (7, 8, 46, 47),
    (24,),
]
HEADS = {"organs": 3, "tissue": 5, "position": 3, "clean": 1, "brain": 13, "brain_position": 3}
OUT_CHANNELS = sum(HEADS.values())


def split_heads(logits: Tensor) -> dict[str, Tensor]:
    return dict(zip(HEADS, torch.split(logits, list(HEADS.values()), dim=1), strict=True))


def prepare_ct(data: Path, out: Path) -> None:
    """Every pre-training CT at 3 mm in RAS order, with its label map and anatomical origin."""
    out.mkdir(parents=True, exist_ok=True)
    index = json.loads((data / "openkbp/index.json").read_text())["pretrain"]
    for patient, annotated in index.items():
        target = out / f"{patient}.npz"
        if target.exists() or not set(annotated) & {1, 2, 3}:
            continue
        folder = data / "openkbp/pretrain"
        volumes = []
        for kind, interpolator in (("ct", sitk.sitkLinear), ("seg", sitk.sitkNearestNeighbor)):
            image = sitk.ReadImage(str(folder / f"{patient}_{kind}.nii.gz"))
            image = sitk.DICOMOrient(image, "RAS")
            size = [
                max(1, round(n * s / SPACING))
                for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)
            ]
            grid = sitk.Image(size, sitk.sitkUInt8)
            grid.SetOrigin(image.GetOrigin())
            grid.SetDirection(image.GetDirection())
            grid.SetSpacing([SPACING] * 3)
            air = -1024.0 if kind == "ct" else 0.0
            image = sitk.Resample(image, grid, sitk.Transform(), interpolator, air)
            volumes.append(sitk.GetArrayFromImage(image).T)
        ct, seg = volumes
        centre = np.full(3, np.nan)
        if 1 in annotated and (seg == 1).any():
            centre = np.argwhere(seg == 1).mean(0)
        np.savez(
            target,
            ct=ct.astype(np.int16),
            seg=seg.astype(np.uint8),
            centre=centre,
            annotated=np.array([k in annotated for k in (1, 2, 3)]),
        )


def prepare_brains(data: Path, out: Path) -> None:
    """Every brain label map in RAS order, its labels gathered into groups."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "brain_label_maps").glob("*.nii.gz")):
        target = out / (path.name.split(".")[0] + ".npz")
        if target.exists():
            continue
        labels = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")).T
        labels = labels.astype(np.int32)
        fine = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.uint8)
        groups = np.zeros(labels.shape, np.uint8)
        for number, members in enumerate(BRAIN_GROUPS, 1):
            groups[np.isin(labels, members)] = number
        centre = np.argwhere(groups == 4).mean(0)
        np.savez(target, fine=fine, groups=groups, centre=centre)


class Sampler:
    """Random augmented crops, a pure function of the step."""

    def __init__(self, cts: list[dict], brains: list[dict], seed: int = 0) -> None:
        self.cts, self.brains, self.seed = cts, brains, seed

    def sample(self, step: int, brain: bool) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step, int(brain)])
        return self.brain(rng) if brain else self.ct(rng)

    @staticmethod
    def grid(rng, shape, centre, zoom) -> tuple[Tensor, np.ndarray]:
        """Sampling grid of a rotated, scaled crop: normalised coordinates, and voxel indices."""
        angles = rng.uniform(-12, 12, 3) * math.pi / 180
        rotation = np.eye(3)
        for axis, angle in enumerate(angles):
            a, b = [i for i in range(3) if i != axis]
            turn = np.eye(3)
            turn[a, a] = turn[b, b] = math.cos(angle)
            turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
            rotation = rotation @ turn
        matrix = rotation * (zoom * rng.uniform(0.9, 1.1, 3))[None]
        axes = [np.arange(n) - (n - 1) / 2 for n in CROP]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
        index = offsets @ matrix.T.astype(np.float32) + np.asarray(centre, np.float32)
        normalised = (2 * index + 1) / np.asarray(shape, np.float32) - 1
        return torch.from_numpy(normalised[..., ::-1].copy()).float(), index

    @staticmethod
    def warp(volume: np.ndarray, grid: Tensor, mode: str, fill: float) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(volume, np.float32))[None, None] - fill
        return F.grid_sample(tensor, grid[None], mode, "zeros", align_corners=False)[0] + fill

    @staticmethod
    def disturb(rng, image: Tensor) -> Tensor:
        """Gamma, gain, shift, bias field, blur or coarse slices, and noise."""
        if rng.random() < 0.3:
            image = image.clamp(0, 1) ** float(np.exp(rng.normal(0, 0.25)))
        image = image * rng.uniform(0.9, 1.1) + rng.uniform(-0.05, 0.05)
        if rng.random() < 0.3:
            field = torch.from_numpy(rng.normal(0, 0.15, (1, 1, 4, 4, 4)).astype(np.float32))
            image = image * F.interpolate(field, CROP, mode="trilinear")[0].exp()
        if rng.random() < 0.3:
            factor = rng.uniform(0.35, 1.0, 3)
            low = [max(4, int(n * f)) for n, f in zip(CROP, factor, strict=True)]
            image = F.interpolate(image[None], low, mode="trilinear")
            image = F.interpolate(image, CROP, mode="trilinear")[0]
        if rng.random() < 0.5:
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            noise = torch.randn(image.shape, generator=generator)
            image = image + noise * float(rng.uniform(0, 0.06))
        return image

    def ct(self, rng) -> dict[str, Tensor]:
        case = self.cts[rng.integers(len(self.cts))]
        ct, seg = case["ct"], case["seg"]
        shape = np.array(ct.shape)
        if rng.random() < 0.6:
            label = rng.choice(np.flatnonzero(case["annotated"])) + 1
            voxels = case["voxels"].get(int(label))
            centre = voxels[rng.integers(len(voxels))] if voxels is not None else shape / 2
            centre = centre + rng.uniform(-24, 24, 3)
        else:
            centre = rng.uniform(0.15, 0.85, 3) * shape
        grid, index = self.grid(rng, shape, centre, float(np.exp(rng.uniform(-0.45, 0.3))))
        hu = self.warp(ct, grid, "bilinear", -1024.0)
        labels = self.warp(seg, grid, "nearest", 0.0).long()
        tissue = torch.bucketize(hu, torch.tensor(TISSUE_EDGES))
        low, high = HU_WINDOW
        image = ((hu - low) / (high - low)).clamp(0, 1)
        clean = ((hu + 160) / 400).clamp(0, 1)
        if rng.random() < 0.25:
            # A random smooth remapping of grey values: a contrast that no CT has.
            knots = torch.from_numpy(rng.uniform(0, 1, 8).astype(np.float32))
            place = image * 6.999
            left = place.floor().long().clamp(0, 6)
            image = knots[left] + (place - left) * (knots[left + 1] - knots[left])
        image = self.disturb(rng, image)
        position = torch.from_numpy(
            ((index - case["centre"]) * SPACING / 100).astype(np.float32)
        ).permute(3, 0, 1, 2)
        known = torch.tensor(float(np.isfinite(case["centre"]).all()))
        return {
            "image": image,
            "labels": labels,
            "tissue": tissue,
            "clean": clean,
            "position": position.nan_to_num(),
            "position_mask": (hu > -400).float() * known,
            "annotated": torch.from_numpy(case["annotated"]).float(),
        }

    def brain(self, rng) -> dict[str, Tensor]:
        case = self.brains[rng.integers(len(self.brains))]
        shape = np.array(case["fine"].shape)
        centre = case["centre"] + rng.uniform(-45, 45, 3)
        grid, index = self.grid(rng, shape, centre, float(np.exp(rng.uniform(-0.6, 0.4))))
        fine = self.warp(case["fine"], grid, "nearest", 0.0).long()
        groups = self.warp(case["groups"], grid, "nearest", 0.0).long()
        # Each structure near its group's grey value, so that anatomy, not the lottery, decides.
        means = rng.uniform(0, 1, 64).astype(np.float32)
        jitter = np.zeros((13, 64), np.float32) + rng.normal(0, 0.04, 64).astype(np.float32)
        table = means[:13, None] + jitter
        table[0] = rng.uniform(0, 0.6, 64)
        table[0, 0] = rng.uniform(0, 0.1)
        spread = rng.uniform(0.01, 0.08)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        image = torch.from_numpy(table)[groups, fine.clamp(max=63)]
        image = image + torch.randn(image.shape, generator=generator) * float(spread)
        image = F.avg_pool3d(F.pad(image, [1] * 6, mode="replicate"), 3, 1)
        image = self.disturb(rng, image)
        low, high = torch.quantile(image.flatten()[::37], torch.tensor([0.005, 0.995]))
        image = ((image - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
        position = ((index - case["centre"]) / 100).astype(np.float32)
        return {
            "image": image,
            "groups": groups,
            "position": torch.from_numpy(position).permute(3, 0, 1, 2),
        }


def soft_dice(probability: Tensor, target: Tensor) -> Tensor:
    dims = tuple(range(2, probability.ndim))
    both = (probability * target).sum(dims)
    return 1 - (2 * both + 1) / (probability.sum(dims) + target.sum(dims) + 1)


def down(tensor: Tensor, factor: int) -> Tensor:
    return tensor[..., factor // 2 :: factor, factor // 2 :: factor, factor // 2 :: factor]


def ct_loss(out: dict[str, Tensor], sample: dict[str, Tensor], factor: int) -> Tensor:
    labels = down(sample["labels"], factor)[None]
    onehot = torch.cat([(labels == k).float() for k in (1, 2, 3)], 1)
    w = sample["annotated"][None]
    organs = out["organs"]
    # Over the organ's voxels, not the crop's: else the other targets drown out a small organ.
    bce = F.binary_cross_entropy_with_logits(organs, onehot, reduction="none").sum((2, 3, 4))
    bce = bce / onehot.sum((2, 3, 4)).clamp(min=1000 / factor**3)
    dice = soft_dice(organs.sigmoid(), onehot)
    supervised = ((0.5 * bce + dice) * w).sum() / w.sum().clamp(min=1)  # eq. (1)
    tissue = F.cross_entropy(out["tissue"], down(sample["tissue"], factor))
    mask = down(sample["position_mask"], factor)[None]
    distance = F.smooth_l1_loss(
        out["position"], down(sample["position"], factor)[None], reduction="none", beta=0.1
    )
    position = (distance * mask).sum() / (3 * mask.sum() + 1)
    clean = F.l1_loss(out["clean"], down(sample["clean"], factor)[None])
    return supervised + 0.2 * tissue + position + 0.5 * clean


def brain_loss(out: dict[str, Tensor], sample: dict[str, Tensor], factor: int) -> Tensor:
    groups = down(sample["groups"], factor)
    onehot = F.one_hot(groups, 13).permute(0, 4, 1, 2, 3).float()
    entropy = F.cross_entropy(out["brain"], groups)
    dice = soft_dice(out["brain"].softmax(1), onehot)[:, 1:].mean()
    mask = (groups > 0)[None].float()
    distance = F.smooth_l1_loss(
        out["brain_position"], down(sample["position"], factor)[None], reduction="none", beta=0.1
    )
    return entropy + dice + 2 * (distance * mask).sum() / (3 * mask.sum() + 1)


def export(work: Path, folder: Path) -> None:
    """The averaged weights in half precision, and their registry entry with its hash."""
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    model = DynamicUNet(out_channels=OUT_CHANNELS)
    model.load_state_dict(state["average"])
    tensors, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and tensor.is_floating_point():
            seen.add(id(tensor))
            tensors[name] = tensor.detach().half().contiguous()
    weights = folder / "standin-small.safetensors"
    save_file(tensors, weights, {"steps": str(state["step"])})
    entry = json.loads((folder / "standin-small.json").read_text(encoding="utf-8"))
    entry["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry["size"] = weights.stat().st_size
    text = json.dumps(entry, indent=2, ensure_ascii=False) + "\n"
    (folder / "standin-small.json").write_text(text, encoding="utf-8")
    print(f"{weights}: {entry['size']} bytes after {state['step']} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--start-from", type=Path, help="weights of an earlier run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--freeze-statistics-at", type=float, default=0.3)
    parser.add_argument("--export", type=Path, help="the folder Resources/Models; no training")
    args = parser.parse_args()
    if args.export:
        export(args.work, args.export)
        return
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    prepare_ct(args.data, args.work / "ct")
    prepare_brains(args.data, args.work / "brain")
    cts = [dict(np.load(path)) for path in sorted((args.work / "ct").glob("*.npz"))]
    for case in cts:
        case["voxels"] = {
            k: np.argwhere(case["seg"] == k)
            for k in (1, 2, 3)
            if case["annotated"][k - 1] and (case["seg"] == k).any()
        }
    brains = [dict(np.load(path)) for path in sorted((args.work / "brain").glob("*.npz"))]
    print(f"{len(cts)} CTs, {len(brains)} brain label maps", flush=True)
    sampler = Sampler(cts, brains)

    model = DynamicUNet(out_channels=OUT_CHANNELS).to(memory_format=torch.channels_last_3d)
    side = nn.ModuleList([nn.Conv3d(c, OUT_CHANNELS, 1) for c in model.channels[1:4]])
    with torch.no_grad():
        # Organs are rare: from an even start, their scores sink together and hardly come back.
        for layer in [model.head, *side]:
            layer.bias[: len(ORGANS)] = -6.0
    everything = nn.ModuleDict({"model": model, "side": side})
    optimizer = torch.optim.AdamW(everything.parameters(), 2e-3, weight_decay=1e-4)
    average = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoint = args.work / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        everything.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
        print(f"resumed at step {start}", flush=True)
    elif args.start_from:
        state = torch.load(args.start_from, weights_only=True)
        everything.load_state_dict(state["model"])
        average = {k: v.clone() for k, v in model.state_dict().items()}
    tic, running = time.time(), {}
    for step in range(start, args.steps):
        everything.train()
        if step >= args.freeze_statistics_at * args.steps:
            for module in everything.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.eval()
        progress = step / args.steps
        rate = 2e-3 * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-5
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Four CT crops to one brain: the head and neck is what this stopgap is measured on.
        brain = step % 5 == 4
        sample = sampler.sample(step, brain)
        image = sample["image"][None].to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            levels = model.features(image)
            logits = [model.head(levels[0])]
            logits += [layer(x) for layer, x in zip(side, levels[1:4], strict=True)]
        function = brain_loss if brain else ct_loss
        losses = [function(split_heads(z.float()), sample, 2**i) for i, z in enumerate(logits)]
        loss = losses[0] + 0.3 * sum(losses[1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(everything.parameters(), 5.0)
        optimizer.step()
        decay = min(0.995, (step + 1) / (step + 10))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                average[key].lerp_(value, 1 - decay)
        name = "brain" if brain else "ct"
        running[name] = 0.95 * running.get(name, losses[0].item()) + 0.05 * losses[0].item()
        if not brain:
            organs = split_heads(logits[0].detach().float())["organs"].sigmoid()
            labels = sample["labels"]
            for k, organ in enumerate(ORGANS):
                mask = (labels[0] == k + 1).float()
                if sample["annotated"][k] and mask.sum() > 100:
                    dice = 1 - soft_dice(organs[:, k : k + 1], mask[None, None]).item()
                    running[organ] = 0.95 * running.get(organ, dice) + 0.05 * dice
        if step % 20 == 0:
            seconds = (time.time() - tic) / (step - start + 1)
            shown = " ".join(f"{k} {v:.3f}" for k, v in sorted(running.items()))
            print(f"step {step} {shown} {seconds:.2f} s/step", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            state = {
                "model": everything.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


if __name__ == "__main__":
    main()
