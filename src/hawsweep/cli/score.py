"""``hawsweep score``."""

from pathlib import Path
from typing import Any

import click

from hawsweep.cli.common import csv_option, json_option, place_options, print_csv, print_json
from hawsweep.cli.csv_columns import system_records
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--source", metavar="COLUMN", default="source", show_default=True)
@click.option("--reference", metavar="COLUMN", default="reference", show_default=True)
@click.option("--model", metavar="MODEL", help="Score this model's answers instead of a file.")
@click.option(
    "--adapter-path", type=click.Path(path_type=Path), help="Load the model with this adapter."
)
@click.option("--data", metavar="DATA", help="The prompts for the model.")
@click.option(
    "--split", type=click.Choice(["train", "valid", "test"]), default="test", show_default=True
)
@click.option(
    "--checkpoints",
    nargs=2,
    metavar="NAME TRIAL",
    help="Score each kept checkpoint of a trial instead of a file.",
)
@click.option("--max-examples", type=int, default=64, show_default=True)
@click.option("--max-tokens", type=int, default=128, show_default=True)
@click.option("--metric", default="semantic_similarity", show_default=True)
@click.option("--embedder", default="all-MiniLM-L6-v2", show_default=True)
@json_option
@csv_option
@place_options
def score(
    file: Path | None,
    source: str,
    reference: str,
    model: str | None,
    adapter_path: Path | None,
    data: str | None,
    split: str,
    checkpoints: tuple[str, str] | None,
    place: Place,
    as_json: bool,
    as_csv: bool,
    **scoring: Any,
) -> None:
    """Score without a sweep: each column of a table FILE, a model, or a trial's checkpoints.

    \b
    Example: hawsweep score predictions.csv --source Hawaiian --reference English
             hawsweep score --model smollm2-135m-instruct --data phrasebook
             hawsweep score --checkpoints lr-rank 3
    """
    if sum(each is not None for each in (file, model, checkpoints)) != 1:
        raise click.UsageError("Give one of FILE, --model and --checkpoints.")
    if model is not None and data is None:
        raise click.UsageError("--model needs --data.")
    from hawsweep.results.compare_systems import score_checkpoints, score_file, score_model
    from hawsweep.spec.read import check_metric_options
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study

    spec = check_metric_options(scoring)
    console = make_console(stderr=as_json or as_csv)
    with console.status("scoring") as spinner:
        if file is not None:
            ranking = score_file(file, source, reference, spec)
        elif checkpoints is not None:
            name, number = checkpoints
            if not number.isdecimal():
                raise click.UsageError(f"--checkpoints: TRIAL is {number!r}, must be a number.")
            study = load_study(open_storage(place), name)
            ranking = score_checkpoints(study, place, int(number), spinner.update)
        else:
            assert model is not None
            assert data is not None
            ranking = score_model(model, adapter_path, data, split, spec, spinner.update)
    if as_json:
        print_json(ranking.to_plain())
        return
    if as_csv:
        print_csv(system_records(ranking))
        return
    from hawsweep.views.terminal.verdict import ranking_picture

    console.print(ranking_picture(ranking))
