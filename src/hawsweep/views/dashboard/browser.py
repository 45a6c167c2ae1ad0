"""The browser of whoever sits before the terminal."""

import os
import sys
import webbrowser
from collections.abc import Mapping


def open_address(address: str) -> bool:
    """Open an address in the browser, where somebody would see it; whether that was tried well."""
    if not is_seen(os.environ, sys.platform, is_terminal=sys.stdout.isatty()):
        return False
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False


def is_seen(environment: Mapping[str, str], platform: str, *, is_terminal: bool) -> bool:
    """Whether a page opened now would be on the screen of whoever started the command.

    Not where its output goes elsewhere than to a terminal, where that terminal is on another
    machine, or where there is no display: a browser of text would take the terminal.
    """
    if not is_terminal or "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        return False
    return platform == "darwin" or bool(
        environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    )
