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
    from FewShotSegSlicer.machine import extension, packages
    from panel_case import PanelTestCase


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

    def test_without_the_extension_and_without_a_manager_of_extensions(self) -> None:
        with mock.patch.dict(sys.modules, PyTorchUtils=None):
            self.assertFalse(extension.can_be_installed())
            self.assertNotIn("restarted", packages.describe_packages(["torch>=2.10"]))
            with self.assertRaisesRegex(extension.ExtensionError, "Extensions Manager"):
                packages.install_packages(["torch>=2.10"])

    def test_pip_fails(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"slicer.packaging": None}),
            mock.patch.object(slicer.util, "pip_install", side_effect=RuntimeError("no network")),
        ):
            with self.assertRaisesRegex(packages.PackagesError, "no network"):
                packages.install_packages(["monai>=1.4"])


class Manager:
    """As much of Slicer's model of extensions as is used."""

    def __init__(self, answer: bool | Exception) -> None:
        self.interactive, self.answer = True, answer
        self.installed: list[str] = []

    def isExtensionInstalled(self, name: str) -> bool:
        return name in self.installed

    def installExtensionFromServer(self, name: str, restart: bool) -> bool:
        assert not self.interactive and not restart
        if isinstance(self.answer, Exception):
            raise self.answer
        self.installed.append(name)
        return self.answer


class ExtensionTest(PanelTestCase):
    """PyTorch's extension comes through the manager, with one restart that a person agrees to."""

    def setUp(self) -> None:
        super().setUp()
        self.logic.missing = ["torch>=2.10", "monai>=1.4"]
        without = mock.patch.dict(sys.modules, PyTorchUtils=None)
        without.start()
        self.addCleanup(without.stop)
        self.others = mock.patch.object(packages, "_install_others").start()
        self.restart = mock.patch.object(slicer.util, "restart", create=True).start()
        self.addCleanup(mock.patch.stopall)

    def press(self, manager: Manager, *answers: bool) -> list[str]:
        """Install..., with these answers; what was asked."""
        asked: list[str] = []
        replies = iter(answers)

        def agree(text: str, title: str) -> bool:
            asked.append(text)
            return next(replies)

        with (
            mock.patch.object(extension, "_manager", return_value=manager),
            mock.patch("FewShotSegSlicer.panel.models.agree", agree),
        ):
            self.panel.models.on_install()
        return asked

    def test_with_consent_and_a_restart_it_goes_on(self) -> None:
        manager = Manager(True)
        first, second = self.press(manager, True, True)
        self.assertIn("the extension «PyTorch», after which Slicer has to be restarted", first)
        self.assertIn("once Slicer has been restarted. Restart it now?", second)
        self.assertEqual((manager.installed, manager.interactive), (["PyTorch"], True))
        self.restart.assert_called_once()
        self.others.assert_not_called()
        self.assertTrue(extension.is_awaited())

        torch = types.ModuleType("PyTorchUtils")
        torch.PyTorchUtilsLogic = mock.Mock()
        with mock.patch.dict(sys.modules, PyTorchUtils=torch):
            self.panel.models.go_on_installing()
            torch.PyTorchUtilsLogic().installTorch.assert_called_once()
            self.others.assert_called_once_with(["monai>=1.4"])
            self.panel.models.go_on_installing()
        self.others.assert_called_once()
        self.assertIn(("refreshDevices",), self.logic.calls)

    def test_without_consent_nothing_happens(self) -> None:
        manager = Manager(True)
        self.press(manager, False)
        self.assertEqual(manager.installed, [])
        self.press(manager, True, False)
        self.restart.assert_not_called()
        self.assertFalse(extension.is_awaited())
        self.panel.models.go_on_installing()
        self.others.assert_not_called()

    def test_a_server_that_does_not_answer(self) -> None:
        for answer in (False, RuntimeError("no network")):
            with mock.patch("FewShotSegSlicer.panel.tools.tell_error") as said:
                self.press(Manager(answer), True)
            self.assertIn("Install that in the Extensions Manager", said.call_args.args[0])
            self.restart.assert_not_called()


if __name__ == "__main__":
    unittest.main()
