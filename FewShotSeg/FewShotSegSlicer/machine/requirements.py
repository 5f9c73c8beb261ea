"""Packages of Slicer's Python that the background process can't use, in words."""

from __future__ import annotations

from slicer.i18n import tr as _

from FewShotSegLib.core.plugins import plugin_remarks
from FewShotSegLib.core.requirements import Outdated, outdated_packages


def outdated_advice() -> list[str]:
    """One text for each: what is wrong with it, and how to mend it. Nothing is replaced unasked.

    They are too old; or they add a method or an architecture that can't be used.
    """
    return [*(f"{found} {_mend(found)}" for found in outdated_packages()), *plugin_remarks()]


def _mend(found: Outdated) -> str:
    if found.requirement.name == "torch":
        return _(
            "In the module «PyTorch Utils» of the PyTorch extension, uninstall PyTorch; restart "
            "Slicer, and press Install here. It stays as it is until then."
        )
    return _(
        "It stays as it is until you update it, in Slicer's Python console: "
        'slicer.util.pip_install("{need}")'
    ).format(need=found.requirement)
