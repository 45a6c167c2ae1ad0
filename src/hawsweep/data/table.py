"""The rows of a CSV, a TSV or a Parquet file, checked: the file may come from any program."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from hawsweep.data import parquet
from hawsweep.data.records import limited_lines
from hawsweep.errors import DataError
from hawsweep.files import open_regular

TEXT_TABLES = (".csv", ".tsv")
# A line's number, and its cells by column or in order.
Rows = Iterator[tuple[int, dict[str, str]]]
_Cells = Iterator[tuple[int, list[str]]]
_LINES_NAMED = 8
_SEPARATORS = {"commas": ",", "semicolons": ";", "tabs": "\t"}
_QUOTED_WHOLE = re.compile(r'"((?:[^"]|"")*)"')


@contextmanager
def open_table(path: Path) -> Iterator[tuple[list[str], Rows]]:
    """The named columns, and an iterator of the rows: line number, and cells by column.

    Blank cells are empty, and so are missing ones at a row's end. Blank rows are left out.

    Raises:
        DataError: It cannot be read, names a column twice, has no rows, or a row is not of a
            table. The message names the file and, for a row, its first line.
    """
    if path.suffix.lower() == parquet.SUFFIX:
        names, nested, numbered = parquet.open_rows(path)
        taken = [name for name in names if name.strip() and name not in nested]
        columns = [name.strip() for name in taken]
        _check_names(columns, path)
        if len(columns) < 2 and nested:
            raise DataError(
                f"{path} has lists or structures in the columns {', '.join(sorted(nested))}, which "
                "are no texts. Write each text into a column of its own, such as source and target."
            )
        texts = (
            (n, ["" if row[name] is None else str(row[name]) for name in taken])
            for n, row in numbered
        )
        yield columns, _rows(texts, columns, path)
        return
    try:
        # A byte that is no UTF-8 becomes a surrogate, which `_lines` finds and names by its line.
        with TextIOWrapper(
            open_regular(path), encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file:
            way = _choose_tsv(file, path) if _is_tsv(path) else _choose_csv(file, path)
            cells = way.cut(file, path)
            _, names = next(cells, (0, []))
            if not names:
                raise DataError(
                    f"{path} is empty. Write a line with the names of the columns, such as "
                    "source,target, and a row for each pair."
                )
            header = [name.strip() for name in names]
            columns = [name for name in header if name]
            _check_names(columns, path)
            yield columns, _rows(cells, header, path)
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror or fault}.") from fault


def full_rows(path: Path, rows: Rows, needed: Sequence[str]) -> Rows:
    """The rows, of which none lacks a text in the columns ``needed``.

    Raises:
        DataError: Some do, which is known after the last row; the message has their first lines.
    """
    n_rows = n_lacking = 0
    first: list[int] = []
    for line, row in rows:
        n_rows += 1
        if all(row[name] for name in needed):
            yield line, row
            continue
        n_lacking += 1
        first += [line] * (len(first) < _LINES_NAMED)
    if n_lacking:
        named = ", ".join(map(str, first))
        more = f" and {n_lacking - len(first)} more" if n_lacking > len(first) else ""
        raise DataError(
            f"{path}: {n_lacking} of {n_rows} rows have an empty {' or '.join(needed)}, in "
            f"line {named}{more}. Fill or remove them."
        )


def is_blank(text: str) -> bool:
    """Whether nothing of a text is seen: no-break and zero-width spaces are blank too."""
    return not text[:1].isalnum() and not any(
        character.isprintable() and character != " " for character in text
    )


@dataclass(frozen=True)
class _Way:
    """A way to cut a file into rows of cells; ``name`` is of what separates the cells."""

    name: str
    separator: str
    has_quoting: bool = True

    def cut(self, file: IO[str], path: Path) -> _Cells:
        """The rows that are not blank, from the file's beginning."""
        file.seek(0)
        rows = _quoted_rows if self.has_quoting else _tsv_rows
        for line, cells in rows(_lines(file, path), self.separator, path):
            if not all(map(is_blank, cells)):
                yield line, cells


@dataclass
class _Fit:
    """How a way to cut fits a file.

    Attributes:
        width: Cells of the header.
        misfit: The first line that cannot be one of its rows; None where there is none.
        is_full: Whether each row has the header's cells.
        is_spaced: Whether a cell begins with a space, as after a comma in a sentence.
    """

    width: int
    misfit: int | None = None
    is_full: bool = True
    is_spaced: bool = False


def _is_tsv(path: Path) -> bool:
    return path.suffix.lower() == ".tsv"


def _choose_csv(file: IO[str], path: Path) -> _Way:
    """The way in which each row has the header's cells.

    Raises:
        DataError: There is none, or there are several.
    """
    ways = [_Way(*each) for each in _SEPARATORS.items()]
    able = [way for way in ways if _header_width(way, file, path) > 1]
    if len(able) < 2:
        return able[0] if able else ways[0]
    fits = {way: _fit(way, file, path) for way in able}
    tests: tuple[Callable[[_Fit], bool], ...] = (
        lambda fit: fit.misfit is None,
        lambda fit: fit.is_full,
        lambda fit: not fit.is_spaced,
    )
    left = able
    for test in tests:
        left = [way for way in left if test(fits[way])] or left
    remedy = "Put a text that contains a separator into quotation marks."
    named = " and ".join(way.name for way in left)
    if fits[left[0]].misfit is not None:
        each = "; ".join(f"cut at {way.name}, line {fits[way].misfit} does not" for way in able)
        raise DataError(
            f"{path}:{fits[able[0]].misfit}: no separator gives every row as many cells as the "
            f"header has: {each}. {remedy}"
        )
    if len(left) > 1:
        raise DataError(
            f"{path}:1 may be cut at {named}: each gives every row as many cells as the header "
            f"has. {remedy}"
        )
    return left[0]


def _choose_tsv(file: IO[str], path: Path) -> _Way:
    # Most programs write a TSV without quoting, and a quotation mark is text, unless it encloses a
    # cell. Excel and pandas quote: such a cell may have tabs and line breaks, and read without
    # quoting the rows have other numbers of cells.
    plain, quoted = (_Way("tabs", "\t", has_quoting) for has_quoting in (False, True))
    fits = [_fit(way, file, path) for way in (plain, quoted)]
    plain_fits, quoted_fits = (fit.misfit is None and fit.is_full for fit in fits)
    return quoted if quoted_fits and not plain_fits else plain


def _header_width(way: _Way, file: IO[str], path: Path) -> int:
    try:
        return _width(next(way.cut(file, path), (0, []))[1])
    except _QuotingError:
        return 0


def _width(cells: Sequence[str]) -> int:
    """The number of cells without blank ones at the end."""
    return max((n for n, cell in enumerate(cells, 1) if not is_blank(cell)), default=0)


def _is_longer(cells: Sequence[str], width: int) -> bool:
    return len(cells) > width and not all(map(is_blank, cells[width:]))


def _fit(way: _Way, file: IO[str], path: Path) -> _Fit:
    fit = _Fit(_header_width(way, file, path))
    try:
        for line, cells in way.cut(file, path):
            if _is_longer(cells, fit.width) or len(cells) < min(2, fit.width):
                fit.misfit = line
                break
            fit.is_full &= len(cells) >= fit.width
            fit.is_spaced |= any(cell[:1] == " " for cell in cells)
    except _QuotingError as fault:
        fit.misfit = fault.line
    return fit


class _QuotingError(DataError):
    """Quotation marks that do not enclose a cell, in the row that begins in ``line``."""

    def __init__(self, path: Path, line: int, reason: object) -> None:
        super().__init__(
            f"{path}:{line}: the row that begins here cannot be read: {reason}. Put a cell with a "
            "separator, a quotation mark or a line break into quotation marks, and double those "
            "inside it. Write longer texts as JSON lines."
        )
        self.line = line


def _quoted_rows(lines: Iterator[str], separator: str, path: Path) -> _Cells:
    read: list[str] = []
    reader = csv.reader(_kept(lines, read), delimiter=separator, strict=True)
    # csv takes a quotation mark after a space for text.
    spaced = re.compile(rf'(?:^|{separator}) +"')
    while True:
        line = reader.line_num + 1
        read.clear()
        try:
            cells = next(reader, None)
        except csv.Error as fault:
            raise _QuotingError(path, line, fault) from fault
        if cells is None:
            return
        may_be = any(cell[:1] == " " and cell.lstrip(" ")[:1] == '"' for cell in cells)
        if may_be and spaced.search("".join(read)):
            raise _QuotingError(path, line, "a space stands before a quotation mark")
        yield line, cells


def _kept(lines: Iterator[str], read: list[str]) -> Iterator[str]:
    for line in lines:
        read.append(line)
        yield line


def _tsv_rows(lines: Iterator[str], separator: str, _: Path) -> _Cells:
    for number, line in enumerate(lines, 1):
        cells = line.rstrip("\r\n").split(separator)
        yield number, [_unquoted(cell) for cell in cells] if '"' in line else cells


def _unquoted(cell: str) -> str:
    quoted = _QUOTED_WHOLE.fullmatch(cell) if cell.startswith('"') else None
    return cell if quoted is None else quoted[1].replace('""', '"')


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(limited_lines(file, str(path)), 1):
        try:
            line.encode()
        except UnicodeEncodeError as fault:
            byte = ord(line[fault.start]) - 0xDC00
            raise DataError(
                f"{path}:{number} cannot be read as a CSV in UTF-8: it has the byte {byte:#x}. "
                "Save it as UTF-8, in Excel as CSV UTF-8."
            ) from fault
        if "\0" in line:
            raise DataError(f"{path}:{number} has a NUL character. Save the file as UTF-8.")
        yield line


def _check_names(columns: Sequence[str], path: Path) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"{path} has two columns {name[:80]!r}. Rename one.")


def _rows(numbered: _Cells, header: Sequence[str], path: Path) -> Rows:
    width, empty = _width(header), {name: "" for name in header if name}
    has_rows = False
    for line, cells in numbered:
        if _is_longer(cells, width):
            raise DataError(
                f"{path}:{line} has {_width(cells)} cells, more cells than the header has "
                f"columns: {width}. Put a text that contains a separator into quotation "
                "marks, or name the column."
            )
        has_rows = True
        filled = zip(header, cells, strict=False)
        yield line, empty | {name: cell for name, cell in filled if name and not is_blank(cell)}
    if not has_rows:
        raise DataError(f"{path} has no rows below its header. Add a row for each pair.")
