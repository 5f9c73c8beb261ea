"""The errors that a user can act on. Each message says what is wrong and what to do."""

from __future__ import annotations

import errno
import os


class FewShotSegError(Exception):
    """Base of every error that is the input's or the machine's, not the program's.

    Its message is one sentence (or two) for a person. The command line prints it and exits with
    status 2; the Slicer module shows it on the panel. No result file has been touched.
    """


class InputError(FewShotSegError):
    """A file, a volume, an annotation or an option can't be used as it is."""


class ClusterError(InputError):
    """Work was not done for a reason of the machines it was sent to, which says nothing of the
    volume."""


class ModelError(FewShotSegError):
    """A foundation model is unknown, missing, damaged, or not the one an adapter was made for."""


class StorageError(FewShotSegError):
    """A disk is full or a place can't be written to."""


class Cancelled(FewShotSegError):
    """The user stopped the work; what was there before is as it was."""


class OutOfMemory(FewShotSegError):
    """The memory, or a GPU's, is not enough for the work."""


_MEMORY_WORDS = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    # What oneDNN says when the memory for a layer's work can't be had.
    *("could not create a primitive", "could not create a memory object"),
    *("std::bad_alloc", "could not allocate", "unable to allocate"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means that memory ran out (torch raises RuntimeErrors)."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _MEMORY_WORDS)
    )


def in_words(error: Exception) -> FewShotSegError:
    """Any error as one of these: for work of which each part fails alone."""
    if isinstance(error, FewShotSegError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            "The memory is not enough for this volume and model. Close other programs, crop the "
            "volume, or use --device cpu."
        )
    if isinstance(error, OSError) and error.strerror:
        where = error.filename2 or error.filename
        about = f" ({os.fsdecode(where)})" if isinstance(where, (str, bytes, os.PathLike)) else ""
        return StorageError(f"The system says: {error.strerror}{about}.")
    text = " ".join(str(error).split())
    return FewShotSegError(
        f"Something unexpected happened ({type(error).__name__}{': ' * bool(text)}{text[:300]})."
    )


def first_line(error: Exception) -> str:
    """The first line of an error, without a full stop, or its kind: torch writes paragraphs, and
    advice to load pickles."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].strip().rstrip(".")
