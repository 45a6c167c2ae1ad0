"""A program in a terminal of a given size, and what is on its screen."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pyte

PATIENCE_S = 120
# A screen wider than the terminal shows what would not have fitted.
_WIDER = 60
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|38|48|9[0-7]|10[0-7])(?:;\d+)*m")


class Screen:
    """Runs a command in a terminal; a context manager that ends it."""

    def __init__(self, command, columns, lines, **variables):
        self.columns = columns
        self._ours, theirs = pty.openpty()
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            if name not in variables:
                environment.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self._screen = pyte.HistoryScreen(columns + _WIDER, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
        os.close(self._ours)

    def read(self, timeout_s=0.2):
        """Take in what comes; False at the end. Nothing may be wider than the terminal."""
        if not select.select([self._ours], [], [], timeout_s)[0]:
            return True
        try:
            got = os.read(self._ours, 65536)
        except OSError:  # what Linux gives where the other end of a terminal is closed
            return False
        self.raw += got.decode("utf-8", "replace")
        self._stream.feed(got)
        assert self.too_wide() == []
        return bool(got)

    def too_wide(self):
        """Lines that are wider than the terminal."""
        return [line for line in self._screen.display if line[self.columns :].strip()]

    def text(self):
        """What is on the screen, and above it."""
        above = [
            "".join(line[at].data for at in range(self.columns)).rstrip()
            for line in self._screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self._screen.display)])

    def until(self, *texts):
        """Read on until all of these are to be seen; give the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(re.search(text, self.text()) for text in texts):
            assert time.monotonic() < deadline, self.text()
            assert self.read(), self.text()
        return self.text()

    def finish(self):
        """Read to the end; the exit code."""
        while self.read():
            pass
        return self.process.wait(PATIENCE_S)

    @property
    def has_colours(self):
        """Whether any text was coloured."""
        return _COLOUR.search(self.raw) is not None
