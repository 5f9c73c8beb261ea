"""Tables for pandas, which is an optional dependency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import InputError


def data_frame(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], index: str | None = None
) -> Any:
    """A ``pandas.DataFrame``.

    Args:
        rows: values by column; what is missing is missing there too.
        index: the column that becomes the index, if any.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise InputError(
            "A table needs the package pandas, which is not installed. Install it with "
            "pip install pandas."
        ) from error
    frame = pandas.DataFrame(list(rows), columns=list(columns))
    return frame if index is None else frame.set_index(index)
