"""Installing packages: one question, PyTorch's own way, and Slicer's packages left alone."""

from __future__ import annotations

import sys
import types
import unittest
from pathlib import Path
from unittest import mock

import slicer_world

if True:  # after the world is there
    import slicer
    from FewShotSegSlicer.machine import packages


class PackagesTest(slicer_world.SceneTestCase):
    """Nothing is installed here: pip and PyTorch's extension are stand-ins."""

    def test_the_question_names_everything(self) -> None:
        text = packages.describe_packages(["torch>=2.10", "monai>=1.4", "filelock>=3.12"])
        for line in ("torch>=2.10 (200 MB", "monai>=1.4 (2 MB)", "filelock>=3.12 (below 1 MB)"):
            self.assertIn(line, text)

    def test_names_of_requirements(self) -> None:
        for requirement in (
            "torch",
            "torch>=2.10",
            "torch [cuda]",
            "torch; sys_platform",
            "torch~=2",
        ):
            self.assertEqual(packages.package_name(requirement), "torch")

    def test_torch_comes_from_its_extension_and_the_rest_is_constrained(self) -> None:
        torch_module = types.ModuleType("PyTorchUtils")
        torch_module.PyTorchUtilsLogic = mock.Mock()
        pip = types.ModuleType("slicer.packaging")
        said: list[str] = []

        def pip_ensure(requirements: list[str], **options: object) -> None:
            self.assertEqual(requirements, ["monai>=1.4"])
            self.assertFalse(options["prompt_install"], "it was asked once already")
            said.extend(Path(options["constraints"]).read_text(encoding="utf-8").split())

        pip.pip_ensure = pip_ensure
        modules = {"PyTorchUtils": torch_module, "slicer.packaging": pip}
        with mock.patch.dict(sys.modules, modules):
            packages.install_packages(["torch>=2.10", "monai>=1.4"])
        torch_module.PyTorchUtilsLogic().installTorch.assert_called_once_with(
            askConfirmation=False, torchVersionRequirement=">=2.10"
        )
        import numpy

        self.assertIn(f"numpy=={numpy.__version__}", said)

    def test_an_older_slicer(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"slicer.packaging": None}),
            mock.patch.object(slicer.util, "pip_install") as pip,
        ):
            packages.install_packages(["monai>=1.4"])
        self.assertEqual(pip.call_args.args[0][:2], ["monai>=1.4", "--constraint"])

    def test_without_the_extension(self) -> None:
        with mock.patch.dict(sys.modules, PyTorchUtils=None):
            with self.assertRaisesRegex(packages.PackagesError, "Extensions Manager"):
                packages.install_packages(["torch>=2.10"])

    def test_pip_fails(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"slicer.packaging": None}),
            mock.patch.object(slicer.util, "pip_install", side_effect=RuntimeError("no network")),
        ):
            with self.assertRaisesRegex(packages.PackagesError, "no network"):
                packages.install_packages(["monai>=1.4"])


if __name__ == "__main__":
    unittest.main()
