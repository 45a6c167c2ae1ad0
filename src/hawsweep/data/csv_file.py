"""The rows of a CSV or TSV, checked: the file may come from any program."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hawsweep.data.records import limited_lines
from hawsweep.errors import DataError

Rows = Iterator[tuple[int, dict[str, str]]]


@contextmanager
def open_csv(path: Path) -> Iterator[tuple[list[str], Rows]]:
    """The named columns, and an iterator of the rows: line number, and cells by column.

    Missing cells at a row's end are empty. Rows of empty cells are left out.

    Raises:
        DataError: It cannot be read as a CSV in UTF-8, names a column twice, or a row has more
            cells than there are columns.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_text(file, path), delimiter=delimiter)
            header = next(reader, [])
            columns = [name for name in header if name]
            for name in columns:
                if columns.count(name) > 1:
                    raise DataError(f"{path} has two columns {name[:80]!r}. Rename one.")
            numbered = ((reader.line_num, row) for row in reader)
            yield columns, _rows(numbered, header, path)
    except UnicodeDecodeError as fault:
        raise DataError(
            f"{path} cannot be read as a CSV in UTF-8: {fault}. Save it as UTF-8."
        ) from fault
    except csv.Error as fault:
        raise DataError(
            f"{path}:{reader.line_num} cannot be read as a CSV in UTF-8: {fault}. Is a quotation "
            "mark missing? Write longer texts as JSON lines."
        ) from fault
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}.") from fault


def _text(file: IO[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(limited_lines(file, str(path)), 1):
        if "\0" in line:
            raise DataError(f"{path}:{number} has a NUL character. Save the file as UTF-8.")
        yield line


def _rows(numbered: Iterator[tuple[int, list[str]]], header: list[str], path: Path) -> Rows:
    for line, row in numbered:
        if not any(row):
            continue
        if any(row[len(header) :]):
            raise DataError(
                f"{path}:{line} has {len(row)} cells, more cells than the header has "
                f"columns: {len(header)}. Put a text that contains a separator into quotation "
                "marks."
            )
        yield line, dict.fromkeys(header, "") | dict(zip(header, row, strict=False))
