"""The console that commands print to."""

import os
import sys
from typing import TYPE_CHECKING

from hawsweep.machine.output import plain_stream

if TYPE_CHECKING:
    from rich.console import RenderableType as RenderableType

    from hawsweep.views.terminal.text import Console as Console


def make_console(stderr: bool = False) -> "Console":
    """The console for standard output."""
    from hawsweep.views.terminal.text import Console

    if not os.environ.get("COLUMNS", "").strip("0"):
        os.environ.pop("COLUMNS", None)  # rich would print nothing in 0 columns
    # A log has no width, so its tables must not be cut.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    return Console(file=plain_stream(sys.stderr if stderr else sys.stdout), width=width)
