"""Where foundation models lie, and what their entries say, without loading a network.

The Slicer side lists models before torch is installed; ``model_registry`` checks and loads them.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from .atomic import replacing
from .errors import ModelError
from .json_fields import load_json

EMBEDDED_FOLDER = Path(__file__).resolve().parent / "Resources" / "Models"
DEFAULT_MODELS = {"CT": "embedded-ct", "MR": "embedded-mr"}
"""What is used where nobody chose: for each modality the embedded model that is best at it."""
DEFAULT_MODEL = DEFAULT_MODELS["CT"]
PART = ".part-"
"""How the name of half-fetched weights begins; the weights' own follows."""
CHECKSUMS = "SHA256SUMS"
"""Of weights whose publisher gives no checksum, as they were first used; ``sha256sum -c`` reads it.
"""
PIECE = 2**20


def home_folder() -> Path:
    """The user's FewShotSeg folder, for models and cached features; it need not exist."""
    return Path(os.environ.get("FEWSHOTSEG_HOME") or Path.home() / ".fewshotseg")


def user_folder() -> Path:
    """The user's own models; it need not exist."""
    return home_folder() / "models"


def entry_paths() -> list[Path]:
    """Every registry entry: the project's, then the user's."""
    return [
        path
        for folder in (EMBEDDED_FOLDER, user_folder())
        for path in sorted(folder.glob("*.json"))
    ]


def weights_path(folder: Path, name: str) -> Path:
    """Where an entry's weights are: beside it, else in the user's folder (or to be put there)."""
    beside = folder / name
    return beside if beside.is_file() else user_folder() / name


def read_entry(path: Path) -> dict[str, Any]:
    """What an entry says, unchecked but for being one; ``weights`` becomes a path.

    Raises:
        ModelError: the file is not an entry.
    """
    try:
        data = load_json(path, "entry of a foundation model", ModelError)
        data["weights"] = weights_path(Path(path).parent, data["weights"])
        if not isinstance(data["id"], str) or not data["id"]:
            raise ValueError("it has no id")
        return data
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not the entry of a foundation model ({error}). Resources/Models/README.md "
            "tells what one looks like."
        ) from error


def add_model(path: str | Path) -> str:
    """Copy an entry and its weights into the user's folder; returns the model's id.

    Raises:
        ModelError: it is no entry, its weights are not beside it, or the id is taken.
        StorageError: the folder can't be written to.
    """
    path = Path(path)
    entry = read_entry(path)
    weights = entry["weights"]
    if not weights.is_file():
        raise ModelError(
            f"The weights {weights.name} are not beside {path.name}. Put both into one folder."
        )
    for other in entry_paths():
        try:
            taken = read_entry(other)["id"] == entry["id"]
        except ModelError:
            continue
        if taken:
            raise ModelError(f"There is a model '{entry['id']}' already. Remove it first.")
    for source in (weights, path):  # the entry last, so that where it is, all of it is
        target = user_folder() / source.name
        if source.resolve() != target.resolve():
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
    return entry["id"]


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal digits.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def recorded_sha256(name: str) -> str | None:
    """The hash that weights in the user's folder had when they were first used, if recorded."""
    return _checksums().get(name)


def record_sha256(name: str, digest: str | None) -> None:
    """Remember the hash of weights in the user's folder; None forgets it.

    Raises:
        StorageError: the folder can't be written to.
    """
    known = _checksums()
    if known.get(name) == digest:
        return
    kept = {**known, name: digest}
    with replacing(user_folder() / CHECKSUMS) as temporary:
        lines = [f"{value}  {key}\n" for key, value in sorted(kept.items()) if value]
        temporary.write_text("".join(lines), encoding="utf-8")


def _checksums() -> dict[str, str]:
    try:
        text = (user_folder() / CHECKSUMS).read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.split("  ", 1) for line in text.splitlines())
    return {line[1]: line[0] for line in lines if len(line) == 2}


def remove_parts(name: str) -> None:
    """Remove what was fetched of weights before it was interrupted."""
    for file in user_folder().glob(f"{PART}{glob.escape(name)}*"):
        file.unlink(missing_ok=True)


def require_absent(model_id: str, weights: Path) -> None:
    """Check that a model's weights may be put in their place.

    Raises:
        ModelError: they are there.
    """
    if weights.is_file():
        raise ModelError(
            f"The weights of '{model_id}' are here already ({weights}). To replace them, first "
            f"run: fewshotseg remove {model_id}"
        )


def remove_model(model_id: str) -> None:
    """Remove a model's weights from the user's folder, and its entry where that is there too.

    What was half fetched goes as well, and the weights' recorded hash.

    Raises:
        ModelError: there is no such model, or it ships with the project.
    """
    for path in entry_paths():
        try:
            entry = read_entry(path)
        except ModelError:
            continue
        if entry["id"] != model_id:
            continue
        ours = [file for file in (path, entry["weights"]) if file.parent == user_folder()]
        if not ours:
            raise ModelError(f"'{model_id}' ships with FewShotSeg and stays.")
        for file in ours:
            file.unlink(missing_ok=True)
        remove_parts(entry["weights"].name)
        record_sha256(entry["weights"].name, None)
        return
    raise ModelError(f"There is no model '{model_id}'.")
