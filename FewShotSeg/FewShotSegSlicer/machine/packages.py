"""Python packages that the background process needs, installed on request into Slicer's Python.

torch comes through the PyTorch extension, which picks the build for this machine. For the rest,
what Slicer ships (numpy, SimpleITK, ...) and an installed torch are pinned by a constraints file,
so that pip can't replace them.
"""

from __future__ import annotations

import importlib.metadata
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError

from . import extension

SIZES = {
    "torch": "200 MB, or 3 GB with GPU support",
    "monai": "2 MB",
    "scipy": "40 MB",
    "matplotlib": "10 MB",
    "SimpleITK": "50 MB",
    "numpy": "20 MB",
}
"""Roughly what is downloaded; what isn't named is below 1 MB."""
KEPT = ("numpy", "scipy", "SimpleITK", "vtk", "torch", "torchvision", "pillow", "packaging")
"""Whatever of these is installed stays at its version."""


class PackagesError(FewShotSegError):
    """Packages could not be installed; the message says what to do."""


def package_name(requirement: str) -> str:
    """``torch`` of ``torch>=2.10``."""
    return re.split(r"[\s<>=!~;\[(]", requirement.strip(), maxsplit=1)[0]


def describe_packages(requirements: Sequence[str]) -> str:
    """The question before installing: what, how large, and what stays as it is."""
    lines = [f"- {r} ({SIZES.get(package_name(r), _('below 1 MB'))})" for r in requirements]
    if _needs_extension(requirements) and extension.can_be_installed():
        lines.insert(0, _("- the extension «PyTorch», after which Slicer has to be restarted"))
    return _(
        "These Python packages will be downloaded and installed into this Slicer:\n\n{packages}\n\n"
        "Slicer's own packages stay as they are. It takes some minutes. Install them?"
    ).format(packages="\n".join(lines))


def constraints() -> list[str]:
    """One line for each installed package that must stay."""
    lines = []
    for name in KEPT:
        try:
            lines.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return lines


def install_packages(requirements: Sequence[str]) -> None:
    """Install them; returns when they are.

    Raises:
        PackagesError: pip failed. ExtensionError: the PyTorch extension is missing, and can't be
            fetched. RestartNeeded: it was fetched; nothing else is installed yet.
    """
    if _needs_extension(requirements):
        extension.install()
    for requirement in requirements:
        if package_name(requirement) == "torch":
            _install_torch(requirement)
    rest = [r for r in requirements if package_name(r) != "torch"]
    if rest:
        _install_others(rest)


def _needs_extension(requirements: Sequence[str]) -> bool:
    """Whether torch is among them, and nothing is there to install it with."""
    return any(package_name(r) == "torch" for r in requirements) and not extension.is_there()


def _install_torch(requirement: str) -> None:
    import PyTorchUtils

    version = requirement.strip()[len("torch") :] or None
    try:
        installed = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=version
        )
    except Exception as error:
        raise PackagesError(
            _("PyTorch was not installed: {error}. The log in Slicer's console says more.").format(
                error=error
            )
        ) from error
    if installed is None:
        raise PackagesError(_("PyTorch was not installed. Slicer's console says why."))


def _pip_install(requirements: list[str], constraints_path: str) -> None:
    """Slicer 5.12 and newer show pip's progress; older ones block until it has ended."""
    try:
        from slicer.packaging import pip_ensure
    except ImportError:
        slicer.util.pip_install([*requirements, "--constraint", constraints_path])
        return
    pip_ensure(
        requirements, constraints=constraints_path, prompt_install=False, requester="FewShotSeg"
    )


def _install_others(requirements: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(constraints()) + "\n", encoding="utf-8")
        try:
            _pip_install(requirements, str(path))
        except Exception as error:
            raise PackagesError(
                _(
                    "{names} could not be installed: {error}. Check the network and try again."
                ).format(names=", ".join(requirements), error=error)
            ) from error
