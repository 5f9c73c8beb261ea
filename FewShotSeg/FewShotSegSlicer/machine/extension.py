"""The extension «PyTorch», which brings torch: installed through Slicer's extension manager."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError

NAME = "PyTorch"
GO_ON = "FewShotSeg/InstallAfterRestart"
"""Of QSettings: packages are to be installed once Slicer has been started again."""


class ExtensionError(FewShotSegError):
    """The extension could not be installed; the message says what to do."""


class RestartNeeded(FewShotSegError):
    """The extension is there once Slicer has been started again; packages are installed then."""


def is_there() -> bool:
    """Whether torch can be installed through the extension in this Slicer as it runs."""
    try:
        import PyTorchUtils  # noqa: F401
    except ImportError:
        return False
    return True


def can_be_installed() -> bool:
    """Whether this Slicer has an extension manager that could bring it."""
    return _manager() is not None


def install() -> None:
    """Fetch and install the extension; returns when that is done, and asks nothing.

    Raises:
        ExtensionError: there is no manager, or it did not succeed.
        RestartNeeded: it succeeded.
    """
    manager = _manager()
    if manager is None:
        raise ExtensionError(_by_hand())
    if not manager.isExtensionInstalled(NAME):
        before, manager.interactive = manager.interactive, False  # no dialogs of its own
        try:
            # Not restarted by the manager: a person is asked, and what comes after is noted.
            done = manager.installExtensionFromServer(NAME, False)
        except Exception as error:
            raise ExtensionError(f"{error}. {_by_hand()}") from error
        finally:
            manager.interactive = before
        if not done:
            raise ExtensionError(_by_hand())
    raise RestartNeeded(
        _("The extension «PyTorch» is installed. It can be used once Slicer has been restarted.")
    )


def go_on_after_restart() -> None:
    """Note that the packages are to be installed when Slicer is there again."""
    qt.QSettings().setValue(GO_ON, "1")


def is_awaited() -> bool:
    """Whether that was noted."""
    return str(qt.QSettings().value(GO_ON, "") or "") == "1"


def goes_on() -> bool:
    """Whether that was noted; it is so once, and only where the extension has come."""
    noted = is_awaited()
    qt.QSettings().remove(GO_ON)
    return noted and is_there()


def _manager() -> Any:
    """Slicer's model of extensions, None in builds without; versions before 5.6 can't fetch."""
    find = getattr(slicer.app, "extensionsManagerModel", None)
    manager = find() if find is not None else None
    return manager if hasattr(manager, "installExtensionFromServer") else None


def _by_hand() -> str:
    return _(
        "PyTorch is installed through the extension «PyTorch», which could not be fetched. Install "
        "that in the Extensions Manager, restart Slicer, and press Install again."
    )
