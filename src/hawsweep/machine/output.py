"""Standard output and error that show control characters and do not obey them.

All that a process of hawsweep prints goes through them: its own lines, those of libraries,
warnings, log records and tracebacks. Only the console writes past them: it makes texts visible
itself, and then adds colours (``views/terminal/text.py``).
"""

import io
import os
import stat
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from hawsweep.text import visible, visible_line

# Ways in which a stream refuses letters, or writes bytes that no text has; the second is that of
# the locale C.
_STRICT = ("strict", "surrogateescape")


class OutputError(OSError):
    """Standard output or error cannot be written, for instance to a full disk."""


class _PlainStream:
    """A text stream whose faults can be told from those of files."""

    def __init__(self, stream: TextIO) -> None:
        self._file = stream
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _STRICT:
            # A letter that the terminal cannot show becomes a question mark, not an error.
            stream.reconfigure(errors="replace")

    def write(self, text: str) -> int:
        with _output_faults():
            return self._file.write(text)

    def flush(self) -> None:
        with _output_faults():
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _output_faults() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has enough: click and rich end quietly
        raise
    except OSError as fault:
        raise OutputError(fault.errno, fault.strerror) from fault


class _VisibleStream:
    """A text stream with control characters written out.

    It has no ``buffer``, through which bytes would go past it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = cast(TextIO, _PlainStream(stream))

    def write(self, text: str) -> int:
        self.stream.write(visible(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "stream"):
            raise AttributeError(name)
        return getattr(self.stream, name)


def plain_stream(stream: TextIO) -> TextIO:
    """The stream below a visible one, for texts with colours of hawsweep's own."""
    return cast(TextIO, getattr(stream, "stream", stream))


def open_missing_streams() -> None:
    """Open standard input, output and error at nothing where this process was given none.

    Else a file or database that it opens gets such a number, and what is printed goes into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest free number, which is this one
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def discard_output() -> None:
    """Send what is still to be printed nowhere: the interpreter would fail at it as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def make_output_visible() -> None:
    """Let all that this process prints from now on go through visible streams."""
    sys.stdout, sys.stderr = _visible(sys.stdout), _visible(sys.stderr)
    sys.excepthook = _print_uncaught
    threading.excepthook = _print_uncaught_in_thread


def leave_terminal() -> None:
    """Print nothing more on a terminal that was closed, where each write would fail; what goes to a
    file or another program still does.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        if stat.S_ISCHR(os.fstat(number).st_mode):
            os.dup2(nowhere, number)
    os.close(nowhere)


@contextmanager
def visible_output() -> Iterator[None]:
    """Let what is printed go through visible streams meanwhile."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_visible, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def print_traceback(fault: BaseException) -> None:
    """Print an exception with its traceback; a message takes one line, whatever it quotes."""
    parts = traceback.TracebackException.from_exception(fault).format()
    print("".join(map(_one_line_if_message, parts)), end="", file=sys.stderr, flush=True)


def _one_line_if_message(part: str) -> str:
    # Frames are indented; what stands between exceptions begins with a line break.
    if part.startswith((" ", "\n", "Traceback ")):
        return part
    message = part.removesuffix("\n")
    return f"{visible_line(message)}\n"


def _visible(stream: TextIO) -> TextIO:
    if stream is None or isinstance(stream, _VisibleStream):
        return stream
    return cast(TextIO, _VisibleStream(stream))


def _print_uncaught(
    kind: type[BaseException], fault: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, fault, trace)
    else:
        print_traceback(fault)


def _print_uncaught_in_thread(caught: threading.ExceptHookArgs) -> None:
    if caught.exc_value is not None:
        print_traceback(caught.exc_value)


def print_to(path: Path) -> None:
    """Send the process's standard output and error to a file, until it ends."""
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send the process's standard output and error to a file, also those of C++ code."""
    sys.stderr.flush()
    before = os.dup(2)
    print_to(path)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(before, 1)
        os.dup2(before, 2)
        os.close(before)
