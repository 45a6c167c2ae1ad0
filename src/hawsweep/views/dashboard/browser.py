"""Opening a page in the browser of the person at the terminal."""

import os
import sys
import webbrowser
from collections.abc import Mapping


def open_address(address: str) -> bool:
    """Open an address in the browser if this machine has a screen; give whether it was opened."""
    if not is_seen(os.environ, sys.platform, is_terminal=sys.stdout.isatty()):
        return False
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def is_seen(environment: Mapping[str, str], platform: str, *, is_terminal: bool) -> bool:
    """Whether a page opened now appears on the screen of the person who started the command.

    It does not if the output is not a terminal, if the terminal is on another machine, or if there
    is no display: a text browser would take over the terminal.
    """
    if not is_terminal or "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        return False
    return platform == "darwin" or bool(
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    )
