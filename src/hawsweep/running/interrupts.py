"""Requests to stop a sweep: by signals, by a terminal that closes, by other processes."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hawsweep.machine.output import leave_terminal


class Interrupts:
    """Counts requests to stop. An exception could interrupt any statement; a count is checked
    between events.

    Attributes:
        n_asked: Requests so far; the second one is for an end at once.
    """

    def __init__(self) -> None:
        self.n_asked = self._n_taken = 0

    @property
    def is_asked(self) -> bool:
        """Whether a request was not taken yet."""
        return self.n_asked > self._n_taken

    def take(self) -> bool:
        """Take one request; whether there was one."""
        taken = self.is_asked
        self._n_taken += taken
        return taken

    def ask(self, n: int) -> None:
        """Note that another process has asked so often."""
        if n > self._n_taken:
            self.n_asked = max(self.n_asked, n)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals during the block, where it runs in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._note)
        before[signal.SIGHUP] = signal.getsignal(signal.SIGHUP)
        if before[signal.SIGHUP] != signal.SIG_IGN:  # as nohup sets it
            signal.signal(signal.SIGHUP, self.note_hang_up)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def note_hang_up(self, *_: object) -> None:
        """Note that the terminal has closed."""
        leave_terminal()
        if not self.n_asked:  # a second request would stop at once
            self._note()

    def _note(self, *_: object) -> None:
        self.n_asked += 1
