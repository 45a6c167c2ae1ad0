"""The events of a sweep in words."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape

from hawsweep.study.attributes import TRIED
from hawsweep.study.baselines import prompt_text
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
    lines = [text]
    if values["n_truncated"]:
        lines.append(
            "  `hawsweep validate NAME` says how long they are; a higher max_seq_length needs a "
            "new study (--study NEW)"
        )
    return lines + [f"  [yellow]{escape(each)}[/yellow]" for each in values["warnings"]]


def _base_end(values: Mapping[str, Any]) -> list[str]:
    base, few_shot = values["base"], values.get("few_shot")
    of = f"  {escape(values['model'])}:" if "model" in values else ""
    lines = [
        f"[cyan]base[/cyan]   {of}  val loss {base['val_loss']:.3f}, score {base['score']:.4f}"
    ]
    if few_shot is not None:
        lines.append(
            f"[cyan]base[/cyan]     with {prompt_text(few_shot)} in its prompt"
            f"{_of_tried(few_shot)}: score {few_shot['score']:.4f}"
        )
    return lines + self_check_lines(values["self_check"])


def _of_tried(few_shot: Mapping[str, Any]) -> str:
    tried = few_shot.get(TRIED, ())
    return f", the best of {len(tried)} prompts" if tried else ""


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


def _extended(values: Mapping[str, Any]) -> list[str]:
    limit = values["timeout_s"]
    time = "" if limit is None else f", {duration(limit)} from the start"
    return [f"[cyan]extended[/cyan]: {values['n_trials']} trials{time}"]


def _colored(color: str, text: str) -> list[str]:
    return [f"[{color}]{text}[/{color}]"]


_TOLD: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "study": _study,
    "ready": _ready,
    "base_end": _base_end,
    "trial_end": _trial_end,
    "confirm_end": _confirm_end,
    "left_out": lambda values: _colored(
        "yellow",
        f"{escape(values['model'])} does not fit and is left out. {escape(values['reason'])}",
    ),
    "host": lambda values: _colored(
        "cyan" if values["state"] == "joined" else "yellow", escape(values["text"])
    ),
    "not_told": lambda values: _colored("yellow", f"{escape(values['text'])}; the sweep goes on"),
    "died": lambda values: _colored("red", f"{escape(values['reason'])}; starting another"),
    "reaped": lambda values: _colored(
        "yellow", f"trial {values['number']} was left running: {values['reason']}"
    ),
    "exhausted": lambda values: _colored(
        "yellow",
        "Each setting of the search space was tried: the sweep ends before "
        f"{counted(values['n_trials'], 'trial')}",
    ),
    "settled": lambda values: _colored(
        "yellow",
        f"Another hour is expected to lower the validation loss by {100 * values['gain']:.2g} %, "
        f"less than {values['asked']}: no setting begins any more",
    ),
    "extended": _extended,
    "interrupting": lambda _: _colored(
        "yellow", "Stopping after the current iteration; Ctrl-C again stops at once"
    ),
}
