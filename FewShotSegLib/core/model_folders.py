"""Where foundation models lie, and what their entries say, without loading a network.

The Slicer side lists models before torch is installed; ``model_registry`` checks and loads them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .architecture_catalog import ARCHITECTURES
from .atomic import replacing, write_json
from .errors import InputError, ModelError, StorageError
from .json_fields import MAX_BYTES, load_json
from .model_entry import CHECKSUMS, read_checked
from .private_folders import make_private, require_private

_T = TypeVar("_T")

EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "Models"
DEFAULT_MODELS = {"CT": "embedded", "MR": "embedded"}
"""What is used where nobody chose, for each modality."""
DEFAULT_MODEL = DEFAULT_MODELS["CT"]
SUPERSEDED = ("embedded-ct", "embedded-mr", "embedded-small")
"""Models that shipped before; what was trained on their features can't be used with others."""
PART = ".part-"
"""How the name of half-fetched weights begins; the weights' own follows."""
PIECE = 2**20


def home_folder() -> Path:
    """The user's FewShotSeg folder, for models and cached features; it need not exist."""
    return Path(os.environ.get("FEWSHOTSEG_HOME") or Path.home() / ".fewshotseg")


def user_folder() -> Path:
    """The user's own models; it need not exist."""
    return home_folder() / "models"


def own_folder(name: str) -> Path:
    """A folder within the user's, made where it isn't there; others can't write to either.

    Raises:
        StorageError: it can't be made, or belongs to another user or to everybody.
    """
    for folder in (home_folder(), home_folder() / name):
        make_private(folder, "with the environment variable FEWSHOTSEG_HOME")
    return home_folder() / name


def require_unchanged_by_others(path: Path) -> None:
    """Check that nobody else can have put a file there, where it lies in the user's models folder.

    Raises:
        ModelError: they can.
    """
    folder = user_folder()
    if path.parent == folder and folder.is_dir():
        try:
            for place in (home_folder(), folder):
                require_private(place, "with the environment variable FEWSHOTSEG_HOME")
        except StorageError as error:
            raise ModelError(str(error)) from error


@dataclass(frozen=True)
class UnusableEntry:
    """A file among the registry's entries that is none, and why: one sentence."""

    path: Path
    reason: str


def entry_paths() -> list[Path]:
    """Every file that may be a registry entry: the project's, those of packages that add an
    architecture, then the user's."""
    added = [record.models_folder() for record in ARCHITECTURES.values() if record.models]
    folders = dict.fromkeys([EMBEDDED_FOLDER, *added, user_folder()])
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def weights_path(folder: Path, name: str) -> Path:
    """Where an entry's weights are: beside it, else in the user's folder (or to be put there)."""
    beside = folder / name
    return beside if beside.is_file() else user_folder() / name


def read_entry(path: Path, read: Callable[[Path], dict[str, Any]] = read_checked) -> dict[str, Any]:
    """What an entry says, checked; ``weights`` becomes a path.

    Args:
        read: reads and checks the file, or knows already what it says.

    Raises:
        ModelError: the file is not an entry, or says something that can't be.
    """
    data = read(path)
    return {**data, "weights": weights_path(Path(path).parent, data["weights"])}


def read_entries(
    read: Callable[[Path], _T], id_of: Callable[[_T], str]
) -> tuple[list[tuple[Path, _T]], list[UnusableEntry]]:
    """Every entry of the registry that can be used, and every file there that can't.

    One file that can't be read hides no other. Where two have one id, the first counts.

    Args:
        read: makes an entry of a file, or raises a ModelError. id_of: the entry's id.
    """
    entries: dict[str, tuple[Path, _T]] = {}
    unusable = []
    for path in entry_paths():
        try:
            require_unchanged_by_others(path)
            entry = read(path)
            if id_of(entry) in entries:
                raise ModelError(
                    f"Two models are called '{id_of(entry)}'. Rename the one in {path}."
                )
            entries[id_of(entry)] = path, entry
        except ModelError as error:
            unusable.append(UnusableEntry(path, str(error)))
    return list(entries.values()), unusable


def usable_entries(
    read: Callable[[Path], dict[str, Any]] = read_checked,
) -> tuple[list[tuple[Path, dict[str, Any]]], list[UnusableEntry]]:
    """:func:`read_entries` as :func:`read_entry` gives them, with the same ``read``."""
    return read_entries(lambda path: read_entry(path, read), lambda entry: entry["id"])


def add_model(path: str | Path) -> str:
    """Copy an entry and its weights into the user's folder; returns the model's id.

    Nothing that is there is written over: weights whose name another model's have go under one with
    the id. What is written is what was checked, and the copied weights' hash is remembered.

    Raises:
        ModelError: it is no entry, its weights are not beside it or not those that it describes,
            or the id is taken. StorageError: the folder can't be written to.
    """
    path = Path(path)
    data = read_checked(path)
    weights = weights_path(path.parent, data["weights"])
    if not weights.is_file():
        raise ModelError(
            f"The weights {weights.name} are not beside {path.name}. Put both into one folder."
        )
    for other, taken in _claims():
        if taken.get("id") == data["id"]:
            raise ModelError(
                f"There is a model '{data['id']}' already, in {other}. Remove it first."
            )
    folder, safe_id = (
        own_folder("models"),
        re.sub(r"[^\w.-]", "_", data["id"]).strip(".-_") or "model",
    )
    names = {name.casefold() for name in os.listdir(folder)} if folder.is_dir() else set()
    if weights.resolve().parent == folder.resolve():
        name = weights.name  # put there by hand
    else:
        stem, suffix = os.path.splitext(weights.name)
        claimed = names | {c["weights"].casefold() for _, c in _claims() if "weights" in c}
        name = _free(claimed, suffix, stem, f"{stem[:80]}-{safe_id}")
        try:
            with replacing(folder / name) as temporary:
                digest = _copy_hashed(weights, temporary)
                if data["sha256"] not in (None, digest):
                    raise ModelError(
                        f"The weights {weights} are damaged, or another version than the entry "
                        "describes (their sha256 differs). Nothing was added."
                    )
                if data["sha256"] is None:
                    record_sha256(name, digest)
        except OSError as error:
            raise ModelError(
                f"The weights {weights} can't be copied ({error.strerror or error}). Nothing was "
                "added."
            ) from error
    # The entry last, so that where it is, all of it is.
    entry_name = _free(names, ".json", path.stem, safe_id)
    write_json(folder / entry_name, {**data, "weights": name})
    return data["id"]


def _free(taken: Collection[str], suffix: str, *stems: str) -> str:
    """The first of these file names, or else the last with a number, that nothing has."""
    numbered = (f"{stems[-1]}-{number}" for number in range(2, len(taken) + 3))
    names = (f"{stem}{suffix}" for stem in (*stems, *numbered))
    return next(name for name in names if name.casefold() not in taken and not name.startswith("."))


def _claims() -> Iterator[tuple[Path, dict[str, str]]]:
    """The id and the name of the weights of every file among the entries, however unusable."""
    for path in entry_paths():
        try:
            data = load_json(path, "model entry")
        except InputError:
            continue
        if isinstance(data, dict):
            texts = {key: data.get(key) for key in ("id", "weights")}
            yield path, {key: text for key, text in texts.items() if isinstance(text, str)}


def _copy_hashed(source: Path, target: Path) -> str:
    """Copy a file; the hash of what was copied."""
    digest = hashlib.sha256()
    with open(source, "rb") as read, open(target, "wb") as write:
        while piece := read.read(PIECE):
            digest.update(piece)
            write.write(piece)
    return digest.hexdigest()


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
    with replacing(own_folder("models") / CHECKSUMS) as temporary:
        lines = [f"{value}  {key}\n" for key, value in sorted(kept.items()) if value]
        temporary.write_text("".join(lines), encoding="utf-8")


def _checksums() -> dict[str, str]:
    try:
        with open(user_folder() / CHECKSUMS, encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return {}
    found = re.findall(r"^([0-9a-f]{64})  (.+)$", text, re.MULTILINE)
    return {name: digest for digest, name in found}


def part_of_weights(name: str) -> Path:
    """Where weights are while they are fetched."""
    return user_folder() / f"{PART}{name}"


def remove_parts(name: str) -> None:
    """Remove what was fetched of weights before it was interrupted."""
    part_of_weights(name).unlink(missing_ok=True)
    part_of_weights(f"{name}.tag").unlink(missing_ok=True)


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


def remove_model(model_id: str) -> bool:
    """Remove a model's weights from the user's folder, and its entry where that is there too.

    What was half fetched goes as well, and the weights' recorded hash. Weights that another entry
    names too stay, as does whatever is elsewhere.

    Returns:
        whether there was anything to remove.

    Raises:
        ModelError: there is no such model, it ships with the project, or nothing is its alone.
            StorageError: a file can't be removed.
    """
    entries, unusable = usable_entries()
    found = next((pair for pair in entries if pair[1]["id"] == model_id), None)
    if found is None:
        broken = next((fault for fault in unusable if fault.path.stem == model_id), None)
        if broken is not None:
            raise ModelError(
                f"There is no model '{model_id}' that can be used. If nobody needs it, delete "
                f"{broken.path}."
            )
        raise ModelError(f"There is no model '{model_id}'.")
    path, weights = found[0], found[1]["weights"]
    own = path.parent == user_folder()
    if not own and weights.parent != user_folder():
        owner = "FewShotSeg" if path.parent == EMBEDDED_FOLDER else "a package that extends it"
        raise ModelError(f"'{model_id}' ships with {owner} and stays.")
    sharing = [
        str(other.get("id", p.name))
        for p, other in _claims()
        if p != path and _same(weights, weights_path(p.parent, other.get("weights", "") or "?"))
    ]
    if sharing and not own:
        raise ModelError(
            f"The weights of '{model_id}' ({weights}) are those of '{sharing[0]}' too, and stay. "
            f"Remove '{sharing[0]}' first."
        )
    there = own or weights.exists() or part_of_weights(weights.name).exists()
    try:
        if own:  # first: without its weights an entry still works, weights alone are forgotten
            path.unlink(missing_ok=True)
        if weights.parent == user_folder() and not sharing:
            weights.unlink(missing_ok=True)
            remove_parts(weights.name)
            record_sha256(weights.name, None)
    except OSError as error:
        raise StorageError(
            f"The files of '{model_id}' can't all be removed ({error.strerror or error}: "
            f"{error.filename}). Close what uses them, and try again."
        ) from error
    return there


def _same(a: Path, b: Path) -> bool:
    """Whether two paths lead to one file, where there is one, or would."""
    try:
        return os.path.samefile(a, b)
    except (OSError, ValueError):
        return str(a).casefold() == str(b).casefold()
