"""Where the real data for tests are. They are no part of the repository.

``FEWSHOTSEG_TEST_DATA`` names the data's folder; without it, it is ``shared/data`` beside the
repository. Models are in the folder ``models`` next to it.
"""

from __future__ import annotations

import os
import unittest
from pathlib import Path


def data_folder() -> Path:
    """The folder of the shared data.

    Raises:
        unittest.SkipTest: it isn't here.
    """
    return _existing(_data())


def models_folder() -> Path:
    """The folder of the shared models.

    Raises:
        unittest.SkipTest: it isn't here.
    """
    return _existing(_data().parent / "models")


def _data() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("FEWSHOTSEG_TEST_DATA") or beside).absolute()


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise unittest.SkipTest(f"no shared data at {folder} (see FEWSHOTSEG_TEST_DATA)")
    return folder
