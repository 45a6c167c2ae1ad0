"""Records in a single file: JSON lines, a JSON list, plain text, or a Parquet file."""

import json
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from hawsweep.data import parquet
from hawsweep.data.columns import GROUP, TARGETS
from hawsweep.data.json_line import read_line
from hawsweep.data.records import (
    MAX_LINE,
    Records,
    limited_lines,
    read_records,
    readable,
    store_records,
)
from hawsweep.errors import DataError
from hawsweep.files import open_regular
from hawsweep.spec.sweep import Normalize

RECORD_FILES = (".jsonl", ".json", ".txt")
# The number of a line or row, and its record as JSON.
_Numbered = Iterator[tuple[int, str]]


def read_record_file(path: Path, normalize: Normalize = "none", group_key: str = GROUP) -> Records:
    """The records of a file, in its order.

    Args:
        normalize: ``data.normalize``.
        group_key: The key of a record's group.

    Raises:
        DataError: The file or a record is broken; the message names the file and the line, in a
            Parquet file the row.
    """
    kind = path.suffix.lower()
    with readable(path):
        if kind == parquet.SUFFIX:
            found = _rows(path)
        elif kind == ".txt":
            found = _texts(_open_text(path), path)
        elif kind == ".json" and _is_list(path):
            found = _listed(path)
        else:
            return read_records(path, normalize, group_key)
        return store_records(_checked(found, path), str(path), normalize, group_key)


def holds_records(path: Path) -> bool:
    """Whether a Parquet file has columns of one of mlx-lm's formats, and is no table of texts and
    translations.

    Raises:
        DataError: It cannot be read.
    """
    columns, _, _ = parquet.open_rows(path)
    if "messages" in columns or {"prompt", "completion"} <= set(columns):
        return True
    return "text" in columns and {column.lower() for column in columns}.isdisjoint(TARGETS)


def _checked(numbered: _Numbered, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in numbered:
        where = f"{path}:{number}"
        read_line(text, where)
        content = json.loads(text)
        try:
            size = len(json.dumps(content, ensure_ascii=False).encode())
        except UnicodeEncodeError as fault:
            half = ascii(fault.object[fault.start])
            raise DataError(
                f"{where} has {half}, half of a character. Correct or remove the record."
            ) from fault
        if size > MAX_LINE:
            raise DataError(f"{where} is longer than {MAX_LINE / 1e6:g} MB. Shorten the record.")
        yield number, content


def _rows(path: Path) -> _Numbered:
    for number, row in parquet.open_rows(path)[2]:
        yield number, json.dumps(_without_nulls(row), ensure_ascii=False, default=str)


def _without_nulls(value: Any) -> Any:
    """A value without the nulls by which Parquet says that a key is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return list(map(_without_nulls, value)) if isinstance(value, list) else value


def _texts(opened: TextIOWrapper, path: Path) -> _Numbered:
    with opened as file:
        for number, line in enumerate(limited_lines(file, str(path)), 1):
            if line.strip():
                yield number, json.dumps({"text": line.rstrip("\n")})


def _open_text(path: Path) -> TextIOWrapper:
    return TextIOWrapper(open_regular(path), encoding="utf-8-sig")


def _is_list(path: Path) -> bool:
    with _open_text(path) as file:
        while (first := file.read(1)).isspace():
            pass
        return first == "["


def _listed(path: Path) -> _Numbered:
    with _open_text(path) as file:
        text = file.read()
    try:
        json.loads(text)
    except RecursionError as fault:
        raise DataError(f"{path} is JSON that is nested too deep to be read.") from fault
    except ValueError as fault:  # also of a number with thousands of digits
        line = getattr(fault, "lineno", 1)
        raise DataError(f"{path}:{line} is not JSON: {fault}. Correct it there.") from fault
    # Each element is cut out of the text, so that its line is known.
    decoder, line, at, counted = json.JSONDecoder(), 1, text.index("[") + 1, 0
    while True:
        while text[at] == "," or text[at].isspace():
            at += 1
        if text[at] == "]":
            return
        line += text.count("\n", counted, at)
        counted = at
        _, at = decoder.raw_decode(text, at)
        yield line, text[counted:at]
