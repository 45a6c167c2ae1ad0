"""Sweep files in the terminal: keys, a drafted sweep, the faults of a sweep."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from hawsweep.planning.disk_space import bytes_to_write
from hawsweep.text import counted, duration
from hawsweep.views.terminal.doctor import findings_table
from hawsweep.views.terminal.fitted_table import make_table
from hawsweep.views.terminal.style import make_grid
from hawsweep.views.terminal.text import Text

if TYPE_CHECKING:
    from hawsweep.prepare.draft import Draft
    from hawsweep.prepare.finding import Finding
    from hawsweep.prepare.inspect_data import DataView
    from hawsweep.spec.reference import Key


# The keys of a drafted sweep to show.
_SHOWN = (
    "trials",
    "train.iters",
    "train.steps_per_eval",
    "train.batch_size",
    "train.num_layers",
    "train.max_seq_length",
    "search.learning_rate",
    "search.lora_parameters.rank",
    "validation.max_examples",
    "scoring.max_examples",
    "scoring.max_tokens",
    "confirm.top",
    "timeout",
)


def key_picture(key: "Key") -> RenderableType:
    """One key: its meaning, allowed values, and an example."""
    facts = {
        "allowed": _plain(key.allowed),
        "default": "required" if key.is_required else key.default or "not set",
        "known from": _plain(key.source),
        "example": key.example,
        "searched": key.search_example or "cannot be searched",
    }
    rows = [(title, Text(value, overflow="fold")) for title, value in facts.items() if value]
    return Group(
        Text(key.name, style="bold cyan"),
        Padding(Text(key.meaning), (0, 2)),
        Padding(make_grid(rows, "bold", "", gap=3), (0, 2)),
    )


def keys_picture(keys: Sequence["Key"]) -> RenderableType:
    """Keys by their sections."""
    parts: list[RenderableType] = []
    groups: dict[str, list[Key]] = {}
    for key in keys:
        groups.setdefault(key.group, []).append(key)
    for group, found in groups.items():
        table = make_table(f"{group or 'of the sweep itself'} | | ~default | ~meaning")
        for key in found:
            default = "required" if key.is_required else key.default
            is_searched = "~" if key.search_example else ""
            name = key.name.removeprefix(f"{group}.")
            cells = (Text(is_searched, "green"), Text(default, "dim"), Text(key.meaning))
            table.add_row(f"  {name}", *cells)
        parts += ["", table]
    legend = "~: can be searched. More: hawsweep explain KEY"
    return Group(*parts[1:], "", Text(legend, style="dim"))


def draft_picture(draft: "Draft", path: str, name: str, hours: float) -> RenderableType:
    """The facts found, the choices and their reasons, the time, and the next commands."""
    saw = Table.grid(padding=(0, 2, 0, 0))
    saw.add_column(style="bold", no_wrap=True)
    saw.add_column()
    for title, text in _seen(draft):
        saw.add_row(title, Text(text))
    decided = Table.grid(padding=(0, 2, 0, 0))
    decided.add_column(style="bold", no_wrap=True)
    decided.add_column(no_wrap=True)
    decided.add_column(style="dim")
    for key, value in _decided(draft).items():
        short = key if key.startswith(("validation.", "scoring.", "confirm.")) else None
        decided.add_row(
            short or key.rpartition(".")[2], Text(value), Text(draft.reasons.get(key, ""))
        )
    parts: list[RenderableType] = [Text("Found", style="bold cyan"), Padding(saw, (0, 2)), ""]
    parts += [Text("Decided", style="bold cyan"), Padding(decided, (0, 2)), ""]
    if draft.warnings:
        parts.append(Text("Warnings", style="bold yellow"))
        minded = make_grid((("-", Text(each)) for each in draft.warnings), gap=1)
        parts += [Padding(minded, (0, 2)), ""]
    return Group(*parts, *_ending(draft, path, name, hours))


def _seen(draft: "Draft") -> list[tuple[str, str]]:
    view, plan = draft.view, draft.plan
    counts = ", ".join(f"{each.n_records} {name}" for name, each in view.splits.items())
    rows = [("data", f"{', '.join(each.path for each in draft.spec.data)}: {counts}")]
    if draft.columns is not None:
        rows.append(("columns", str(draft.columns)))
    rows.append(("lengths", lengths_text(view)))
    known = plan.memory
    rows.append(
        (
            "model",
            f"{draft.spec.model}: {known.shape.weight_bytes() / 1e9:.2f} GB, memory "
            f"within {known.error:.0%}: {known.how}",
        )
    )
    rows.append(
        (
            "machine",
            f"{known.device}, {counted(plan.n_workers, 'worker')}; "
            f"{plan.budget.total_bytes / 1e9:.1f} GB: {plan.budget.how}",
        )
    )
    written = bytes_to_write(draft.spec, known, plan.n_workers)
    rows.append(("disk", f"up to {written / 1e9:.1f} GB are written while it runs"))
    rows.append(("speed", f"{plan.smallest.tokens_per_s:.0f} tokens a second, {known.speed.how}"))
    return rows


def lengths_text(view: "DataView") -> str:
    """``9 to 55 tokens, 42 in the mean, by the model's tokenizer``."""
    lengths = view.lengths
    return (
        f"{int(lengths.min())} to {int(lengths.max())} tokens, {lengths.mean():.0f} in the mean, "
        f"{view.how}"
    )


def _decided(draft: "Draft") -> dict[str, str]:
    spec, found = draft.spec, {}
    content = spec.model_dump(mode="json")
    for key in _SHOWN:
        if key.startswith("search."):
            asked = content["search"][key.removeprefix("search.")]
            found[key] = (
                ", ".join(map(str, asked["choices"]))
                if "choices" in asked
                else f"{asked['low']:.1e} to {asked['high']:.1e}"
            )
            continue
        value = content
        for part in key.split("."):
            value = value[part]
        found[key] = duration(float(str(value))) if key == "timeout" else str(value)
    return found


def _ending(draft: "Draft", path: str, name: str, hours: float) -> list[RenderableType]:
    timing = draft.timing
    text = Text.assemble("Wrote ", (path, "bold"), ". ")
    text.append(
        f"Expected to end after {duration(timing.total_s)} of the {duration(hours * 3600)}: start "
        f"{duration(timing.start_s)}, base and trials {duration(timing.trials_s)} "
        f"({duration(timing.trial_s)} each that is trained whole), new seeds "
        f"{duration(timing.again_s)}, test {duration(timing.test_s)}."
    )
    commands = {
        ("plan", name, "--all"): "what fits, setting by setting",
        ("start", name): "run it",
        ("validate", name): "after you changed it",
    }
    if not draft.plan.memory.is_calibrated:
        measure = {
            ("plan", name, "--calibrate"): "measure the speed here, then init again with --force"
        }
        commands = measure | commands
    rows = [(Text(shlex.join(["hawsweep", *each])), does) for each, does in commands.items()]
    return [text, Padding(make_grid(rows, "bold", "dim", gap=3), (0, 2))]


def verdict_picture(findings: Sequence["Finding"], start: str, preview: str) -> RenderableType:
    """The findings on a sweep, and whether it can be started, by the command ``start``; else the
    one that shows its records.
    """
    n_faults = sum(each.state == "fault" for each in findings)
    n_warnings = sum(each.state == "warning" for each in findings)
    if n_faults:
        end = Text(f"{counted(n_faults, 'fault')}: start would fail.", style="red")
    else:
        mind = f", with {counted(n_warnings, 'warning')}" if n_warnings else ""
        end = Text(f"It can be started{mind}: {start}", style="green")
    parts: list[RenderableType] = [findings_table(findings), "", end]
    if n_faults or n_warnings:
        parts.append(Text(f"The records as the model sees them: {preview}", style="dim"))
    return Group(*parts)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")
