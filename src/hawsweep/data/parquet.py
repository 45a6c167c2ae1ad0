"""The rows of a Parquet file, by pyarrow, which is imported only when asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hawsweep.errors import DataError
from hawsweep.files import check_regular

SUFFIX = ".parquet"


def open_rows(path: Path) -> tuple[list[str], set[str], Iterator[tuple[int, dict[str, Any]]]]:
    """The names of the columns; those of them that hold lists or structures; and an iterator of the
    rows: number from 1, and values by column. Bytes are read as text in UTF-8.

    Raises:
        DataError: pyarrow is not installed, or the file cannot be read.
    """
    try:
        from pyarrow.parquet import ParquetFile
        from pyarrow.types import is_nested
    except ImportError as fault:
        raise DataError(
            f"{path} is a Parquet file, which pyarrow reads. In the clone of hawsweep: "
            "pip install -e '.[parquet]'"
        ) from fault
    try:
        check_regular(path)
        file = ParquetFile(path)
    except (OSError, ValueError) as fault:
        raise _unreadable(path, fault) from fault
    schema = file.schema_arrow
    nested = {field.name for field in schema if is_nested(field.type)}
    return list(schema.names), nested, _rows(file, path)


def _rows(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with file:
        try:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    where = f"{path}:{number}"
                    yield number, {name: _text(row[name], name, where) for name in row}
        except (OSError, ValueError) as fault:
            raise _unreadable(path, fault) from fault


def _text(value: Any, name: str, where: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as fault:
        raise DataError(
            f"{where}: the column {name!r} holds bytes that are no UTF-8 text: {fault}. Write text."
        ) from fault


def _unreadable(path: Path, fault: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a Parquet file: {fault}. Write it anew.")
