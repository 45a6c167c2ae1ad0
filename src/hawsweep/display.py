"""What a person sees in the terminal: the live picture of a running sweep, and tables."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hawsweep.comparison import Comparison
    from hawsweep.confirm import Confirmation
    from hawsweep.export import Exported
    from hawsweep.importance import Insight
    from hawsweep.intervals import Interval
    from hawsweep.leaderboard import GroupRow, TrialRow
    from hawsweep.supervisor import Event
    from hawsweep.sweepplan import Fit, SweepPlan
    from hawsweep.systems import Ranking
    from hawsweep.verdict import Verdict

_STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "fail": "red",
    "infeasible": "magenta",
    "base": "cyan",
    "running": "blue",
}
_PLAIN_INTERVAL_S = 10.0
# Columns of a terminal that holds a leaderboard with its full titles.
_WIDE = 104


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
            f"[dim]{_clock(elapsed):>7}[/dim]  {text}",
            highlight=False,
            soft_wrap=not self._console.is_terminal,
        )

    def _picture(self) -> RenderableType:
        share = min(self._finished / self._n_trials, 1.0)
        head = Table.grid(padding=(0, 2))
        best = "" if self._best is None else f"best score {self._best:.4f}"
        elapsed = _clock(time.monotonic() - self._started)
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
        self._print(
            f"[cyan]base[/cyan]     val loss {base['val_loss']:.3f}, score {base['score']:.4f}"
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
            self._print(f"trial {values['number']} starts: {settings_text(values['settings'])}")

    def _on_trial_end(self, values: Mapping[str, Any]) -> None:
        state = values["state"]
        if state in ("complete", "pruned"):
            self._finished += 1
        text = f"[{_STYLES.get(state, 'white')}]trial {values['number']:<3}[/] {state}"
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
        text = f"[{_STYLES.get(values['state'], 'white')}]trial {name:<3}[/] again"
        text += f" with seed {values['seed']}" if "seed" in values else ""
        if values["state"] != "complete":
            text += f": {values['state']}"
        if values.get("score") is not None:
            text += f", score {values['score']:.4f}"
        if values.get("reason"):
            text += f": {escape(str(values['reason']))}"
        self._print(text)

    def _on_died(self, values: Mapping[str, Any]) -> None:
        self._print(f"[red]{escape(values['reason'])}; starting another[/red]")

    def _on_reaped(self, values: Mapping[str, Any]) -> None:
        self._print(
            f"[yellow]trial {values['number']} was left running by a worker that is gone: "
            "failed[/yellow]"
        )

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


def leaderboard_table(rows: Sequence["TrialRow"], width: int) -> Table:
    """The trials, one a line, with shorter titles where the terminal is narrow."""
    is_narrow = width < _WIDE
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    again = ["again"] if any(row.confirmed is not None for row in rows) else []
    titles = ["val loss", "at", "score", "95 %", *again, "chrF", "tok/s", "peak GB", "time"]
    if is_narrow:
        titles = ["val", "score", "95 %", *again, "GB", "time"]
    padding = (0, 1 if is_narrow else 2, 0, 0)
    table = Table(box=None, header_style="bold", pad_edge=False, padding=padding)
    table.add_column("trial", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in (*map(short_name, keys), *titles):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        rest = (
            [] if is_narrow else [_number(row.chrf, "{:.1f}"), _number(row.tokens_per_s, "{:.0f}")]
        )
        table.add_row(
            row.label,
            {"base": "", "reference": "elsewhere"}.get(row.state, row.state),
            *(_setting(row.settings.get(key)) for key in keys),
            _number(row.val_loss, "{:.3f}"),
            *([] if is_narrow else [_number(row.best_iteration, "{}")]),
            _number(row.score, "{:.4f}"),
            _range(row.low, row.high, is_short=is_narrow),
            *(_number(row.confirmed, "{:.4f}") for _ in again),
            *rest,
            _number(row.peak_memory_bytes, "{:.2f}", 1e-9),
            "" if row.time_s is None else _duration(row.time_s),
            style=_STYLES.get(row.state, ""),
        )
    if any(row.state == "reference" for row in rows):
        table.caption = "elsewhere: not measured here, on whatever items that was"
        table.caption_justify = "left"
    return table


def samples_table(samples: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Table:
    """Translations of base and trial side by side: pairs of ``samples.jsonl`` records."""
    table = Table(header_style="bold", show_lines=True)
    for title in ("Source", "Reference", "Base", "Trial"):
        table.add_column(title, ratio=1, overflow="fold")
    for base, tuned in samples:
        texts = (tuned["source"], tuned["reference"], base["output"], tuned["output"])
        table.add_row(*(escape(_shorten(text)) for text in texts))
    return table


def studies_table(studies: Sequence[Mapping[str, Any]]) -> Table:
    """The studies, one a line."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("study", "trials", "best", "score", "base", "description"):
        table.add_column(title)
    for study in studies:
        states = ", ".join(f"{count} {state}" for state, count in sorted(study["trials"].items()))
        table.add_row(
            study["name"],
            states,
            "" if study["best_trial"] is None else f"trial {study['best_trial']}",
            _number(study["best_score"], "{:.4f}"),
            _number(study["base_score"], "{:.4f}"),
            escape(study["description"]),
        )
    return table


def test_text(test: Mapping[str, Any] | None) -> str:
    """The result on the test split, and whether it was opened before; or nothing."""
    if test is None:
        return ""
    base, tuned = test["base"], test["trial"]
    text = (
        f"Test split ({test['n_prompts']} prompts): trial {test['trial_number']} "
        f"[bold]{tuned['similarity']:.4f}[/bold], base {base['similarity']:.4f} "
        f"([bold]{tuned['similarity'] - base['similarity']:+.4f}[/bold]); "
        f"chrF {tuned['chrf']:.1f} and {base['chrf']:.1f}; BLEU {tuned['bleu']:.1f} and "
        f"{base['bleu']:.1f}"
    )
    if test["n_opened"] > 1:
        warning = f"Opened {test['n_opened']} times: each time makes it less of a test."
        text += f". [yellow]{warning}[/yellow]"
    return text


def self_check_lines(check: Mapping[str, Any]) -> list[str]:
    """The scale of the metric and what its prompts can tell apart, then each warning."""
    floor, ceiling = check["floor"], check["ceiling"]
    span = ceiling - floor
    share = f", {(check['base'] - floor) / span:.0%} of the way" if span > 0 else ""
    resolution = "One prompt tells nothing apart."
    is_enough = check["n_prompts"] > 1 and check["detectable"] <= check["wanted"]
    if check["n_prompts"] > 1:
        resolution = (
            f"{check['n_prompts']} prompts tell trials apart that differ by "
            f"{check['detectable']:.3f} or more"
        )
    if check["n_needed"] and not is_enough:
        resolution += (
            f"; for {check['wanted']:.3f} it takes about {check['n_needed']} (scoring.max_examples)"
        )
    return [
        f"Scale: other prompts' references score {floor:.3f}, the right ones {ceiling:.3f}; the "
        f"base {check['base']:.3f}{share}",
        resolution if is_enough else f"[yellow]{resolution}[/yellow]",
        *(f"[yellow]{escape(text)}[/yellow]" for text in check["warnings"]),
    ]


def verdict_lines(verdict: "Verdict | None") -> list[str]:
    """What can be said of the winner, one sentence a line."""
    if verdict is None:
        return []
    style = "bold green" if verdict.ships else "bold yellow"
    first, *others = (escape(each) for each in verdict.sentences) if verdict.sentences else ("",)
    return [line for line in (f"[{style}]{first}[/]" if first else "", *others) if line]


def confirmation_lines(confirmed: Sequence["Confirmation"]) -> list[str]:
    """How the best settings did with new seeds, and how much of the winner's score was luck."""
    if not confirmed:
        return []
    first, *others = confirmed
    scores = ", ".join(f"{each:.4f}" for each in first.scores)
    each_seed = f" ({scores})" if len(first.scores) > 1 else ""
    seeds = f"{len(first.scores)} new seed" + "s" * (len(first.scores) > 1)
    lines = [
        f"Trained again with {seeds}, trial {first.trial_number} scores {first.mean:.4f}"
        f"{each_seed}; it was chosen at {first.selected:.4f}: shrinkage "
        f"{first.selected - first.mean:+.4f}."
    ]
    if others:
        rest = ", ".join(f"trial {each.trial_number} {each.mean:.4f}" for each in others)
        lines.append(f"Next by new seeds: {rest}.")
    return lines


def ranking_picture(ranking: "Ranking") -> RenderableType:
    """Systems on the same items, best first, and where metrics disagree."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("system")
    for title in ("score", "95 %", "lead over the next", "similarity", "chrF", "BLEU", "exact"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("length", justify="right")
    table.add_column("faults")
    for each in ranking.systems:
        score, lead = each.score, each.lead
        table.add_row(
            escape(each.name),
            f"{score.score:.4f}",
            _range(*_finite(score.low, score.high), is_short=False),
            "" if lead is None else _lead(lead),
            f"{score.similarity:.4f}",
            f"{score.chrf:.1f}",
            f"{score.bleu:.1f}",
            f"{score.exact_match:.0%}",
            f"{score.length_ratio:.2f}",
            faults_text(score.faults),
        )
    n_items = len(ranking.systems[0].score.samples)
    lines = [f"{n_items} items. A lead whose interval holds 0 is no lead by these items."]
    if ranking.agreement is not None:
        lines.append(f"Rank correlation of score and chrF: {ranking.agreement:.2f}.")
    for one, other in ranking.reversed_pairs[:5]:
        lines.append(f"chrF ranks {other} above {one}.")
    return Group(table, "", *map(escape, lines))


def _finite(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _lead(lead: "Interval") -> str:
    low, high = _finite(lead.low, lead.high)
    return f"{lead.mean:+.3f}" + ("" if low is None else f" ({low:+.3f} to {high:+.3f})")


def insight_picture(insight: "Insight") -> RenderableType:
    """Importance and marginal of each parameter, and what validation loss was worth."""
    from hawsweep.importance import FEWEST_TRIALS, LOW_AGREEMENT

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("parameter")
    for title in ("importance", "value", "trials", "mean score", "best"):
        table.add_column(title, justify="right")
    names = [*insight.importance, *(n for n in insight.marginals if n not in insight.importance)]
    for name in names:
        share = insight.importance.get(name)
        for number, part in enumerate(insight.marginals[name]):
            table.add_row(
                short_name(name) if number == 0 else "",
                f"{share:.0%}" if number == 0 and share is not None else "",
                part.part,
                str(part.n_trials),
                f"{part.mean:.4f}",
                f"{part.best:.4f}",
            )
    lines = []
    if not insight.importance:
        lines.append(
            f"Importance needs {FEWEST_TRIALS} complete trials; there are {insight.n_trials}."
        )
    if insight.agreement is None:
        lines.append("Too few trials to say whether validation loss foretells the score.")
    else:
        lines.append(
            f"Rank correlation of validation loss (lower is better) with the score: "
            f"{insight.agreement:.2f} over {insight.n_trials} complete trials."
        )
        if insight.agreement < LOW_AGREEMENT:
            lines.append(
                "[yellow]Validation loss is a poor guide here: pruning by it may end good trials. "
                "Consider pruning.name: none.[/yellow]"
            )
    return Group(table, "", *map(Text.from_markup, lines))


def faults_text(faults: Mapping[str, int] | None) -> str:
    """``3 empty, 1 cut``."""
    return ", ".join(f"{count} {fault}" for fault, count in sorted((faults or {}).items()))


def comparison_picture(compared: "Comparison", n_items: int) -> RenderableType:
    """Two answers to the same prompts: the most harmed and the most improved items, and groups."""
    one, other = compared.labels
    n = len(compared.items)
    head = (
        f"[bold]{other}[/bold] against [bold]{one}[/bold] on {n} validation prompts: "
        f"{_lead(compared.gain)}; better on {compared.n_better}, worse on {compared.n_worse}"
    )
    parts: list[RenderableType] = [Text.from_markup(head)]
    harmed = [item for item in compared.items[:n_items] if item.gain < 0]
    improved = [item for item in compared.items[::-1][:n_items] if item.gain > 0]
    for title, items in (("Most improved", improved), ("Most harmed", harmed)):
        if items:
            table = Table(title=title, title_justify="left", header_style="bold", show_lines=True)
            for name in ("Source", "Reference", one, other):
                table.add_column(name, ratio=1, overflow="fold")
            table.add_column("gain", justify="right", no_wrap=True)
            for item in items:
                texts = (item.source, item.reference, *item.outputs)
                table.add_row(*(escape(_shorten(text)) for text in texts), f"{item.gain:+.3f}")
            parts += ["", table]
    if compared.groups:
        parts += ["", groups_table(compared.groups)]
        parts += map(Text.from_markup, regression_lines(compared.groups))
    return Group(*parts)


def regression_lines(rows: Sequence["GroupRow"]) -> list[str]:
    """The groups in which the second scores lower than the first, the base mostly, in words."""
    worse = [row for row in rows if row.gain.mean < 0]
    if not worse:
        return []
    named = ", ".join(
        f"{row.group} ({row.gain.mean:+.3f} on {row.n_prompts} prompts"
        f"{', beyond chance' if row.gain.high < 0 else ''})"
        for row in worse
    )
    return [f"[yellow]It scores lower in {escape(named)}.[/yellow]"]


def groups_table(rows: Sequence["GroupRow"]) -> Table:
    """Base and trial by group, largest loss first."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("group")
    for title in ("prompts", "base", "trial", "gain", "95 %"):
        table.add_column(title, justify="right")
    for row in rows:
        gain = row.gain
        table.add_row(
            escape(row.group),
            str(row.n_prompts),
            f"{row.base:.3f}",
            f"{row.trial:.3f}",
            f"{gain.mean:+.3f}",
            f"{gain.low:+.3f} to {gain.high:+.3f}" if math.isfinite(gain.low) else "",
            style="red" if gain.high < 0 else "yellow" if gain.mean < 0 else "",
        )
    return table


def end_picture(end: Mapping[str, Any], ended: str, width: int) -> RenderableType:
    """What is shown when a start ends."""
    name, best = end["name"], end["best_trial"]
    parts: list[RenderableType] = ["", leaderboard_table(end["rows"], width), ""]
    if text := test_text(end["test"]):
        parts += [Text.from_markup(text)]
    said = [*verdict_lines(end["verdict"]), *confirmation_lines(end["confirmed"])]
    parts += map(Text.from_markup, said)
    if end["self_check"]:
        parts += ["", *map(Text.from_markup, self_check_lines(end["self_check"]))]
    if end["groups"]:
        parts += ["", groups_table(end["groups"])]
        parts += map(Text.from_markup, regression_lines(end["groups"]))
    parts.append("")
    if end["samples"]:
        parts += [samples_table(end["samples"]), ""]
    if ended != "finished":
        reason = "Interrupted." if ended == "interrupted" else "The time is up."
        parts += [
            Text.from_markup(f"[yellow]{reason}[/yellow] The same command goes on."),
            "",
        ]
    where = Table.grid(padding=(0, 2))
    where.add_row("Study", str(end["study_dir"]))
    if best is not None:
        where.add_row("Best adapter", str(end["trial_dir"] / "adapters"))
        where.add_row("Next", f"hawsweep export {name} --fuse")
        where.add_row("", f"hawsweep show {name} {best}")
    where.add_row("", "hawsweep dashboard")
    return Group(*parts, where)


def trial_picture(described: Mapping[str, Any]) -> RenderableType:
    """All of one trial."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row("State", str(described["state"]))
    if described["reason"]:
        grid.add_row("Reason", escape(described["reason"]))
    for key, value in described["settings"].items():
        grid.add_row(key, _setting(value))
    for key, form in (
        ("val_loss", "{:.4f}"),
        ("best_iteration", "{}"),
        ("score", "{:.4f}"),
        ("confirmed", "{:.4f}"),
        ("similarity", "{:.4f}"),
        ("chrf", "{:.1f}"),
        ("bleu", "{:.1f}"),
        ("tokens_per_s", "{:.0f}"),
    ):
        grid.add_row(key, _number(described[key], form))
    if described["faults"]:
        grid.add_row("Faulty answers", faults_text(described["faults"]))
    evaluations = "  ".join(
        f"{step}: {loss:.3f}" for step, loss in described["evaluations"].items()
    )
    grid.add_row("val loss by iteration", evaluations)
    grid.add_row("Folder", described["folder"])
    grid.add_row("Files", escape("  ".join(described["files"])))
    parts: list[RenderableType] = [f"Trial {described['label']} of {described['study']}", grid]
    if described["samples"]:
        table = Table(header_style="bold", show_lines=True)
        for title in ("Source", "Reference", "Translation", "similarity"):
            table.add_column(title, overflow="fold")
        for sample in described["samples"]:
            texts = (escape(_shorten(sample[key])) for key in ("source", "reference", "output"))
            table.add_row(*texts, f"{sample['similarity']:.3f}")
        parts.append(table)
    for kind in ("hardest", "easiest"):
        if examples := described.get(f"{kind}_examples"):
            parts.append(_examples_table(kind, examples))
    return Group(*parts)


def _examples_table(kind: str, examples: Sequence[Mapping[str, Any]]) -> Table:
    title = f"The {kind} training examples, by mean loss when trained on (higher for all at first)"
    table = Table(title=title, title_justify="left", header_style="bold", show_lines=True)
    for name in ("Source", "Reference"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "last", "seen"):
        table.add_column(name, justify="right", no_wrap=True)
    for example in examples:
        texts = (escape(_shorten(example[key] or "")) for key in ("source", "reference"))
        numbers = (f"{example[key]:.3f}" for key in ("mean", "last"))
        table.add_row(*texts, *numbers, str(example["count"]))
    return table


def plan_picture(plan: "SweepPlan") -> RenderableType:
    """The budget, each searched value with the others at their smallest and largest, the end."""
    known, spec = plan.memory, plan.spec
    weights = known.shape.weight_bytes() / 1e9
    longest = int(plan.work.lengths.max())
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_row("[bold]model[/bold]", escape(f"{spec.model}: {weights:.2f} GB of weights"))
    workers = "one worker" if plan.n_workers == 1 else f"{plan.n_workers} workers"
    facts.add_row(
        "[bold]budget[/bold]", f"{plan.budget.total_bytes / 1e9:.1f} GB: {plan.budget.how}"
    )
    facts.add_row(
        "",
        f"{workers}, {plan.arrays_bytes / 1e9:.1f} GB each for MLX's arrays, "
        f"{(plan.worker_bytes - plan.arrays_bytes) / 1e9:.1f} GB for the rest of its process",
    )
    facts.add_row(
        "[bold]examples[/bold]",
        f"{len(plan.work.lengths)}, the longest of {longest} tokens, {plan.work.how}",
    )
    facts.add_row("[bold]memory[/bold]", f"within {known.error:.0%}: {known.how}")
    facts.add_row("[bold]speed[/bold]", known.speed.how)
    fits = plan.scoring_bytes <= plan.arrays_bytes
    facts.add_row(
        "[bold]answers[/bold]",
        f"{spec.scoring.batch_size} prompts at a time, up to {plan.scoring_bytes / 1e9:.1f} GB"
        + ("" if fits else " [red]do not fit: lower scoring.batch_size[/red]"),
    )
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("key")
    table.add_column("value", justify="right")
    for title in ("smallest", "largest"):
        table.add_column(f"{title}: GB", justify="right")
        table.add_column("tok/s", justify="right")
        table.add_column("trial", justify="right")
        table.add_column("how")
    for key, rows in plan.by_value.items():
        for number, (value, *ends) in enumerate(rows):
            cells = [cell for verdict in ends for cell in _verdict_cells(verdict)]
            table.add_row(short_name(key) if number == 0 else "", _setting(value), *cells)
    meaning = "smallest, largest: the other keys at what needs the least and the most memory"
    return Group(facts, "", table, f"[dim]{meaning}[/dim]", "", *_plan_end(plan))


def _verdict_cells(verdict: "Fit") -> list[str]:
    fits = verdict.plan is not None
    shown = verdict.plan or verdict.least
    cells = [
        f"{shown.peak_bytes / 1e9:.2f}",
        f"{verdict.tokens_per_s:.0f}" if fits else "",
        _duration(verdict.seconds) if fits else "",
        verdict.how,
    ]
    return cells if fits else [f"[magenta]{cell}[/magenta]" if cell else "" for cell in cells]


def _plan_end(plan: "SweepPlan") -> list[str]:
    lines = []
    if plan.smallest.plan is None:
        lines.append("[red]Nothing of this sweep fits.[/red]")
    else:
        lines.append(
            f"{plan.spec.trials} trials take at most about {_duration(plan.seconds)}, without "
            "evaluations and translations; pruned ones take less."
        )
        if plan.spec.timeout is not None and plan.seconds > plan.spec.timeout:
            n_trials = int(plan.spec.trials * plan.spec.timeout / plan.seconds)
            lines.append(
                f"The timeout of {_duration(plan.spec.timeout)} leaves time for about {n_trials} "
                "that are not pruned."
            )
    if plan.faster is not None and plan.largest.plan is not None:
        from hawsweep.planning import describe

        lines.append(
            f"With {plan.faster.needed_bytes / 1e9:.1f} GB for arrays the largest settings would "
            f"be faster: {describe(plan.faster, plan.largest.train)}."
        )
    return lines


def residuals_table(residuals: Sequence[Any]) -> Table:
    """Measured steps beside what the fitted memory model says of them."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    titles = (
        "layers",
        "rank",
        "rows",
        "width",
        "targets",
        "how",
        "measured GB",
        "fitted GB",
        "error",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for each in residuals:
        seen = each.observation
        how = "checkpointed" if seen.execution.grad_checkpoint else ""
        how += " sliced" if seen.execution.tokens_at_once else ""
        table.add_row(
            str(seen.train.num_layers),
            str(seen.train.lora_parameters.rank),
            str(seen.step.rows),
            str(seen.step.width),
            str(seen.step.n_targets),
            how.strip(),
            f"{seen.peak_bytes / 1e9:.3f}",
            f"{each.predicted_bytes / 1e9:.3f}",
            f"{each.error:+.1%}",
        )
    return table


def export_text(exported: "Exported", model: str) -> str:
    """What was exported and how to use it."""
    lines = [
        f"Trial {exported.trial_number}: similarity {exported.similarity:.4f} when scored, "
        f"{exported.adapter_similarity:.4f} as exported"
    ]
    if exported.fused_similarity is not None:
        lines[0] += f", {exported.fused_similarity:.4f} fused"
        lines[0] += (
            " (dequantized, or fusing would lose the adapter)" if exported.dequantized else ""
        )
    lines.append(f"Adapter      {exported.folder / 'adapters'}")
    if exported.fused_similarity is not None:
        fused = exported.folder / "fused"
        lines += [
            f"Fused model  {fused}",
            f"Try it       mlx_lm.generate --model {fused} --prompt ...",
        ]
    return "\n".join(lines)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in one line, by their last names."""
    return "  ".join(f"{short_name(key)} {_setting(value)}" for key, value in settings.items())


def short_name(key: str) -> str:
    """A key as a column's title."""
    return {"learning_rate": "lr", "grad_accumulation_steps": "accum"}.get(
        key, key.rsplit(".", 1)[-1]
    )


def _setting(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.2e}"
        if isinstance(value, float) and value < 0.01
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _number(value: float | None, form: str, factor: float = 1) -> str:
    if value is None:
        return ""
    return form.format(value * factor if factor != 1 else value)


def _range(low: float | None, high: float | None, *, is_short: bool) -> str:
    if low is None or high is None:
        return ""
    if is_short and 0 <= low <= high < 0.995:
        return f"{low:.2f}-{high:.2f}".replace("0.", ".")
    return f"{low:.3f}-{high:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return _clock(seconds) if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}"


def _shorten(text: str, length: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
