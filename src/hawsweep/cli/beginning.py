"""Commands for the first hour: a sweep for one's own data, what its keys mean, what is wrong."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import json_option, make_console, place_options
from hawsweep.cli.running import overrides_of

if TYPE_CHECKING:
    from hawsweep.drafting.draft import Draft
    from hawsweep.study import Place


@click.command()
@click.argument("key", required=False)
@json_option
def explain(key: str | None, as_json: bool) -> None:
    """Say what a KEY of a sweep means, its default, what it may be, and an example.

    A section, such as lr_schedule, or the last part of a name will do; without KEY all are listed.

    \b
    Example: hawsweep explain learning_rate
             hawsweep explain scoring
    """
    from hawsweep.reference import all_keys, find_keys

    found = all_keys() if key is None else find_keys(key)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
        return
    from hawsweep.display.beginning import key_picture, keys_picture

    make_console().print(key_picture(found[0]) if len(found) == 1 else keys_picture(found))


@click.command()
@click.argument("name", required=False)
@click.option("--data", required=True, metavar="REF", help="A name, folder, CSV or HF data set.")
@click.option("--model", required=True, metavar="REF", help="A name, folder or HF repository.")
@click.option(
    "--hours",
    type=click.FloatRange(min=0, max=24 * 365, min_open=True),
    default=8.0,
    show_default=True,
    help="When it is to be done.",
)
@click.option("--source", metavar="COLUMN", help="Of a CSV, to translate from.")
@click.option("--target", metavar="COLUMN", help="Of a CSV, to translate to.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="sweeps/NAME.yaml by default."
)
@click.option("--force", is_flag=True, help="Replace the file where it is there.")
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
    """Look at data and machine, and write a sweep that is done in time: sweeps/NAME.yaml.

    Without NAME it is called as the data.

    \b
    Example: hawsweep init pairs --data pairs.csv --model mlx-community/gemma-3-4b-it-4bit --hours 8
             hawsweep init try --data phrasebook --model smollm2-135m-instruct --hours 0.5
    """
    from hawsweep.drafting.draft import check_free, draft_sweep, write_draft
    from hawsweep.study import check_name

    name = name or (output.stem if output else Path(data.rstrip("/")).stem)
    check_name(name)
    path = output or Path("sweeps") / f"{name}.yaml"
    check_free(path, force=force)
    console = make_console(stderr=as_json)
    with console.status("looking at the data") as spinner:
        draft = draft_sweep(
            model, data, hours, source=source, target=target, progress=spinner.update
        )
    write_draft(draft, path, force=force)
    if as_json:
        click.echo(json.dumps(_plain_draft(draft, path), indent=2, ensure_ascii=False))
        return
    from hawsweep.display.beginning import draft_picture

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


@click.command()
@click.argument("name")
@click.option("--model", metavar="REF", help="Instead of the sweep's model.")
@click.option("--data", metavar="REF", help="Instead of the sweep's data.")
@click.option("--study", "study_name", metavar="NAME", help="Name of the study; the sweep's.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the sweep.")
@json_option
@place_options
def validate(
    name: str,
    study_name: str | None,
    settings: tuple[str, ...],
    place: "Place",
    as_json: bool,
    **given: str | None,
) -> None:
    """Check the sweep NAME, or a file: its keys, data, model, memory and time. Nothing is trained.

    All faults are said at once. Exit code 1 where `start` would fail.

    \b
    Example: hawsweep validate lr-rank
             hawsweep validate gemma-lr-rank --data pairs.csv --json
    """
    from hawsweep.errors import HawsweepError
    from hawsweep.findings import Finding, worst
    from hawsweep.rehearsal import rehearse
    from hawsweep.sweepfile import find_sweep, read_sweep

    console = make_console(stderr=as_json)
    try:
        path = find_sweep(name)
        spec = read_sweep(path, overrides_of(settings, given))
    except HawsweepError as fault:
        if not as_json:
            raise
        found = [Finding("sweep", "fault", str(fault))]
    else:
        with console.status("looking") as spinner:
            found = rehearse(spec, study_name or path.stem, place, spinner.update)
    state = worst(found)
    if as_json:
        plain = [each.to_plain() for each in found]
        click.echo(json.dumps({"is_valid": state != "fault", "findings": plain}, indent=2))
    else:
        from hawsweep.display.beginning import verdict_picture

        console.print(verdict_picture(name, found))
    if state == "fault":
        sys.exit(1)
