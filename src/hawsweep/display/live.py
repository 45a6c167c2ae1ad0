"""The live picture of a running sweep; without a terminal a line now and then."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hawsweep.display.judging import self_check_lines
from hawsweep.display.text import STYLES, clock, settings_text

if TYPE_CHECKING:
    from hawsweep.supervisor import Event

_PLAIN_INTERVAL_S = 10.0


class SweepDisplay:
    """Follows a sweep's events: a live picture on a terminal, else a line now and then."""

    def __init__(self, console: Console, n_trials: int) -> None:
        self._console = console
        self._n_trials = n_trials
        self._finished = 0
        self._started = time.monotonic()
        self._workers: dict[int, _WorkerLine] = {}
        self._best: float | None = None
        self._told_ready = False
        self._spinner = Spinner("dots")
        self._live = Live(
            get_renderable=self._picture, console=console, transient=True, refresh_per_second=8
        )

    def __enter__(self) -> "SweepDisplay":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: "Event") -> None:
        """Show an event."""
        line = self._workers.setdefault(event.worker, _WorkerLine())
        tell: Callable[[Mapping[str, Any]], None] | None = getattr(self, f"_on_{event.kind}", None)
        if tell is not None:
            tell(event.values)
        line.follow(event)
        if not self._console.is_terminal and event.kind in ("iteration", "tick", "preparing"):
            for each in self._workers.values():
                self._print_plain(each.plain_line())

    def _print_plain(self, text: str | None) -> None:
        if text is not None:
            self._print(text)

    def _print(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(
            f"[dim]{clock(elapsed):>7}[/dim]  {text}",
            highlight=False,
            soft_wrap=not self._console.is_terminal,
        )

    def _picture(self) -> RenderableType:
        share = min(self._finished / self._n_trials, 1.0)
        head = Table.grid(padding=(0, 2))
        best = "" if self._best is None else f"best score {self._best:.4f}"
        elapsed = clock(time.monotonic() - self._started)
        head.add_row(
            f"{self._finished}/{self._n_trials} trials",
            ProgressBar(1.0, share, width=30),
            elapsed,
            best,
        )
        lines: list[RenderableType] = [head]
        for line in self._workers.values():
            lines.append(line.picture(self._spinner))
        return Group(*lines)

    def _on_study(self, values: Mapping[str, Any]) -> None:
        self._finished = values["finished"]
        kind = (
            "New study"
            if values["is_new"]
            else f"Continuing after {self._finished} finished trials: study"
        )
        self._print(f"{kind} [bold]{escape(values['name'])}[/bold]")

    def _on_ready(self, values: Mapping[str, Any]) -> None:
        if self._told_ready:
            return  # workers read the same data
        self._told_ready = True
        text = f"Training on {values['n_train']} examples, validating on {values['n_valid']}"
        cut_away = values["n_dropped"] - values["n_empty"]
        for count, what in (
            (values["n_empty"], "left out: nothing to learn in them"),
            (cut_away, "left out: nothing to learn within max_seq_length"),
            (values["n_truncated"] - cut_away, "truncated at max_seq_length"),
        ):
            text += f"; [yellow]{count} {what}[/yellow]" if count else ""
        self._print(text)

    def _on_base_end(self, values: Mapping[str, Any]) -> None:
        base, few_shot = values["base"], values.get("few_shot")
        of = f"  {escape(values['model'])}:" if "model" in values else ""
        self._print(
            f"[cyan]base[/cyan]   {of}  val loss {base['val_loss']:.3f}, score {base['score']:.4f}"
        )
        if few_shot is not None:
            self._print(
                f"[cyan]base[/cyan]     with {few_shot['n_examples']} examples in its prompt: "
                f"score {few_shot['score']:.4f}"
            )
        for line in self_check_lines(values["self_check"]):
            self._print(line)

    def _on_trial_start(self, values: Mapping[str, Any]) -> None:
        if not self._console.is_terminal:
            settings = escape(settings_text(values["settings"]))
            self._print(f"trial {values['number']} starts: {settings}")

    def _on_trial_end(self, values: Mapping[str, Any]) -> None:
        state = values["state"]
        if state in ("complete", "pruned"):
            self._finished += 1
        text = f"[{STYLES.get(state, 'white')}]trial {values['number']:<3}[/] {state}"
        if values.get("val_loss") is not None:
            text += f", val loss {values['val_loss']:.3f}"
        if values.get("score") is not None:
            text += f", score {values['score']:.4f}"
            if self._best is None or values["score"] > self._best:
                self._best = values["score"]
                text += " [bold green]best so far[/bold green]"
        if values.get("reason"):
            text += f": {escape(str(values['reason']))}"
        self._print(text)

    def _on_confirm_start(self, values: Mapping[str, Any]) -> None:
        if not self._console.is_terminal:
            self._print(f"trial {values['confirms']} again with seed {values['seed']} starts")

    def _on_confirm_end(self, values: Mapping[str, Any]) -> None:
        name = str(values.get("confirms", values["number"]))
        text = f"[{STYLES.get(values['state'], 'white')}]trial {name:<3}[/] again"
        text += f" with seed {values['seed']}" if "seed" in values else ""
        if values["state"] != "complete":
            text += f": {values['state']}"
        if values.get("score") is not None:
            text += f", score {values['score']:.4f}"
        if values.get("reason"):
            text += f": {escape(str(values['reason']))}"
        self._print(text)

    def _on_left_out(self, values: Mapping[str, Any]) -> None:
        name, reason = escape(values["model"]), escape(values["reason"])
        self._print(f"[yellow]{name} does not fit and is left out. {reason}[/yellow]")

    def _on_died(self, values: Mapping[str, Any]) -> None:
        self._print(f"[red]{escape(values['reason'])}; starting another[/red]")

    def _on_reaped(self, values: Mapping[str, Any]) -> None:
        self._print(
            f"[yellow]trial {values['number']} was left running by a worker that is gone: its "
            "settings are tried again[/yellow]"
        )

    def _on_not_told(self, values: Mapping[str, Any]) -> None:
        self._print(f"[yellow]{escape(values['text'])}; the sweep goes on[/yellow]")

    def _on_paused(self, values: Mapping[str, Any]) -> None:
        self._print(f"[yellow]Paused: {escape(values['reason'])}[/yellow]")

    def _on_resumed(self, _: Mapping[str, Any]) -> None:
        self._print("Going on")

    def _on_interrupting(self, _: Mapping[str, Any]) -> None:
        self._print(
            "[yellow]Stopping after the current iteration; Ctrl-C again stops at once[/yellow]"
        )


class _WorkerLine:
    """What one worker is at."""

    def __init__(self) -> None:
        self._text = "starting"
        self._trial: int | str | None = None
        self._at = self._of = 0
        self._train_loss: float | None = None
        self._val_loss: float | None = None
        self._rate: float | None = None
        self._settings = ""
        self._told = time.monotonic()
        self._fresh = False

    def follow(self, event: "Event") -> None:
        values = event.values
        if event.kind in ("trial_start", "confirm_start"):
            self.__init__()  # type: ignore[misc]
            number = values.get("confirms")
            self._trial = values["number"] if number is None else f"{number} again"
            self._settings = settings_text(values["settings"])
            self._text = f"trial {self._trial}"
        elif event.kind == "iteration":
            self._at, self._of = values["iteration"], values["iters"]
        elif event.kind == "train":
            self._train_loss, self._rate = values["train_loss"], values["tokens_per_s"]
        elif event.kind == "eval":
            self._val_loss = values["val_loss"]
        elif event.kind in _DOING:
            self._fresh = event.kind != "preparing" or event.worker == 0  # they all prepare alike
            self._text = _DOING[event.kind].format(trial=self._trial, **values)
            self._at = self._of = 0
        elif event.kind in ("ready", "base_end", "trial_end", "confirm_end", "test_end"):
            self._text, self._at, self._of, self._settings = "waiting", 0, 0, ""

    def picture(self, spinner: Spinner) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(self._of, self._at, width=20) if self._of else Text("")
        count = f"{self._at}/{self._of}" if self._of else ""
        grid.add_row(spinner, Text(self._text), bar, count, self._numbers())
        return Group(grid, Text(f"  {self._settings}", style="dim")) if self._settings else grid

    def plain_line(self) -> str | None:
        now = time.monotonic()
        if self._text == "waiting":
            return None
        if not self._fresh and now - self._told < _PLAIN_INTERVAL_S:
            return None
        self._told, self._fresh = now, False
        count = f"  iteration {self._at}/{self._of}" if self._of else ""
        return f"{self._text}{count}  {self._numbers()}".rstrip()

    def _numbers(self) -> str:
        parts = []
        if self._of and self._train_loss is not None:
            parts.append(f"train {self._train_loss:.3f}")
        if self._of and self._val_loss is not None:
            parts.append(f"val {self._val_loss:.3f}")
        if self._of and self._rate is not None:
            parts.append(f"{self._rate:.0f} tok/s")
        return "  ".join(parts)


_DOING = {
    "preparing": "{text}",
    "base_start": "base: measuring the untuned model",
    "scoring": "trial {trial}: translating {n_prompts} validation prompts",
    "test_start": "trial {number} and base: translating the test split",
}
