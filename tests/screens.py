"""A program in a terminal of a given size, and what is on its screen."""

import fcntl
import itertools
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time

import pyte

PATIENCE_S = 240
# A screen wider than the terminal shows what would not have fitted.
_WIDER = 60
_PLAINLY = {"brown": "yellow"}  # as others call pyte's colours
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
        self.raw, self.too_wide = "", []
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self._reader.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self._ours)

    def _read(self):
        # All the time: a program whose terminal takes nothing more stands still.
        while True:
            try:
                got = os.read(self._ours, 65536)
            except OSError:  # what Linux gives where the other end of a terminal is closed
                return
            if not got:
                return
            with self._lock:
                self.raw += got.decode("utf-8", "replace")
                self._stream.feed(got)
                self.too_wide += [
                    line for line in self._screen.display if line[self.columns :].strip()
                ]

    def text(self):
        """What is on the screen, and above it. Nothing may ever have been wider than it."""
        with self._lock:
            assert self.too_wide == []
            above = [
                "".join(line[at].data for at in range(self.columns)).rstrip()
                for line in self._screen.history.top
            ]
            return "\n".join([*above, *(line.rstrip() for line in self._screen.display)])

    def styled(self):
        """The lines of the screen down to its last text, each as texts with their style."""
        for line in range(len("\n".join(self._screen.display).rstrip().split("\n"))):
            signs = (self._screen.buffer[line][column] for column in range(self.columns))
            for style, alike in itertools.groupby(signs, key=lambda sign: (sign.bold, sign.fg)):
                colour = _PLAINLY.get(style[1], style[1])
                yield "".join(sign.data for sign in alike), "bold " * style[0] + colour
            yield "\n", ""

    def type(self, keys):
        """Press keys."""
        os.write(self._ours, keys.encode())

    def until(self, *texts):
        """Wait until all of these are to be seen at once; give the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            shown = self.text()
            if all(re.search(text, shown, re.MULTILINE) for text in texts):
                return shown
            assert time.monotonic() < deadline, shown
            assert self._reader.is_alive(), shown
            time.sleep(0.1)

    def finish(self):
        """Wait for the end; the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    @property
    def has_colours(self):
        """Whether any text was coloured."""
        return _COLOUR.search(self.raw) is not None
