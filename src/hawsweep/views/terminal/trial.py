"""One trial: its settings, losses, scores and answers."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table

from hawsweep.text import clock, faults_text, number, score_range, setting, shorten
from hawsweep.views.terminal.curves import Series, plot
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.style import LONGEST_SAMPLE, STYLES, make_grid
from hawsweep.views.terminal.text import Text

_PLOT_HEIGHT = 12
# Characters of an answer before a token and behind it.
_AROUND = 60
_WIDEST_PLOT = 110


def trial_picture(described: Mapping[str, Any], width: int) -> RenderableType:
    """The picture of a trial described by ``one_trial.describe_trial``."""
    state = str(described["state"])
    head = Text.assemble(
        ("Trial ", "bold"),
        (str(described["label"]), "bold"),
        f" of {described['study']}: ",
        (state, STYLES.get(state, "")),
    )
    if described["reason"]:
        head.append(f", {described['reason']}")
    parts: list[RenderableType] = [head, "", _settings(described)]
    if curves := _curves(described):
        parts += ["", _LossPlot(curves)]
    if described["samples"]:
        parts += ["", _samples_table(described["samples"])]
    for kind in ("hardest", "easiest"):
        if examples := described.get(f"{kind}_examples"):
            parts += ["", _examples_table(kind, examples)]
    if tokens := described.get("hardest_tokens"):
        parts += ["", _tokens_table(tokens)]
    files = escape("  ".join(described["files"]))
    rows = [("Folder", escape(described["folder"])), ("Files", files)]
    return Group(*parts, "", make_grid(rows))


def base_picture(described: Mapping[str, Any]) -> RenderableType:
    """The untuned model with each of its prompts, by ``one_trial.describe_base``."""
    table = make_table("prompt | >score | >95 % | ", dropped=("95 %",))
    prompts = described["prompts"]
    for each in sorted(prompts, key=lambda each: -each["score"]):
        is_best = each["is_chosen"] and (each["n_examples"] or each["instruction"])
        table.add_row(
            escape(each["label"]),
            f"{each['score']:.4f}",
            score_range(each["low"], each["high"], is_short=False),
            "baseline" if is_best else "",
            style="bold" if is_best else "",
        )
    head = Text(f"The untuned model of {described['study']}, on the validation prompts")
    numbered = enumerate(described["instructions"], 1)
    rows = [(f"instruction {n}", escape(shorten(text))) for n, text in numbered]
    return Group(head, "", table, "", make_grid(rows)) if rows else Group(head, "", table)


def _settings(described: Mapping[str, Any]) -> Table:
    rows = [(escape(key), escape(setting(value))) for key, value in described["settings"].items()]
    if plan := described["plan"]:
        peak = plan.get("peak_bytes")
        expected = f"; {peak / 1e9:.2f} GB were expected" if peak else ""
        rows.append(("executed", escape(f"{plan.get('text', '')}{expected}")))
    if continued := described["continues"]:
        at = f"trial {continued['trial']}, iteration {continued['iteration']}"
        rows.append(("goes on from", at))
    rows += [(title, text) for title, text in _numbers(described) if text]
    return make_grid(rows)


def _numbers(described: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = described
    loss = number(known["val_loss"], "{:.4f}")
    if loss and known["best_iteration"] is not None:
        loss += f" at iteration {known['best_iteration']}"
    score = number(known["score"], "{:.4f}")
    if ends := score_range(known["low"], known["high"], is_short=False):
        score += f" (95 % {ends})"
    best = known["best"]
    if score and best is not None and str(best["trial"]) != known["label"]:
        score += f"; best is trial {best['trial']} {number(best['score'], '{:.4f}')}"
    return [
        ("val loss", loss),
        ("score", score),
        ("by new seeds", number(known["confirmed"], "{:.4f}")),
        ("similarity", number(known["similarity"], "{:.4f}")),
        ("chrF", number(known["chrf"], "{:.1f}")),
        ("BLEU", number(known["bleu"], "{:.1f}")),
        ("faulty answers", faults_text(known["faults"])),
        ("tokens per s", number(known["tokens_per_s"], "{:.0f}")),
        ("peak GB", number(known["peak_memory_bytes"], "{:.2f}", 1e-9)),
        ("process GB", number(known["footprint_bytes"], "{:.2f}", 1e-9)),
        ("time", "" if known["time_s"] is None else clock(known["time_s"])),
    ]


def _curves(described: Mapping[str, Any]) -> list[Series]:
    """The plot of losses: this trial's above the best trial's and the median."""
    best = described["best"]
    is_best = best is not None and str(best["trial"]) == described["label"]
    curves = [Series("median val", _points(described["median_evaluations"]), "bright_black")]
    if best is not None and not is_best:
        curves.append(Series(f"best: trial {best['trial']}", _points(best["evaluations"]), "green"))
    return [
        *curves,
        Series("train", _points(described["train_losses"]), "blue"),
        Series("val", _points(described["evaluations"]), "bold yellow"),
    ]


def _points(losses: Mapping[int, float | None]) -> list[tuple[int, float]]:
    return [(int(step), loss) for step, loss in losses.items() if loss is not None]


class _LossPlot:
    """The plot with the terminal's width and characters."""

    def __init__(self, curves: Sequence[Series]) -> None:
        self._curves = curves

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _WIDEST_PLOT)
        lines = plot(self._curves, width, _PLOT_HEIGHT, options.ascii_only)
        for line in lines or [Text("No losses yet.", style="dim")]:
            line.no_wrap = True
            yield line


def _samples_table(samples: Sequence[Mapping[str, Any]]) -> Table:
    table = make_table("~Source | ~Reference | ~Untuned | ~Trial | >score", lines=True)
    table.title = "The first validation prompts"
    for sample in samples:
        keys = ("source", "reference", "base_output", "output")
        texts = (escape(shorten(sample[key] or "", LONGEST_SAMPLE)) for key in keys)
        table.add_row(*texts, f"{sample.get('score', sample['similarity']):.3f}")
    return table


def _tokens_table(tokens: Sequence[Mapping[str, Any]]) -> Table:
    title = "The hardest tokens of the validation answers, by loss, in brackets in their sentence"
    table = make_table(">loss | ~Answer | Record", dropped=("Record",), lines=True)
    table.title, table.show_lines = title, False
    for each in tokens:
        text = Text(each["before"][-_AROUND:])
        text.append(f"[{each['token']}]", "bold red")
        text.append(each["after"][:_AROUND])
        file_and_line = each["where"].rpartition("/")[2]
        table.add_row(f"{each['loss']:.2f}", text, file_and_line)
    return table


def _examples_table(kind: str, examples: Sequence[Mapping[str, Any]]) -> Table:
    table = make_table("~Source | ~Reference | >loss", lines=True)
    table.title = f"The {kind} training examples, by the trial's loss"
    for example in examples:
        texts = (escape(shorten(example[key] or "")) for key in ("source", "reference"))
        table.add_row(*texts, f"{example['loss']:.3f}")
    return table
