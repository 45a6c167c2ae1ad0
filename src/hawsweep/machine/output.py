"""Standard output and error that show control characters and do not obey them.

All that a process of hawsweep prints goes through them: its own lines, those of libraries,
warnings, log records and tracebacks. Only the console writes past them: it makes texts visible
itself, and then adds colours (``views/terminal/text.py``).
"""

import io
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO, cast

from hawsweep.text import visible, visible_line


class _VisibleStream:
    """A text stream with control characters written out.

    It has no ``buffer``, through which bytes would go past it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            # A letter that the terminal cannot show becomes a question mark, not an error.
            stream.reconfigure(errors="replace")

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


def make_output_visible() -> None:
    """Let all that this process prints from now on go through visible streams."""
    sys.stdout, sys.stderr = _visible(sys.stdout), _visible(sys.stderr)
    sys.excepthook = _print_uncaught
    threading.excepthook = _print_uncaught_in_thread


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
