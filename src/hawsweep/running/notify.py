"""Notifications while a sweep runs: by a service of apprise, or by a command.

Their addresses are given at the start of a sweep, never in a sweep file, which may come from
another person. An address is as secret as a password: only its scheme is shown, and it is not
stored.
"""

import json
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from hawsweep.errors import HawsweepError, SpecError
from hawsweep.results.study_results import StudyResults
from hawsweep.running.events import Ended, Event, Listener
from hawsweep.search.coordinates import most_trials
from hawsweep.spec.sweep import SweepSpec
from hawsweep.text import counted

NOTIFY_VARIABLE = "HAWSWEEP_NOTIFY"
_COMMAND_TIMEOUT_S = 30.0
_LAST_WAIT_S = 10.0
_LONGEST = 500
_CORRECT = f"Correct --notify or {NOTIFY_VARIABLE}."


@dataclass(frozen=True)
class Message:
    """One notification.

    Attributes:
        event: One of ``checks.NEWS``.
        text: One line of printable characters.
        trial: The best trial so far, and its ``score``; None before the first.
    """

    study: str
    event: str
    text: str
    trial: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Service:
    """An apprise service for a URL; ``label`` is the URL's scheme."""

    apprise: Any = field(repr=False)
    label: str

    def deliver(self, message: Message) -> str | None:
        """Send; give the fault without a secret, or None."""
        # "@everyone" or Slack's "<!channel>" in a text must not notify a whole channel.
        text = re.sub(r"([@<])(?=\S)", "\\1\N{ZERO WIDTH SPACE}", message.text)
        try:
            sent = self.apprise.notify(body=text, title="hawsweep", body_format="text")
        except Exception as fault:  # of any service; its text may hold the address
            return type(fault).__name__
        return None if sent else "the service did not take the message"


@dataclass(frozen=True)
class Command:
    """A command for the shell. It gets the message in its environment, as ``HAWSWEEP_TEXT`` and so
    on, and as JSON on its standard input. No text becomes part of the command.
    """

    line: str = field(repr=False)
    label: str = field(default="the command to notify by", init=False)

    def deliver(self, message: Message) -> str | None:
        """Run it, for half a minute at most; give the fault, or None."""
        values = {f"HAWSWEEP_{key.upper()}": value for key, value in asdict(message).items()}
        said = {key: "" if value is None else str(value) for key, value in values.items()}
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", self.line],
                input=json.dumps(asdict(message)).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **said},
                timeout=_COMMAND_TIMEOUT_S,
                start_new_session=True,  # Ctrl-C must not reach it
            )
        except subprocess.TimeoutExpired:
            return f"it did not end within {_COMMAND_TIMEOUT_S:g} s"
        return None if done.returncode == 0 else f"it ended with code {done.returncode}"


Channel = Service | Command


def find_targets(given: str | Sequence[str] | None = None) -> list[Channel]:
    """Where notifications go: each an apprise URL, or a command for the shell.

    Args:
        given: The addresses; None: those in the environment variable ``HAWSWEEP_NOTIFY``, one a
            line.

    Raises:
        SpecError: One is empty, of more than one line, or a URL that apprise does not know; or
            apprise is not installed.
    """
    if given is None:
        given = [line for line in os.environ.get(NOTIFY_VARIABLE, "").splitlines() if line.strip()]
    return [_target(text.strip()) for text in ([given] if isinstance(given, str) else given)]


def _target(text: str) -> Channel:
    if not text or not text.isprintable():
        raise SpecError(f"An address to notify is empty or of several lines. {_CORRECT}")
    if text == "desktop":
        raise SpecError(
            "`desktop` is no longer an address to notify: write macosx:// on a Mac, elsewhere the "
            "command 'notify-send hawsweep \"$HAWSWEEP_TEXT\"'."
        )
    url = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    return Command(text) if url is None else _service(text, url[1].lower())


def _service(url: str, scheme: str) -> Service:
    try:
        import apprise
    except ImportError as fault:
        raise SpecError(
            f"Notifications by {scheme}:// need apprise, which is not installed: pip install "
            "apprise"
        ) from fault
    asset = apprise.AppriseAsset(app_id="hawsweep")
    asset.http_redirects = False  # only the named address gets the message
    if (known := apprise.Apprise.instantiate(url, asset=asset)) is not None:
        service = apprise.Apprise(asset=asset)
        service.add(known)
        return Service(service, f"{known.url(privacy=True).partition('://')[0]}://")
    if scheme in ("http", "https"):
        raise SpecError(
            "apprise does not know the service of an http or https URL: write the service's own "
            "scheme, such as slack://, discord:// or ntfy://, or json:// in place of http:// and "
            "jsons:// in place of https://."
        )
    raise SpecError(
        f"apprise cannot notify by this {scheme}:// address on this machine; "
        f"https://appriseit.com/services/ has each service's form. {_CORRECT}"
    )


class _Delivery(threading.Thread):
    """Delivers messages to a target until it gets None; reports only the first fault."""

    def __init__(self, target: Channel, faults: "queue.SimpleQueue[str]") -> None:
        super().__init__(daemon=True)
        self.target, self._faults = target, faults
        self.messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        has_failed = False
        while (message := self.messages.get()) is not None:
            fault = self.target.deliver(message)
            if fault is not None and not has_failed:
                has_failed = True
                self._faults.put(f"{self.target.label} was not notified: {fault}")


class News:
    """Passes a sweep's events on, and sends notifications of the events in ``spec.notify``. Each
    target has a thread, so the sweep does not wait.

    Args:
        name: The study's.
        listen: Gets the events, and one of kind ``not_told`` where a notification failed.
    """

    def __init__(
        self, name: str, spec: SweepSpec, targets: Sequence[Channel], listen: Listener
    ) -> None:
        self._name, self._spec, self._listen = name, spec, listen
        self._faults: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads = [_Delivery(target, self._faults) for target in targets]
        self._finished = 0
        self._trial: int | None = None
        self._score: float | None = None

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self._listen(event)
        if event.kind == "study":
            self._finished = event.values["finished"]
            self._set_trials(event)
            self._trial, self._score = map(event.values.get, ("best_trial", "best_score"))
            is_new = event.values["is_new"]
            goes_on = f"goes on after {self._count()}"
            self._send("start", f"starts: {self._trials()}" if is_new else goes_on)
        elif event.kind == "extended":
            self._set_trials(event)
        elif event.kind == "trial_end":
            self._on_trial_end(event)
        self._pass_faults()

    def tell_end(self, ended: Ended, results: StudyResults) -> None:
        """Send the end and the verdict."""
        best, said = results.best_trial, ""
        if best is not None:
            self._trial, self._score = best.number, best.value
        with suppress(HawsweepError):  # the start itself reports a damaged file
            verdict = results.verdict()
            said = " ".join(verdict.sentences) if verdict is not None else ""
        how = {
            "finished": f"finished, {self._count()}",
            "timeout": f"out of time after {self._count()}",
            "interrupted": f"stopped after {self._count()}; hawsweep start goes on with it",
        }[ended]
        self._send("end", f"{how}. {said}")

    def tell_failure(self, fault: Exception) -> None:
        """Send that an error ended it."""
        # The text of another exception may hold a secret, such as a password.
        said = str(fault) if isinstance(fault, HawsweepError) else type(fault).__name__
        self._send("failure", f"ended by an error after {self._count()}: {said}")

    def close(self) -> None:
        """Wait until all messages are delivered, for some seconds at most."""
        deadline = time.monotonic() + _LAST_WAIT_S
        for thread in self._threads:
            thread.messages.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self._faults.put(f"{thread.target.label} did not take the messages in time")
        self._pass_faults()

    def _on_trial_end(self, event: Event) -> None:
        score, before = event.values.get("score"), self._score
        self._finished += event.values["state"] in ("complete", "pruned")
        if event.values["state"] != "complete" or score is None:
            return
        if before is not None and score <= before:
            return
        self._trial, self._score = event.values["number"], score
        was = "" if before is None else f", before {before:.4f}"
        text = f"trial {self._trial} is the best so far, score {score:.4f}{was}; {self._count()}"
        self._send("best", text)

    def _set_trials(self, event: Event) -> None:
        self._spec = self._spec.model_copy(update={"trials": event.values["n_trials"]})

    def _count(self) -> str:
        return f"{self._finished} of {self._trials()}"

    def _trials(self) -> str:
        return counted(most_trials(self._spec), "trial")

    def _send(self, event: str, text: str) -> None:
        if event not in self._spec.notify:
            return
        line = " ".join(f"{self._name}: {text}".split())
        line = "".join(each for each in line if each.isprintable())
        line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
        for thread in self._threads:
            thread.messages.put(Message(self._name, event, line, self._trial, self._score))

    def _pass_faults(self) -> None:
        while not self._faults.empty():
            self._listen(Event("not_told", values={"text": self._faults.get()}))


@contextmanager
def telling(
    name: str, spec: SweepSpec, targets: Sequence[Channel], listen: Listener
) -> Iterator[News]:
    """Give a listener that notifies ``targets`` of the events in ``spec.notify``, also of an error
    in the block.
    """
    news = News(name, spec, targets, listen)
    try:
        yield news
    except Exception as fault:
        news.tell_failure(fault)
        raise
    finally:
        news.close()
