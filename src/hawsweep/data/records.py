"""Records: lines of JSON, each checked once when loaded and read from its file when asked for."""

import hashlib
import json
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

from hawsweep.errors import DataError
from hawsweep.models.chat_template import without_thoughts

MAX_LINE = 10_000_000
_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "observation")
_FORMATS = 'one of {"messages": [...]}, {"prompt": ..., "completion": ...} and {"text": ...}'
# The place of a record: its first byte, its line for messages, and the number of its file. Memory
# holds nothing else of it.
_PLACE = np.dtype([("position", np.int64), ("line", np.uint32), ("file", np.uint16)])


@dataclass(frozen=True)
class Record:
    """One example in one of mlx-lm's formats.

    Attributes:
        content: The JSON object, with ``messages``, ``prompt`` and ``completion``, or ``text``.
        where: File and line, for messages about it.
    """

    content: dict[str, Any]
    where: str = ""

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The record as a chat, or None where it is plain text."""
        if "messages" in self.content:
            messages: list[dict[str, Any]] = self.content["messages"]
            return messages
        if "prompt" in self.content:
            return [
                {"role": "user", "content": self.content["prompt"]},
                {"role": "assistant", "content": self.content["completion"]},
            ]
        return None

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
    def tools(self) -> list[Any] | None:
        """The tools that the conversation may call."""
        return self.content.get("tools")

    @property
    def group(self) -> str | None:
        """The record's group; None if the data names none."""
        group = self.content.get("group")
        return None if group is None else str(group)


class _File:
    """An open file of JSON lines, closed with the last reference to it."""

    def __init__(self, name: str, handle: IO[bytes]) -> None:
        self._name, self._handle = name, handle
        weakref.finalize(self, handle.close)

    def read(self, position: int, line: int) -> Record:
        where = f"{self._name}:{line}"
        try:
            self._handle.seek(position)
            return _check_record(self._handle.readline(MAX_LINE + 1).decode(), where)
        except (DataError, UnicodeDecodeError, OSError) as fault:
            raise DataError(
                f"{where} changed after it was checked: its record is not there now. "
                "Start again, and do not change the file until training begins."
            ) from fault


class Records(Sequence[Record]):
    """Records that stay in their files. Memory holds their places only, 14 bytes a record.

    Each access reads and parses a line, so keep often-used records in a list. A slice is such a
    list. Use them from one thread: they share the position in an open file.
    """

    def __init__(
        self,
        files: Sequence[_File] = (),
        places: npt.NDArray[np.void] | None = None,
        fingerprint: str | None = None,
    ) -> None:
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
        place: tuple[int, int, int] = self._places[index].item()
        position, line, file = place
        return self._files[file].read(position, line)

    def take(self, indices: Sequence[int]) -> "Records":
        """The records at ``indices``, in that order."""
        return Records(self._files, self._places[np.asarray(indices, np.int64)])

    @cached_property
    def fingerprint(self) -> str:
        """Number of records and a hash of their content, order included."""
        digest = hashlib.sha256()
        for record in self:
            digest.update(_canonical(record))
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


def read_records(path: Path) -> Records:
    """Check every line of a file once, and note the places of its records. Blank lines are skipped.

    Raises:
        DataError: The file or a record is broken; the message names the file and the line.
    """
    positions, lines, digest = array("q"), array("I"), hashlib.sha256()
    position = 0
    try:
        file = _File(str(path), handle := path.open("rb"))
        for number, line in enumerate(limited_lines(handle, str(path)), 1):
            text = line.decode()
            if text.strip():
                digest.update(_canonical(_check_record(text, f"{path}:{number}")))
                positions.append(position)
                lines.append(number)
            position += len(line)
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} is not UTF-8 text: {fault}. Save it as UTF-8.") from fault
    except OSError as fault:
        raise DataError(f"{path} cannot be read: {fault.strerror}.") from fault
    fingerprint = _fingerprint(len(positions), digest.hexdigest())
    return Records([file], _places(positions, lines), fingerprint)


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


def store_records(numbered: Iterable[tuple[int, dict[str, Any]]], name: str) -> Records:
    """Write records into a temporary file of JSON lines, which ends with the process.

    Args:
        numbered: The line each comes from, and its content.
        name: The file they come from, for messages.
    """
    positions, lines = array("q"), array("I")
    position = 0
    with scratch_file() as file:
        for number, content in numbered:
            positions.append(position)
            lines.append(number)
            position += file.write(_line(content))
    return Records([_File(name, file)], _places(positions, lines))


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write records as JSON lines."""
    with path.open("wb") as file:
        file.writelines(_line(record.content) for record in records)


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


def _canonical(record: Record) -> bytes:
    try:
        return json.dumps(record.content, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError as fault:
        half = ascii(fault.object[fault.start])
        raise DataError(
            f"{record.where} has {half}, half of a character. Correct or remove the line."
        ) from fault


def _fingerprint(n_records: int, digest: str) -> str:
    return f"{n_records}:{digest[:16]}"


def _check_record(line: str, where: str) -> Record:
    try:
        content = json.loads(line)
    except RecursionError as fault:
        raise DataError(
            f"{where} is JSON that is nested too deep to be read. Correct or remove the line."
        ) from fault
    except ValueError as fault:  # also of a number with thousands of digits
        raise DataError(f"{where} is not JSON: {fault}. Correct or remove the line.") from fault
    if not isinstance(content, dict):
        raise DataError(f"{where} holds a {type(content).__name__}, must be {_FORMATS}.")
    if "prompt" in content and "completion" in content:
        fields = [content["prompt"], content["completion"]]
    elif "messages" in content:
        fields = _message_texts(content["messages"], where)
    elif "text" in content:
        fields = [content["text"]]
    else:
        keys = ", ".join(content)[:200] or "none"
        raise DataError(f"{where} has the keys {keys}, must be {_FORMATS}.")
    if not all(isinstance(text, str) for text in fields):
        raise DataError(f"{where} has a text that is not a string. Correct or remove the line.")
    return Record(content, where)


def _message_texts(messages: Any, where: str) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f"{where} has messages that are not a list of at least one. Correct or remove the line."
        )
    for message in messages:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise DataError(
                f"{where} has a message without role and content. Correct or remove the line."
            )
        if message["role"] not in _ROLES:
            raise DataError(
                f"{where} has a message with the role {repr(message['role'])[:80]}, must be user "
                f"or assistant, or one of {', '.join(_ROLES)}. Correct the role."
            )
    return [message["content"] for message in messages]
