"""The rows of a Parquet file, by pyarrow, which is imported only when asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hawsweep.errors import DataError

SUFFIX = ".parquet"


def open_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, Any]]]]:
    """The names of the columns, and an iterator of the rows: number from 1, and values by column.

    Raises:
        DataError: pyarrow is not installed, or the file cannot be read.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as fault:
        raise DataError(
            f"{path} is a Parquet file, which pyarrow reads. In the clone of hawsweep: "
            "pip install '.[parquet]'"
        ) from fault
    try:
        file = ParquetFile(path)
    except (OSError, ValueError) as fault:
        raise _unreadable(path, fault) from fault
    return list(file.schema_arrow.names), _rows(file, path)


def _rows(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with file:
        try:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (OSError, ValueError) as fault:
            raise _unreadable(path, fault) from fault


def _unreadable(path: Path, fault: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a Parquet file: {fault}. Write it anew.")
