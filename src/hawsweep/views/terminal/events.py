"""The events of a sweep in words."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape

from hawsweep.text import counted, duration, settings_text
from hawsweep.views.terminal.style import STYLES
from hawsweep.views.terminal.text import Text
from hawsweep.views.terminal.verdict import self_check_lines


def event_lines(kind: str, values: Mapping[str, Any], host: str = "") -> list[Text]:
    """An event in words, the most important line first; empty for events that are not printed.

    Args:
        host: The machine of the event, which the lines name; empty for this one.
    """
    tell = _TOLD.get(kind)
    lines = [] if tell is None else [Text.from_markup(line) for line in tell(values)]
    return [Text.assemble((f"{host}  ", "dim"), line) for line in lines] if host else lines


def start_line(kind: str, values: Mapping[str, Any], host: str = "") -> Text | None:
    """The line for the start of a trial, without a live picture; else None."""
    on = f" on {host}" if host else ""
    if kind == "trial_start":
        return Text(f"trial {values['number']} starts{on}: {settings_text(values['settings'])}")
    if kind == "confirm_start":
        return Text(
            f"trial {values['confirms']} confirming run with seed {values['seed']} starts{on}"
        )
    return None


def _study(values: Mapping[str, Any]) -> list[str]:
    begun = f"Continuing after {counted(values['finished'], 'finished trial')}: study"
    kind = "New study" if values["is_new"] else begun
    return [f"{kind} [bold]{escape(values['name'])}[/bold]"]


def _ready(values: Mapping[str, Any]) -> list[str]:
    text = f"Training on {counted(values['n_train'], 'example')}, validating on {values['n_valid']}"
    cut_away = values["n_dropped"] - values["n_empty"]
    for count, what in (
        (values["n_empty"], "left out: nothing to learn in them"),
        (cut_away, "left out: nothing to learn within max_seq_length"),
        (values["n_truncated"] - cut_away, "truncated at max_seq_length"),
    ):
        text += f"; [yellow]{count} {what}[/yellow]" if count else ""
    return [text, *(f"  [yellow]{escape(each)}[/yellow]" for each in values["warnings"])]


def _base_end(values: Mapping[str, Any]) -> list[str]:
    base, few_shot = values["base"], values.get("few_shot")
    of = f"  {escape(values['model'])}:" if "model" in values else ""
    lines = [
        f"[cyan]base[/cyan]   {of}  val loss {base['val_loss']:.3f}, score {base['score']:.4f}"
    ]
    if few_shot is not None:
        lines.append(
            f"[cyan]base[/cyan]     with {counted(few_shot['n_examples'], 'example')} in its "
            f"prompt: score {few_shot['score']:.4f}"
        )
    return lines + self_check_lines(values["self_check"])


def _trial_end(values: Mapping[str, Any]) -> list[str]:
    state = values["state"]
    text = f"[{STYLES.get(state, 'white')}]trial {values['number']:<3}[/] {state}"
    if values.get("val_loss") is not None:
        text += f", val loss {values['val_loss']:.3f}"
    if values.get("score") is not None:
        text += f", score {values['score']:.4f}"
    if values.get("is_best"):
        text += " [bold green]best so far[/bold green]"
    return [text + _because(values)]


def _confirm_end(values: Mapping[str, Any]) -> list[str]:
    name = str(values.get("confirms", values["number"]))
    text = f"[{STYLES.get(values['state'], 'white')}]trial {name:<3}[/] confirming run"
    text += f" with seed {values['seed']}" if "seed" in values else ""
    if values["state"] != "complete":
        text += f": {values['state']}"
    if values.get("score") is not None:
        text += f", score {values['score']:.4f}"
    return [text + _because(values)]


def _because(values: Mapping[str, Any]) -> str:
    return f": {escape(str(values['reason']))}" if values.get("reason") else ""


def _left_out(values: Mapping[str, Any]) -> list[str]:
    name, reason = escape(values["model"]), escape(values["reason"])
    return [f"[yellow]{name} does not fit and is left out. {reason}[/yellow]"]


def _host(values: Mapping[str, Any]) -> list[str]:
    style = "cyan" if values["state"] == "joined" else "yellow"
    return [f"[{style}]{escape(values['text'])}[/{style}]"]


def _not_told(values: Mapping[str, Any]) -> list[str]:
    return [f"[yellow]{escape(values['text'])}; the sweep goes on[/yellow]"]


def _died(values: Mapping[str, Any]) -> list[str]:
    return [f"[red]{escape(values['reason'])}; starting another[/red]"]


def _reaped(values: Mapping[str, Any]) -> list[str]:
    return [f"[yellow]trial {values['number']} was left running: {values['reason']}[/yellow]"]


def _exhausted(values: Mapping[str, Any]) -> list[str]:
    return [
        "[yellow]Each setting of the search space was tried: the sweep ends before "
        f"{counted(values['n_trials'], 'trial')}[/yellow]"
    ]


def _settled(values: Mapping[str, Any]) -> list[str]:
    return [
        f"[yellow]Another hour is expected to lower the validation loss by "
        f"{100 * values['gain']:.2g} %, less than {values['asked']}: no setting begins any "
        "more[/yellow]"
    ]


def _extended(values: Mapping[str, Any]) -> list[str]:
    limit = values["timeout_s"]
    time = "" if limit is None else f", {duration(limit)} from the start"
    return [f"[cyan]extended[/cyan]: {values['n_trials']} trials{time}"]


def _interrupting(_: Mapping[str, Any]) -> list[str]:
    return ["[yellow]Stopping after the current iteration; Ctrl-C again stops at once[/yellow]"]


_TOLD: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "study": _study,
    "ready": _ready,
    "base_end": _base_end,
    "trial_end": _trial_end,
    "confirm_end": _confirm_end,
    "left_out": _left_out,
    "host": _host,
    "not_told": _not_told,
    "died": _died,
    "reaped": _reaped,
    "exhausted": _exhausted,
    "settled": _settled,
    "extended": _extended,
    "interrupting": _interrupting,
}
