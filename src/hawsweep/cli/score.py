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
@click.option("--source", metavar="COLUMN", help="With the prompts; of FILE, source by default.")
@click.option(
    "--reference", metavar="COLUMN", help="With right answers; of FILE, reference by default."
)
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
@click.option(
    "--marks",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read answers that were marked right or wrong in a study's report.",
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
    source: str | None,
    reference: str | None,
    model: str | None,
    adapter_path: Path | None,
    data: str | None,
    split: str,
    checkpoints: tuple[str, str] | None,
    marks: Path | None,
    place: Place,
    as_json: bool,
    as_csv: bool,
    **scoring: Any,
) -> None:
    """Score without a sweep: each column of a table FILE, a model, or a trial's checkpoints.

    With --marks, tell how many answers a person marked right, and whether the score separates right
    from wrong.

    \b
    Example: hawsweep score predictions.csv --source Hawaiian --reference English
             hawsweep score --model smollm2-135m-instruct --data phrasebook
             hawsweep score --checkpoints lr-rank 3
             hawsweep score --marks lr-rank-marks.json
    """
    if sum(each is not None for each in (file, model, checkpoints, marks)) != 1:
        raise click.UsageError("Give one of FILE, --model, --checkpoints and --marks.")
    if (source or reference) and file is None and model is None:
        raise click.UsageError("--source and --reference go with FILE or --model.")
    if marks is not None:
        _score_marks(marks, place, as_json=as_json, as_csv=as_csv)
        return
    if model is not None and data is None:
        raise click.UsageError("--model needs --data.")
    from hawsweep.results.compare_systems import (
        data_to_score,
        score_checkpoints,
        score_file,
        score_model,
    )
    from hawsweep.spec.read import check_metric_options
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study

    spec = check_metric_options(scoring)
    console = make_console(stderr=as_json or as_csv)
    with console.status("scoring") as spinner:
        if file is not None:
            ranking = score_file(file, source or "source", reference or "reference", spec)
        elif checkpoints is not None:
            name, number = checkpoints
            if not number.isdecimal():
                raise click.UsageError(f"--checkpoints: TRIAL is {number!r}, must be a number.")
            study = load_study(open_storage(place), name)
            ranking = score_checkpoints(study, place, int(number), spinner.update)
        else:
            assert model is not None
            assert data is not None
            asked = data_to_score(data, adapter_path or Path(model), source, reference)
            ranking = score_model(model, adapter_path, asked, split, spec, spinner.update)
    if as_json:
        print_json(ranking.to_plain())
        return
    if as_csv:
        print_csv(system_records(ranking))
        return
    from hawsweep.views.terminal.verdict import ranking_picture

    console.print(ranking_picture(ranking))


def _score_marks(path: Path, place: Place, *, as_json: bool, as_csv: bool) -> None:
    if as_csv:
        raise click.UsageError("--marks has no table: leave out --csv.")
    from hawsweep.results.marks import read_marks, score_marks
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study

    marks = read_marks(path)
    marking = score_marks(load_study(open_storage(place), marks.study), place, marks)
    if as_json:
        print_json(marking.to_plain())
        return
    console = make_console()
    for sentence in marking.sentences():
        console.say(sentence)
