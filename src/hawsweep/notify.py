"""Telling somebody who does not look: a webhook, a command, or a note on the desktop.

Whom to tell is said by who starts a sweep, never by the sweep: others may have written that, and
what runs here, or leaves this machine, is not theirs to say. A webhook's address is as good as a
password to it, so nothing of it but its host is ever shown, and nothing of it is stored.
"""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from hawsweep import __version__
from hawsweep.errors import SpecError

NOTIFY_VARIABLE = "HAWSWEEP_NOTIFY"
_WEBHOOK_TIMEOUT_S = 5.0
# Before each try.
_WEBHOOK_PAUSES_S = (0.0, 1.0, 2.0)
_COMMAND_TIMEOUT_S = 30.0
_LAST_WAIT_S = 10.0
_APPLE_SCRIPT = (
    "on run argv",
    "display notification (item 2 of argv) with title (item 1 of argv)",
    "end run",
)


@dataclass(frozen=True)
class Message:
    """What is told.

    Attributes:
        event: One of ``spec.NEWS``.
        text: One line of printable characters.
        trial: The best trial so far, and its ``score``; None without any.
    """

    study: str
    event: str
    text: str
    trial: int | None = None
    score: float | None = None


class Target(Protocol):
    """Somebody to tell."""

    @property
    def label(self) -> str:
        """A name without a secret."""

    def deliver(self, message: Message) -> str | None:
        """Tell; what went wrong, without a secret, or None."""


@dataclass(frozen=True)
class Webhook:
    """A URL that gets each message as JSON, in a form that Slack, Mattermost and Discord take.

    A host named ``ntfy`` or ``ntfy.sh`` or the like gets the text itself.
    """

    url: str = field(repr=False)

    @property
    def label(self) -> str:
        """Names its host alone."""
        return f"the webhook at {_host(urlsplit(self.url))}"

    def deliver(self, message: Message) -> str | None:
        """Post the message; where nobody answers, or the server is at fault, three times."""
        fault: str | None = None
        for pause_s in _WEBHOOK_PAUSES_S:
            time.sleep(pause_s)
            try:
                with _OPENER.open(self._request(message), timeout=_WEBHOOK_TIMEOUT_S):
                    return None
            except urllib.error.HTTPError as answer:
                answer.close()
                fault = f"it answered {answer.code}"
                if answer.code < 500 and answer.code != 429:
                    return fault
            except Exception as error:  # http.client, ssl and idna have classes of their own
                fault = _reason(error)
        return fault

    def _request(self, message: Message) -> urllib.request.Request:
        parts = urlsplit(self.url)
        if parts.hostname in ("ntfy", "ntfy.sh") or _host(parts).startswith("ntfy."):
            kind, body = "text/plain; charset=utf-8", message.text
        else:
            kind, body = "application/json", json.dumps(_content(message))
        headers = {"Content-Type": kind, "User-Agent": f"hawsweep/{__version__}"}
        if kind.startswith("text"):
            headers["Title"] = "hawsweep"
        return urllib.request.Request(self.url, body.encode(), headers)


def _content(message: Message) -> dict[str, Any]:
    """A message's fields, with the text where chats look for it.

    Slack reads ``text`` with ``<`` and ``&`` escaped, Discord ``content``; neither may call out
    to everybody because a text that came from elsewhere says so.
    """
    return {
        **asdict(message),
        "text": escape(message.text, quote=False),
        "content": message.text,
        "allowed_mentions": {"parse": []},
    }


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Whoever is told is who was named, or nobody: the 3xx becomes the answer."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class Command:
    """A line for the shell. The message is in its environment, as ``HAWSWEEP_TEXT`` and so on, and
    as JSON on its standard input, so that no text becomes part of the line.
    """

    line: str = field(repr=False)
    label: str = field(default="the command to notify by", init=False)

    def deliver(self, message: Message) -> str | None:
        """Run it, for half a minute at most."""
        values = {f"HAWSWEEP_{key.upper()}": value for key, value in asdict(message).items()}
        said = {key: "" if value is None else str(value) for key, value in values.items()}
        return _run(["/bin/sh", "-c", self.line], json.dumps(asdict(message)), said)


@dataclass(frozen=True)
class Desktop:
    """The notifications of the desktop: ``osascript`` on a Mac, else ``notify-send``."""

    label: str = field(default="the desktop", init=False)

    def deliver(self, message: Message) -> str | None:
        """Show it there."""
        if sys.platform == "darwin":
            script = [part for line in _APPLE_SCRIPT for part in ("-e", line)]
            return _run(["osascript", *script, "hawsweep", message.text])
        text = escape(message.text, quote=False)  # most desktops read tags in it
        return _run(["notify-send", "--app-name=hawsweep", "--", "hawsweep", text])


def find_targets(given: str | Sequence[str] | None = None) -> list[Target]:
    """Whom to tell: each an http or https URL, ``desktop``, or a command for the shell.

    Args:
        given: Those; where None, those in the environment variable ``HAWSWEEP_NOTIFY``, one a
            line.

    Raises:
        SpecError: One is empty, of more than one line, or a URL that is no web address.
    """
    if given is None:
        given = [line for line in os.environ.get(NOTIFY_VARIABLE, "").splitlines() if line.strip()]
    return [_target(text.strip()) for text in ([given] if isinstance(given, str) else given)]


def _target(text: str) -> Target:
    if text == "desktop":
        return Desktop()
    scheme = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    if text and scheme is None and text.isprintable():
        return Command(text)
    try:
        url = urlsplit(text)
        is_web = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # what it says may hold a secret
        is_web = False
    if is_web and text.isascii() and text.isprintable() and " " not in text:
        return Webhook(text)
    raise SpecError(
        "One of those to notify is neither an http or https URL, nor `desktop`, nor a command of "
        f"one line. Correct what --notify or {NOTIFY_VARIABLE} says."
    )


class Notifier:
    """Tells targets, each in a thread of its own, so that nobody waits for them."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._faults: queue.Queue[str] = queue.Queue()
        self._queues: list[queue.Queue[Message | None]] = []
        self._threads: list[threading.Thread] = []
        self._labels = [target.label for target in targets]
        for target in targets:
            self._queues.append(queue.Queue())
            work = (target, self._queues[-1])
            self._threads.append(threading.Thread(target=self._deliver, args=work, daemon=True))
            self._threads[-1].start()

    def post(self, message: Message) -> None:
        """Have everybody told; returns at once."""
        for each in self._queues:
            each.put(message)

    def faults(self) -> list[str]:
        """What went wrong since this was last asked, of each target only what came first."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._faults.get_nowait())
        return found

    def close(self) -> None:
        """Wait, for some seconds at most, until all is told."""
        for each in self._queues:
            each.put(None)
        deadline = time.monotonic() + _LAST_WAIT_S
        for thread, label in zip(self._threads, self._labels, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._faults.put(f"{label} was not waited for any longer")

    def _deliver(self, target: Target, messages: "queue.Queue[Message | None]") -> None:
        has_failed = False
        while (message := messages.get()) is not None:
            fault = target.deliver(message)
            if fault is not None and not has_failed:
                has_failed = True
                self._faults.put(f"{target.label} was not told: {fault}")


def _run(command: list[str], text: str = "", variables: dict[str, str] | None = None) -> str | None:
    """Run a command; what went wrong, or None. What it prints goes nowhere."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # Ctrl-C is not for it
        )
    except OSError as fault:
        return f"{command[0]}: {fault.strerror}"
    try:
        child.communicate(text.encode(), timeout=_COMMAND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return f"it did not end within {_COMMAND_TIMEOUT_S:g} s"
    return None if child.returncode == 0 else f"it ended with code {child.returncode}"


def _host(url: SplitResult) -> str:
    return url.hostname or ""


def _reason(error: Exception) -> str:
    """Why nobody answered. Only what the system says is repeated: the rest may hold the URL."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {_WEBHOOK_TIMEOUT_S:g} s"
    said = cause.strerror if isinstance(cause, OSError) else None
    return said or type(cause).__name__
