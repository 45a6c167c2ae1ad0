"""The end on another machine of the connection by which ``hosts`` started `hawsweep worker` there.

Standard input brings a line of environment variables (JSON), then a character now and then:
``ALIVE``, or ``STOP`` for what Ctrl-C is in a terminal. The process ends with the connection.
"""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from hawsweep.running.events import Event, Listener
from hawsweep.study.leases import raise_s

ALIVE, STOP = b"a", b"s"
# Seconds between signs of life, and without one until the connection counts as gone: the system may
# not notice for hours.
ALIVE_S = raise_s() / 2
_SILENT_S = 6 * ALIVE_S
# Seconds in which trials may save their state.
_GRACE_S = 60.0
# Signals that come at once count as one.
_APART_S = 0.2


def tie() -> None:
    """Take the environment from standard input, and end with it from now on."""
    line = b""
    while (read := os.read(0, 1)) not in (b"", b"\n"):
        line += read
    os.environ.update(json.loads(line or "{}"))
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    while select.select([0], [], [], _SILENT_S)[0] and (told := os.read(0, 4096)):
        for _ in range(told.count(STOP)):
            interrupt()
            time.sleep(_APART_S)
    interrupt()
    time.sleep(_GRACE_S)
    os._exit(130)  # it may wait for a storage that was reached by this connection


def passing_on(write: Callable[[Mapping[str, Any]], None]) -> Listener:
    """Give a listener that writes each event with all its values, as long as someone reads."""

    def listen(event: Event) -> None:
        if event.kind != "tick":
            with suppress(OSError):
                write({"event": event.kind, "worker": event.worker, "values": event.values})

    return listen
