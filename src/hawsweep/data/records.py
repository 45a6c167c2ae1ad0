"""Records: lines of JSON, each checked once when loaded and read from its file when asked for."""

import codecs
import hashlib
import json
import re
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, AnyStr, overload

import numpy as np
import numpy.typing as npt

from hawsweep.data.json_line import Line, as_chat, conversation, format_of, read_line
from hawsweep.errors import DataError
from hawsweep.files import open_regular
from hawsweep.models.chat_template import without_thoughts
from hawsweep.spec.sweep import Normalize

MAX_LINE = 10_000_000
# Bytes read to see how a file is encoded.
_HEAD = 65_536
# The byte-order marks of UTF-16, and its first character without one.
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")
# Records with CR alone between them. Inside of one, a comma would be there too.
_CR_ALONE = re.compile(rb"\}[ \t]*\r+[ \t]*(?:\xef\xbb\xbf)?\{")
# The place of a record: its first byte, its line for messages, and the number of its file. Memory
# holds nothing else of it.
_PLACE = np.dtype([("position", np.int64), ("line", np.uint32), ("file", np.uint16)])


@dataclass(frozen=True)
class Record:
    """One example in one of mlx-lm's formats.

    Attributes:
        content: The JSON object, with ``messages``, ``prompt`` and ``completion``, or ``text``; see
            ``json_line.Line``.
        where: File and line, for messages about it.
        group_key: The key of its group.
    """

    content: dict[str, Any]
    where: str = ""
    group_key: str = "group"

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The record as a chat, or None where it is plain text."""
        return conversation(self.content)

    @property
    def texts(self) -> list[str]:
        """All texts of the record: the messages' contents, or the plain text."""
        messages = self.messages
        return [self.content["text"]] if messages is None else [m["content"] for m in messages]

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        """The tools that the chat template shows; None if the record names none."""
        return None if self.messages is None else self.content.get("tools")

    @property
    def reference(self) -> str | None:
        """The reference answer, without reasoning; None if the record has none."""
        messages = self.messages
        if messages is None or messages[-1].get("role") != "assistant":
            return None
        answer = str(messages[-1]["content"])
        return without_thoughts(answer) or answer

    @property
    def source(self) -> str:
        """The last user's message."""
        users = [m for m in self.messages or () if m.get("role") == "user"]
        return str(users[-1]["content"]) if users else ""

    @property
    def group(self) -> str | None:
        """The record's group; None if the data names none."""
        group = self.content.get(self.group_key)
        return None if group is None else str(group)


class _File:
    """An open file of JSON lines, closed with the last reference to it."""

    def __init__(self, name: str, handle: IO[bytes], normalize: Normalize, group_key: str) -> None:
        self._name, self._handle, self._normalize = name, handle, normalize
        self.group_key = group_key
        weakref.finalize(self, handle.close)

    def read(self, position: int, line: int) -> Line:
        where = f"{self._name}:{line}"
        try:
            self._handle.seek(position)
            text = self._handle.readline(MAX_LINE + 1).decode()
            return read_line(text, where, self._normalize)
        except (DataError, UnicodeDecodeError, OSError) as fault:
            raise DataError(
                f"{where} changed after it was checked: its record is not there now. "
                "Start again, and do not change the file until training begins."
            ) from fault


class Records(Sequence[Record]):
    """Records that stay in their files. Memory holds their places only, 14 bytes a record.

    Each access reads and parses a line, so keep often-used records in a list. A slice is such a
    list. Use them from one thread: they share the position in an open file.

    Attributes:
        is_plain: Whether mlx-lm itself reads the same records from their file.
    """

    def __init__(
        self,
        files: Sequence[_File] = (),
        places: npt.NDArray[np.void] | None = None,
        fingerprint: str | None = None,
        *,
        is_plain: bool = False,
    ) -> None:
        self.is_plain = is_plain
        self._files = tuple(files)
        self._places = np.empty(0, _PLACE) if places is None else places
        if fingerprint is not None:
            self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = self._places[index].item()
        line = self._read(place)
        return Record(line.content, line.where, self._files[place[2]].group_key)

    def _read(self, place: tuple[int, int, int]) -> Line:
        position, line, file = place
        return self._files[file].read(position, line)

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> "Records":
        """The records at ``indices``, in that order."""
        return Records(self._files, self._places[np.asarray(indices, np.int64)])

    def order_in_files(self) -> npt.NDArray[np.intp]:
        """The rank of each record in its files, ``[records]``: a file that is split here is
        shuffled.
        """
        return np.argsort(np.lexsort((self._places["position"], self._places["file"])))

    @cached_property
    def fingerprint(self) -> str:
        """Number of records and a hash of their content, order included."""
        digest = hashlib.sha256()
        for place in self._places:
            digest.update(_canonical(self._read(place.item())))
        return _fingerprint(len(self), digest.hexdigest())


def concatenate(parts: Sequence[Records]) -> Records:
    """All records of the parts, in order."""
    if len(parts) == 1:
        return parts[0]
    files: list[_File] = []
    places = []
    for part in parts:
        moved = part._places.copy()
        moved["file"] += len(files)
        places.append(moved)
        files += part._files
    return Records(files, np.concatenate(places))


def read_records(path: Path, normalize: Normalize = "none", group_key: str = "group") -> Records:
    """Check every line of a file once, and note the places of its records. Blank lines are skipped.

    Args:
        normalize: ``data.normalize``.
        group_key: The key of a record's group.

    Raises:
        DataError: The file or a record is broken; the message names the file and the line.
    """
    positions, lines, digest = array("q"), array("I"), hashlib.sha256()
    formats: set[str] = set()
    position, is_plain = 0, True
    with readable(path):
        file = _File(str(path), handle := open_regular(path), normalize, group_key)
        _check_encoding(handle.read(_HEAD), path)
        handle.seek(0)
        for number, line in enumerate(limited_lines(handle, str(path)), 1):
            text = line.decode()
            if text.removeprefix("\ufeff").strip():
                read = read_line(text, f"{path}:{number}", normalize)
                digest.update(_canonical(read))
                positions.append(position)
                lines.append(number)
                formats.add(read.format)
                # For mlx-lm each CR ends a line.
                is_plain &= read.is_plain and b"\r" not in line.rstrip(b"\n").removesuffix(b"\r")
            else:
                is_plain = False  # mlx-lm reads no blank lines
            position += len(line)
    return Records(
        [file],
        _places(positions, lines),
        _fingerprint(len(positions), digest.hexdigest()),
        is_plain=is_plain and len(formats) == 1,
    )


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the faults of a file that is read as UTF-8 text into a DataError."""
    try:
        yield
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} is not UTF-8 text: {fault}. Save it as UTF-8.") from fault
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}.") from fault


def _check_encoding(head: bytes, path: Path) -> None:
    """Refuse a file that no line can be read of."""
    if head[:2] in _UTF_16:
        raise DataError(f"{path} is not UTF-8 text: it is UTF-16. Save it as UTF-8.")
    if _CR_ALONE.search(head):
        raise DataError(
            f"{path} has lines that end in CR alone, as on an old Mac. Save it with lines that end "
            "in LF."
        )


def limited_lines(file: IO[AnyStr], name: str) -> Iterator[AnyStr]:
    """The lines of a file, each of limited length.

    Args:
        name: The file, for messages.

    Raises:
        DataError: A line has more than ``MAX_LINE`` bytes, or characters of text.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(
                f"{name}:{number} is longer than {MAX_LINE / 1e6:g} MB. Put one record on each "
                "line, or shorten it."
            )
        yield line


def store_records(
    numbered: Iterable[tuple[int, dict[str, Any]]],
    name: str,
    normalize: Normalize = "none",
    group_key: str = "group",
) -> Records:
    """Write records into a temporary file of JSON lines, which ends with the process.

    Args:
        numbered: The line each comes from, and its content.
        name: The file they come from, for messages.
        normalize: ``data.normalize``.
        group_key: The key of a record's group.
    """
    positions, lines = array("q"), array("I")
    position = 0
    with scratch_file() as file:
        for number, content in numbered:
            positions.append(position)
            lines.append(number)
            position += file.write(_line(content))
    return Records([_File(name, file, normalize, group_key)], _places(positions, lines))


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as JSON lines that mlx-lm reads as the same.

    It takes the format of the first record for all. So pairs beside chats are written as chats;
    plain text beside others it cannot read.
    """
    is_mixed = {format_of(record.content) for record in records} == {"pair", "chat"}
    with path.open("wb") as file:
        for record in records:
            file.write(_line(as_chat(record.content) if is_mixed else record.content))


@contextmanager
def scratch_file() -> Iterator[IO[bytes]]:
    """A temporary file without a name, written in the block and left open for reading.

    Raises:
        DataError: It cannot be made or written.
    """
    try:
        with ExitStack() as until_written:
            file = until_written.enter_context(tempfile.TemporaryFile())
            yield file
            file.flush()
            until_written.pop_all()
    except OSError as fault:
        raise DataError(
            f"A temporary file in {tempfile.tempdir} cannot be written: {fault.strerror}. Free "
            "space there, or set the environment variable TMPDIR to another folder."
        ) from fault


def _places(positions: "array[int]", lines: "array[int]") -> npt.NDArray[np.void]:
    places = np.zeros(len(positions), _PLACE)
    places["position"], places["line"] = positions, lines
    return places


def _line(content: dict[str, Any]) -> bytes:
    return f"{json.dumps(content, ensure_ascii=False)}\n".encode()


def _canonical(line: Line) -> bytes:
    try:
        return json.dumps(line.fingerprinted, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        half = ascii(fault.object[fault.start])
        raise DataError(
            f"{line.where} has {half}, half of a character. Correct or remove the line."
        ) from fault


def _fingerprint(n_records: int, digest: str) -> str:
    return f"{n_records}:{digest[:16]}"
