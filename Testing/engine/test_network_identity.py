"""What was made with one network is never taken for that of another with the same weights."""

from __future__ import annotations

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from feature_case import source_of
from safetensors.torch import save_file
from tiny import PREPROCESSING, OneThread, make_model, make_volume
from tiny_model import QUICK, STRUCTURES, Ran, TinyWorld, run, write_model

from FewShotSegLib.core.adapter_header import (
    BLACK_BOX_FORMAT,
    EVIDENCE_FORMAT,
    REVISED_FORMAT,
    read_header,
)
from FewShotSegLib.core.architecture_catalog import ARCHITECTURES
from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.features.extraction import feature_key
from FewShotSegLib.models.backbones.swin_unetr import SwinUNETRBackbone
from FewShotSegLib.models.registry import Model, ModelEntry, find_model, list_entries
from FewShotSegLib.pipeline.adaptation import adapt
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata

SWIN = {"name": "SwinUNETR", "feature_size": 12, "out_channels": 2, "downsample": "monai-0.9"}


def of_revision(revision: int, name: str = "DynamicUNet") -> mock._patch_dict:
    """As if a network had given other features before."""
    record = replace(ARCHITECTURES[name], revision=revision)
    return mock.patch.dict(ARCHITECTURES.records, {name: record})


def revised() -> mock._patch_dict:
    """As if the tests' network gave other features since yesterday."""
    return of_revision(2)


def write_swin(folder: Path, **architecture: object) -> Path:
    """The entry of a small Swin UNETR with random weights, beside it."""
    torch.manual_seed(3)
    network = SwinUNETRBackbone(12, 2, downsample="monai-0.9")
    path = write_model(folder, "swin", architecture={**SWIN, **architecture})
    save_file(network.state_dict(), folder / "swin.safetensors")
    return path


class NetworkTest(OneThread):
    """What an entry says of how its features are computed."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model = make_model(Path(folder.name))

    def entry(self, **architecture: object) -> ModelEntry:
        return replace(self.model.entry, architecture=architecture)

    def test_every_option_is_reported(self) -> None:
        reported = self.entry(name="GenesisUNet").network()
        expected = {"name": "GenesisUNet", "revision": 1, "out_channels": 1}
        self.assertEqual(reported, {**expected, "batch_statistics": True})
        said = self.entry(name="GenesisUNet", batch_statistics=True).network()
        self.assertEqual(reported, said)
        self.assertEqual(json.loads(json.dumps(reported)), reported)
        with self.assertRaisesRegex(ModelError, "'tiny' can't be used: .*'downsample'"):
            self.entry(name="SwinUNETR").network()

    def test_every_swin_unetr_of_the_registry_is_of_another_revision_than_it_was(self) -> None:
        found = {e.id: e.network()["revision"] for e in list_entries()}
        revised_ones = {name for name, revision in found.items() if revision == 2}
        swins = {"fseft", "clipdriven", "suprem_swinunetr", "btcv", "selfsup"}
        self.assertEqual(revised_ones, swins)
        self.assertEqual({r for name, r in found.items() if name not in swins}, {1})

    def test_the_identity_is_that_of_the_weights_until_a_revision(self) -> None:
        digest = self.model.weights_sha256
        self.assertEqual(Model(self.model.entry).identity, digest)
        with revised():
            first = Model(self.model.entry).identity
        self.assertNotEqual(first, digest)
        with of_revision(3):
            self.assertNotIn(Model(self.model.entry).identity, (first, digest))

    def test_the_key_of_features_is_another_one(self) -> None:
        volume, weights = make_volume(), self.model.entry.weights

        def key(**architecture: object) -> str:
            model = Model(replace(self.entry(**architecture), weights=weights))
            return feature_key(volume, model, PREPROCESSING)

        architecture = dict(self.model.entry.architecture)
        keys = [key(**architecture)]
        with revised():
            keys.append(key(**architecture))
        keys += [key(**{**SWIN, "downsample": n}) for n in ("monai-0.9", "monai-1.5", "mergingv2")]
        with of_revision(1, "SwinUNETR"):
            keys.append(key(**SWIN))
        keys += [key(name="GenesisUNet", batch_statistics=b) for b in (True, False)]
        self.assertEqual(len(set(keys)), len(keys))
        self.assertEqual(key(name="GenesisUNet"), key(name="GenesisUNet", batch_statistics=True))

    def test_features_of_before_a_revision_are_computed_anew(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder, volume = Path(name), make_volume()
            for revision, passes in ((1, 1), (1, 0), (2, 1), (2, 0), (1, 0)):
                with of_revision(revision):
                    source = source_of(folder)
                    source(volume)
                    self.assertEqual((source.passes, source.hits), (passes, 1 - passes))


class AdapterTest(TinyWorld):
    """A file says on whose features it was trained, and is used on no others."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "a.fseft"

    def train(self, model: Path | None = None) -> TrainedAdapter:
        return adapt(
            [self.supports[0].paths],
            self.path,
            structures=STRUCTURES,
            model=str(model or self.model),
            settings=replace(QUICK, epochs=1),
            runtime=self.runtime,
        )

    def test_the_network_is_in_the_file_and_older_readers_are_kept_from_a_revised_one(self) -> None:
        for revision in (1, 2):
            with of_revision(revision):
                self.train()
                data = read_metadata(self.path)
                self.assertEqual(
                    data["model"]["network"], find_model(str(self.model)).entry.network()
                )
                self.assertEqual(data["format"], EVIDENCE_FORMAT)
                trained = TrainedAdapter.load(self.path)
                trained.evidence = None  # as files of before
                trained.save(self.path)
                expected = {1: BLACK_BOX_FORMAT, 2: REVISED_FORMAT}[revision]
                self.assertEqual(read_header(self.path.read_bytes(), "it")["format"], expected)
                self.assertEqual(
                    TrainedAdapter.load(self.path).find_model(str(self.model)).entry.id, "tiny"
                )
        self.assertEqual((BLACK_BOX_FORMAT, REVISED_FORMAT), (1, 3))

    def test_before_a_revision(self) -> None:
        trained = self.train()
        for network in (trained.network, None):  # None: a file of before networks were recorded
            trained.network = network
            trained.save(self.path)
            loaded = TrainedAdapter.load(self.path)
            self.assertEqual(loaded.network, network)
            self.assertEqual(loaded.find_model(str(self.model)).entry.id, "tiny")
            with revised(), self.assertRaises(ModelError) as caught:
                loaded.find_model(str(self.model))
            self.assertRegex(
                str(caught.exception),
                "on features of 'tiny' that an earlier FewShotSeg computed otherwise "
                r"\(its DynamicUNet was mended since\). Train the adapter again\.$",
            )

    def test_a_newer_revision_is_another_network(self) -> None:
        with revised():
            trained = self.train()
        with self.assertRaisesRegex(ModelError, r"\(revision was 2, is 1\). Use the entry"):
            trained.find_model(str(self.model))

    def test_another_option_of_the_same_weights(self) -> None:
        swin = write_swin(self.folder / "swin")
        trained = self.train(swin)
        self.assertEqual(trained.find_model(str(swin)).entry.id, "swin")
        write_swin(self.folder / "swin", downsample="monai-1.5")
        with self.assertRaisesRegex(
            ModelError, r"\(downsample was monai-0.9, is monai-1.5\). Use the entry of the training"
        ):
            trained.find_model(str(swin))

    def test_an_adapter_on_the_wrong_merging_is_refused_by_the_command(self) -> None:
        """As one was trained before patches were merged as published: no network in its header."""
        swin = write_swin(self.folder / "swin")
        trained = self.train(swin)
        query = str(self.supports[1].image)

        def segment(name: str) -> Ran:
            arguments = self.segment_arguments(self.path, self.folder / name, query)
            arguments[arguments.index("--model") + 1] = str(swin)
            return run(*arguments)

        ran = segment("rightly.nii.gz")
        self.assertEqual(ran.status, 0, ran.err)
        trained.network = None
        trained.save(self.path)
        ran = segment("wrongly.nii.gz")
        self.assertEqual(ran.status, 2)
        self.assertFalse((self.folder / "wrongly.nii.gz").exists())
        self.assertIn("an earlier FewShotSeg computed otherwise (its SwinUNETR was", ran.err)
        self.assertNotIn("Traceback", ran.err)

    def test_a_network_that_is_none(self) -> None:
        trained = self.train()
        for wrong in (
            "DynamicUNet",
            3,
            [],
            {},
            {"name": "x"},
            {"name": 3, "revision": 1},
            None,
            {"name": "x", "revision": True},
            {"name": "x", "revision": "1"},
        ):
            data = trained.metadata()
            data["model"]["network"] = wrong
            with (
                self.subTest(wrong),
                mock.patch.object(TrainedAdapter, "metadata", return_value=data),
            ):
                trained.save(self.path)
                with self.assertRaisesRegex(InputError, "damaged"):
                    TrainedAdapter.load(self.path)


if __name__ == "__main__":
    unittest.main()
