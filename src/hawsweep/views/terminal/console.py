"""The console that commands print to."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console as Console
    from rich.console import RenderableType as RenderableType


def make_console(stderr: bool = False) -> "Console":
    """The console for standard output."""
    from rich.console import Console

    # A log has no width, so its tables must not be cut.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    return Console(stderr=stderr, width=width)
