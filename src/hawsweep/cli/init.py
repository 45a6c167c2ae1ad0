"""``hawsweep init``."""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import json_option, print_json
from hawsweep.units import parse_duration
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.prepare.draft import Draft


class _Hours(click.FloatRange):
    """A number of hours, or a time such as ``8h`` or ``90m``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value)[-1:].isalpha():
            with suppress(ValueError):
                value = parse_duration(value) / 3600
        return super().convert(value, param, ctx)


@click.command()
@click.argument("name", required=False)
@click.option("--data", required=True, metavar="REF", help="A name, folder, file or HF data set.")
@click.option("--model", required=True, metavar="REF", help="A name, folder or HF repository.")
@click.option(
    "--hours",
    type=_Hours(min=0, max=24 * 365, min_open=True),
    default=8.0,
    show_default=True,
    help="Hours that the sweep may take.",
)
@click.option("--source", metavar="COLUMN", help="The table's column to translate from.")
@click.option("--target", metavar="COLUMN", help="The table's column to translate to.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Default: sweeps/NAME.yaml.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def init(
    name: str | None,
    data: str,
    model: str,
    hours: float,
    source: str | None,
    target: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Examine the data and the machine, and write a sweep that fits the time: sweeps/NAME.yaml.

    Without NAME the sweep has the data's name.

    \b
    Example: hawsweep init pairs --data pairs.csv --model mlx-community/gemma-3-4b-it-4bit --hours 8
             hawsweep init try --data phrasebook --model smollm2-135m-instruct --hours 0.5
    """
    from hawsweep.prepare.draft import check_free, draft_sweep, write_draft
    from hawsweep.study.place import check_name

    name = name or (output.stem if output else Path(data.rstrip("/")).stem)
    name = name.removesuffix(".yaml").removesuffix(".yml")
    name = check_name(name)
    path = output or Path("sweeps") / f"{name}.yaml"
    check_free(path, force=force)
    console = make_console(stderr=as_json)
    with console.status("reading the data") as spinner:
        draft = draft_sweep(
            model, data, hours, source=source, target=target, progress=spinner.update
        )
    write_draft(draft, path, force=force)
    if as_json:
        print_json(_plain_draft(draft, path))
        return
    from hawsweep.views.terminal.sweep_file import draft_picture

    is_named = output is None or (path.parent == Path("sweeps") and path.suffix == ".yaml")
    console.print(draft_picture(draft, str(path), name if is_named else str(path), hours))


def _plain_draft(draft: "Draft", path: Path) -> dict[str, Any]:
    return {
        "path": str(path),
        "spec": draft.spec.model_dump(mode="json", exclude_unset=True),
        "reasons": dict(draft.reasons),
        "warnings": list(draft.warnings),
        "splits": {name: asdict(each) for name, each in draft.view.splits.items()},
        "leaks": [asdict(each) for each in draft.view.leaks],
        "columns": None if draft.columns is None else asdict(draft.columns),
        "timing": {**asdict(draft.timing), "total_s": draft.timing.total_s},
    }
