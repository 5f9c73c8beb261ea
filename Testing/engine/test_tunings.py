"""White-box methods: what they train, what they leave alone, and what is kept of it."""

from __future__ import annotations

import copy
import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import PREPROCESSING, OneThread, make_volume
from torch import nn
from tuning_case import CPU, QUICK, TRANSFORMERS_ONLY, OnTinyModel, choices

from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import DECODERS, METHODS
from FewShotSegLib.features.extraction import feature_key
from FewShotSegLib.methods.tuned_model import TunedModel
from FewShotSegLib.methods.tunings import TUNINGS, lora
from FewShotSegLib.methods.tunings.base import Tuning
from FewShotSegLib.models.backbones.obelisk_unet import ObeliskUNet
from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone
from FewShotSegLib.training.augmentation import bend, disturb, random_matrix
from FewShotSegLib.training.image_recipe import ImageLearner, ImageSource
from FewShotSegLib.training.loop import fit
from FewShotSegLib.training.run import Run
from FewShotSegLib.training.support_set import Support, prepare_support


class WhatIsTrained(OnTinyModel):
    """Of each method, on a small network."""

    def test_the_choices_of_decoder(self) -> None:
        for tuning in TUNINGS.values():
            self.assertLessEqual(set(tuning().decoders), set(DECODERS))
            self.assertEqual(tuning().decoder, METHODS[tuning.name].decoders[0])
        with self.assertRaisesRegex(InputError, "'scratch' the decoder is new, not frozen"):
            TUNINGS["scratch"]("frozen")

    def test_a_frozen_parameter_has_no_gradient_and_never_moves(self) -> None:
        for tuning in choices():
            with self.subTest(tuning.name, decoder=tuning.decoder):
                network = self.network(tuning)
                before = copy.deepcopy(network.backbone.state_dict(keep_vars=True))
                self.step(network)
                trained = set(tuning.trained_tensors(network.backbone))
                moved = set()
                for name, tensor in network.backbone.state_dict(keep_vars=True).items():
                    if "skip_layers" in name:  # MONAI's second names
                        continue
                    if name not in trained:
                        self.assertIsNone(tensor.grad, name)
                        self.assertTrue(torch.equal(tensor, before[name]), name)
                    elif not torch.equal(tensor, before[name]):
                        moved.add(name)
                self.assertTrue(moved)
                self.assertTrue(all(p.grad is not None for p in network.head.parameters()))

    def test_the_models_own_backbone_stays_as_it_was(self) -> None:
        before = {k: v.clone() for k, v in self.model.backbone.state_dict().items()}
        for tuning in choices():
            self.step(self.network(tuning))
        for name, tensor in self.model.backbone.state_dict().items():
            self.assertTrue(torch.equal(tensor, before[name]), name)
        self.assertFalse(any(p.requires_grad for p in self.model.backbone.parameters()))

    def test_at_first_the_features_are_those_of_the_model(self) -> None:
        with torch.no_grad():
            expected = self.model.backbone.features(self.image)
            for tuning in choices():
                network = self.network(tuning).train()
                for a, b in zip(network(self.image), expected, strict=True):
                    with self.subTest(tuning.name, decoder=tuning.decoder):
                        same = torch.allclose(a, b, atol=1e-6, rtol=0)
                        self.assertEqual(same, tuning.keeps_features)

    def test_the_published_head_is_never_trained(self) -> None:
        for tuning in choices():
            network = self.network(tuning)
            self.assertFalse(any(p.requires_grad for p in network.backbone.head.parameters()))

    def test_scratch_knows_nothing_of_the_weights(self) -> None:
        network = self.network(TUNINGS["scratch"]())
        tensors = TUNINGS["scratch"]().trained_tensors(network.backbone)
        frozen = self.model.backbone.state_dict()
        for name, tensor in tensors.items():
            if name.endswith("conv.weight"):
                self.assertFalse(torch.equal(tensor, frozen[name]), name)
            if name.endswith("running_mean"):
                self.assertTrue(torch.equal(tensor, torch.zeros_like(tensor)), name)

    def test_batch_statistics(self) -> None:
        """Those of pre-training stay; new ones are measured in the first part of a training."""
        for tuning in choices():
            network = self.network(tuning)
            moving = tuning.moving(network.backbone)
            self.assertEqual(bool(moving), tuning.decoder == "new")
            network.begin_epoch(0.2)
            norms = {
                name
                for name, m in network.backbone.named_modules()
                if isinstance(m, nn.BatchNorm3d) and m.training and "skip_layers" not in name
            }
            self.assertEqual(norms, set(moving), tuning.name)
            network.begin_epoch(0.6)
            self.assertFalse(any(m.training for m in network.backbone.modules()))
            network.eval()
            self.assertFalse(any(m.training for m in network.modules()))

    def test_merged_lora_equals_unmerged(self) -> None:
        backbone = self.network(TUNINGS["lora"]()).eval().backbone
        assert_merged_equals_unmerged(self, backbone, self.image)

    def test_parts_cover_the_network_once(self) -> None:
        for backbone in (
            self.model.backbone,
            ObeliskUNet(),
            SwinUNETRBackbone(12, 2, downsample="monai-0.9"),
        ):
            encoder = {id(p) for part in backbone.encoder_parts() for p in part.parameters()}
            decoder = {id(p) for part in backbone.decoder_parts() for p in part.parameters()}
            last = {id(p) for part in backbone.last_parts() for p in part.parameters()}
            everything = {id(p) for p in backbone.parameters()}
            head = {id(p) for p in backbone.head.parameters()}
            self.assertFalse(encoder & decoder)
            self.assertLess(last, decoder)
            self.assertLessEqual(everything - (encoder | decoder), head)

    def test_what_needs_a_transformer_is_reported(self) -> None:
        for name in TRANSFORMERS_ONLY:
            with self.assertRaisesRegex(InputError, f"'{name}' .* of a transformer, .*DynamicUNet"):
                self.network(TUNINGS[name]())

    def test_rates(self) -> None:
        for tuning in choices():
            groups = self.network(tuning).parameter_groups(1.0)
            self.assertEqual([g["rate"] for g in groups], [tuning.head_factor, 1.0])
            trained = sum(p.numel() for g in groups for p in g["params"])
            self.assertEqual(trained, self.network(tuning).trained_parameters())


class OnTransformer(OneThread):
    """Of the methods that change the encoder, on a small Swin UNETR."""

    METHODS = ("bias", "affine", "lora", "adaptformer", "compacter")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        torch.manual_seed(0)
        cls.backbone = SwinUNETRBackbone(12, 2, downsample="monai-0.9").eval().requires_grad_(False)
        cls.image = torch.randn(1, 1, 32, 32, 32)
        with torch.no_grad():
            cls.expected = cls.backbone.features(cls.image)

    def tuned(self, name: str, decoder: str = "frozen") -> tuple[Tuning, SwinUNETRBackbone]:
        tuning, backbone = TUNINGS[name](decoder), copy.deepcopy(self.backbone)
        tuning.apply(backbone, lambda: SwinUNETRBackbone(12, 2, downsample="monai-0.9"))
        return tuning, backbone

    def test_what_is_trained(self) -> None:
        for name in self.METHODS:
            tuning, backbone = self.tuned(name)
            levels = backbone.features(self.image)
            for a, b in zip(levels, self.expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
            sum(level.square().mean() for level in levels).backward()
            trained = tuning.trained_tensors(backbone)
            self.assertTrue(trained)
            for key, parameter in backbone.named_parameters():
                with self.subTest(name, parameter=key):
                    self.assertEqual(parameter.grad is not None, key in trained)
                    self.assertTrue(key not in trained or key.startswith("net.swinViT."))

    def test_a_trained_decoder_starts_as_it_was(self) -> None:
        tuning, backbone = self.tuned("lora", "tuned")
        with torch.no_grad():
            for a, b in zip(backbone.features(self.image), self.expected, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
        trained = tuning.trained_tensors(backbone)
        self.assertIn("net.decoder1.conv_block.conv1.conv.weight", trained)
        self.assertIn("net.encoder10.layer.conv1.conv.weight", trained)
        self.assertNotIn("net.out.conv.conv.weight", trained)

    def test_lora_is_of_rank_four_for_each_of_query_key_and_value(self) -> None:
        tuning, backbone = self.tuned("lora")
        shapes = [tuple(t.shape) for t in tuning.trained_tensors(backbone).values()]
        self.assertEqual(len(shapes), 2 * 8)
        self.assertEqual(shapes[:2], [(12, 12), (36, 12)])
        self.assertEqual(shapes[-2:], [(12, 96), (288, 12)])

    def test_merged_lora_equals_unmerged(self) -> None:
        assert_merged_equals_unmerged(self, self.tuned("lora")[1], self.image)

    def test_what_has_no_meaning_is_reported(self) -> None:
        with self.assertRaisesRegex(InputError, "3x3x3 convolutions.*SwinUNETR.*lora or affine"):
            self.tuned("cnn-adapter")


def assert_merged_equals_unmerged(test: unittest.TestCase, backbone, image: torch.Tensor) -> None:
    """After some training, and without a trace of LoRA in the names."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
        before = backbone.features(image)
        merged = copy.deepcopy(backbone)
        lora.merge(merged)
        for a, b in zip(merged.features(image), before, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    test.assertFalse([name for name in merged.state_dict() if "parametrizations" in name])


class WhatIsKept(OnTinyModel):
    """A trained backbone as tensors, and back."""

    def test_the_tensors_bring_the_features_back(self) -> None:
        for tuning in choices():
            with self.subTest(tuning.name, decoder=tuning.decoder):
                network = self.network(tuning)
                self.step(network)
                network.eval()
                model = TunedModel(self.model, tuning, network.tuned_tensors())
                torch.manual_seed(99)
                with torch.no_grad():
                    for a, b in zip(
                        model.backbone.features(self.image), network(self.image), strict=True
                    ):
                        self.assertTrue(torch.equal(a, b))

    def test_other_tensors_are_refused(self) -> None:
        tuning = TUNINGS["ft"]()
        tensors = self.network(tuning).tuned_tensors()
        name = next(iter(tensors))
        for wrong in (
            {k: v for k, v in tensors.items() if k != name},
            {**tensors, "more": torch.zeros(1)},
            {**tensors, name: torch.zeros(3)},
        ):
            with self.assertRaisesRegex(InputError, "not of the model 'tiny'.*Train it again"):
                _ = TunedModel(self.model, tuning, wrong).backbone

    def test_features_of_a_trained_backbone_have_a_key_of_their_own(self) -> None:
        volume = make_volume()
        keys = {feature_key(volume, self.model, PREPROCESSING)}
        for tuning in choices():
            tensors = self.network(tuning).tuned_tensors()
            keys.add(feature_key(volume, TunedModel(self.model, tuning, tensors), PREPROCESSING))
            next(iter(tensors.values())).flatten()[0].add_(1)
            keys.add(feature_key(volume, TunedModel(self.model, tuning, tensors), PREPROCESSING))
        self.assertEqual(len(keys), 1 + 2 * len(list(choices())))


class Crops(OnTinyModel):
    """Image crops, their targets and their augmentation."""

    def support(self, shape: tuple[int, int, int] = (19, 14, 10)):
        volume = make_volume(shape=shape)
        mask = np.zeros(shape, bool)
        mask[4:9, 3:8, 2:6] = True
        structures = [Structure("a", 1), Structure("b", 2)]
        annotation = Annotation({"a": mask, "b": ~mask}, structures)
        source = ImageSource(self.model, PREPROCESSING)
        return prepare_support(Support(volume, annotation), structures, source)

    def test_an_image_stands_where_features_would(self) -> None:
        support = self.support()
        expected, placement = PREPROCESSING(make_volume())
        self.assertEqual(support.features.strides, (1,))
        self.assertEqual(support.features.shape, placement.shape)
        np.testing.assert_array_equal(support.features.levels[0], expected[0].numpy())

    def test_crops_are_padded_to_the_backbones_stride(self) -> None:
        learner = ImageLearner(self.network(TUNINGS["ft"]()), (), QUICK, PREPROCESSING)
        images = [torch.rand(5, 8, 7), torch.rand(6, 3, 9)]
        batch = learner.batch(images)
        self.assertEqual(tuple(batch.shape), (2, 1, 8, 8, 12))
        torch.testing.assert_close(batch[1, 0, :6, :3, :9], images[1])
        torch.testing.assert_close(batch[1, 0, 7, 2, 3], images[1][5, 2, 3])

    def test_a_volume_smaller_than_the_crop(self) -> None:
        network = self.network(TUNINGS["ft"]())
        learner = ImageLearner(network, [self.support((7, 9, 3))], QUICK, PREPROCESSING)
        losses = learner.losses(np.random.default_rng(0), Run(CPU))
        self.assertTrue(all(torch.isfinite(loss) for loss in losses))

    def test_what_is_unknown_is_left_out_of_the_losses_and_of_the_targets(self) -> None:
        """However a crop is turned, what is known of it is of the slices that were drawn on."""
        support = self.support((19, 17, 16))
        known = torch.zeros(support.features.shape, dtype=torch.bool)
        known[:, :, [3, 4, 8, 11]] = True
        noise = torch.randint(0, 256, support.targets.shape, dtype=torch.uint8)
        true = torch.zeros_like(noise)
        true[0] = 255
        drawn = replace(support, targets=torch.where(known, true, noise), known=known)
        learner = ImageLearner(self.network(TUNINGS["ft"]()), [drawn], QUICK, PREPROCESSING)
        seen: list[Any] = []

        def combine(scores: Any, targets: Any, masks: Any, places: Any) -> Any:
            seen.extend(zip(scores, targets, places, strict=True))
            return scores[0].sum(), scores[0].sum()

        with mock.patch.object(learner, "combine", combine):
            for seed in range(4):
                learner.losses(np.random.default_rng(seed), Run(CPU))
        for score, target, place in seen:
            self.assertEqual(place.shape, score.shape[1:])
            self.assertTrue(0.1 < float(place.mean()) < 0.45, "the slices, turned")
            torch.testing.assert_close(target[0], place)
            self.assertEqual(float(target[1].abs().max()), 0)
        targets = [target for _, target, _ in seen[:2]]
        scores = [torch.randn_like(target) for target in targets]
        masks, places = [torch.ones(2)] * 2, [place for _, _, place in seen[:2]]
        found = learner.combine(scores, targets, masks, places)
        scores = [torch.where(p > 0, s, 9.0) for s, p in zip(scores, places, strict=True)]
        self.assertEqual(learner.combine(scores, targets, masks, places), found)

    def test_nothing_is_ever_mirrored(self) -> None:
        for seed in range(50):
            matrix = random_matrix(np.random.default_rng(seed))
            self.assertGreater(np.linalg.det(matrix), 0.5)
            self.assertGreater(np.diag(matrix).min(), 0.7)
        image = torch.zeros(20, 24, 16)
        image[2:6] = 1  # a side, which stays one
        for seed in range(20):
            bent, _ = bend(np.random.default_rng(seed), image, image[None], (2.0, 2.0, 3.0))
            self.assertGreater(float(bent[:10].sum()), 5 * float(bent[10:].sum()))

    def test_targets_move_with_their_image(self) -> None:
        target = torch.zeros(1, 20, 24, 16)
        target[0, 5:12, 8:14, 4:10] = 1
        changed = 0
        for seed in range(10):
            image, moved = bend(np.random.default_rng(seed), target[0], target, (2.0, 1.0, 3.0))
            torch.testing.assert_close(image, moved[0])
            changed += not torch.equal(moved, target)
        self.assertGreater(changed, 2)

    def test_intensities_stay_near_and_repeat(self) -> None:
        image = torch.rand(8, 8, 8)
        for scale, normalised in ((1.0, True), (2000.0, False)):
            differences = []
            for seed in range(20):
                one = disturb(np.random.default_rng(seed), scale * image, normalised)
                two = disturb(np.random.default_rng(seed), scale * image, normalised)
                self.assertTrue(torch.equal(one, two))
                differences.append(float((one - scale * image).abs().mean()) / scale)
            self.assertLess(max(differences), 0.4)
            self.assertGreater(max(differences), 0.01)

    def test_the_loss_falls_and_is_that_of_the_seed(self) -> None:
        ends = []
        for _ in range(2):
            network = self.network(TUNINGS["ft"]())
            learner = ImageLearner(network, [self.support()], QUICK, PREPROCESSING)
            learner.begin(Run(CPU))
            ends.append(fit(learner, Run(CPU)).history)
        self.assertEqual(ends[0], ends[1])
        self.assertLess(ends[0][-1]["loss"], 0.8 * ends[0][0]["loss"])


if __name__ == "__main__":
    unittest.main()
