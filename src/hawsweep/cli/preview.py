"""``hawsweep preview``."""

from dataclasses import asdict

import click

from hawsweep.cli.common import json_option, print_json, settings_option
from hawsweep.cli.completion import sweep_completion
from hawsweep.cli.start import overrides_of
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", required=False, shell_complete=sweep_completion)
@click.option("--data", metavar="REF", help="Show this data instead of the sweep's.")
@click.option("--model", metavar="REF", help="As this model sees it instead of the sweep's.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help="Only this split.")
@click.option(
    "-n",
    "n_each",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="How many records of each split.",
)
@click.option("--record", metavar="FILE:LINE", help="Only this record, such as train.jsonl:7.")
@settings_option
@json_option
def preview(
    name: str | None,
    split: str | None,
    n_each: int,
    record: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    **given: str | None,
) -> None:
    """Show records as the model sees them: the prompt, what is learned, what ends an answer.

    NAME is a sweep or a file; without it, give --data and --model. No weights are read.

    \b
    Example: hawsweep preview lr-rank
             hawsweep preview --data pairs.csv --model mlx-community/gemma-3-4b-it-4bit
             hawsweep preview lr-rank --record train.jsonl:7 --json
    """
    from hawsweep.prepare.inspect_data import SPLITS
    from hawsweep.prepare.preview import preview as see
    from hawsweep.prepare.preview import sweep_of
    from hawsweep.spec.read import find_sweep, read_sweep

    if name is None and not (given["data"] and given["model"]):
        raise click.UsageError("Give the NAME of a sweep, or --data and --model.")
    overrides = overrides_of(settings, given)
    spec = sweep_of(overrides) if name is None else read_sweep(find_sweep(name), overrides)
    with make_console(stderr=True).status("looking") as spinner:
        found = see(
            spec,
            splits=(split,) if split else SPLITS,
            n_each=n_each,
            record=record,
            progress=spinner.update,
        )
    if as_json:
        print_json(asdict(found))
        return
    from hawsweep.views.terminal.preview import preview_picture

    make_console().print(preview_picture(found))
