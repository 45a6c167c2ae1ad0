"""``run_sweep`` for notebooks: it shows the running sweep below its cell."""

import sys
import time
from collections.abc import Callable
from functools import wraps
from inspect import signature
from io import StringIO
from typing import Any, ParamSpec

from hawsweep.running import start
from hawsweep.running.events import Event
from hawsweep.running.progress import Follower
from hawsweep.running.start import Outcome
from hawsweep.text import visible

P = ParamSpec("P")
_WIDTH, _HEIGHT = 100, 24
_INTERVAL_S = 1.0
_HTML = '<pre style="font-family: monospace; line-height: normal">{code}</pre>'


class NotebookDisplay:
    """Shows a sweep's events as one picture below the cell that runs."""

    def __init__(self, n_trials: int) -> None:
        self._follow = Follower(n_trials)
        self._handle: Any = None
        self._shown_at = 0.0

    def __call__(self, event: Event) -> None:
        """Update the picture, at most once a second."""
        self._follow(event)
        now = time.monotonic()
        if now - self._shown_at >= _INTERVAL_S:
            self._shown_at = now
            self.show()

    def show(self) -> None:
        """Show the state now."""
        from hawsweep.views.terminal.progress import RunningPicture
        from hawsweep.views.terminal.text import Console

        nowhere = StringIO()
        console = Console(file=nowhere, record=True, width=_WIDTH, force_jupyter=False)
        console.print(RunningPicture(self._follow.state, with_events=True, height=_HEIGHT))
        text = console.export_text(clear=False)
        html = console.export_html(code_format=_HTML, inline_styles=True)
        self._update({"text/plain": text, "text/html": html})

    def end(self, outcome: Outcome) -> None:
        """Show in place of the picture how it ended, and the recommendation."""
        self._update({"text/plain": visible(str(outcome))})

    def _update(self, shown: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def _shown(run: Callable[P, Outcome]) -> Callable[P, Outcome]:
    @wraps(run)
    def run_shown(*args: P.args, **kwargs: P.kwargs) -> Outcome:
        if kwargs.get("on_event") is not None or not _in_notebook():
            return run(*args, **kwargs)
        spec = signature(run).bind(*args, **kwargs).arguments["spec"]
        display = NotebookDisplay(spec.trials)
        outcome = run(*args, **{**kwargs, "on_event": display})  # type: ignore[arg-type]
        display.end(outcome)
        return outcome

    return run_shown


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


run_sweep = _shown(start.run_sweep)
