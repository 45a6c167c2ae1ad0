"""``hawsweep compare``."""

from dataclasses import asdict

import click

from hawsweep.cli.common import (
    csv_option,
    fetch_files,
    json_option,
    place_options,
    print_csv,
    print_json,
)
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.cli.csv_columns import item_records
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.argument("other", required=False, shell_complete=study_completion)
@click.option(
    "--trial",
    "trials",
    type=int,
    multiple=True,
    metavar="N",
    shell_complete=trial_completion,
    help="A trial to compare; give it once or twice.",
)
@click.option("--base", is_flag=True, help="Compare with the base; the default with one --trial.")
@click.option("--items", default=5, show_default=True, help="Items to show at each end.")
@json_option
@csv_option
@place_options
def compare(
    name: str,
    other: str | None,
    trials: tuple[int, ...],
    base: bool,
    items: int,
    place: Place,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compare two systems of the study NAME, or the winners of two studies: their answers to the
    same prompts.

    By default the best trial is compared with the base; with one --trial, that trial. With two,
    the second is compared with the first. The winner of OTHER is compared with that of NAME.

    \b
    Example: hawsweep compare lr-rank --trial 3 --trial 7
             hawsweep compare lr-rank lr-rank-more-data
    """
    if other is not None and (trials or base):
        raise click.UsageError(
            "Two studies are compared by their winners: leave out --trial and --base."
        )
    if len(trials) > 2 or (base and len(trials) > 1):
        raise click.UsageError("Give at most two of --trial and --base.")
    from hawsweep.results import compare_trials
    from hawsweep.results.compare_studies import compare_studies
    from hawsweep.study.storage import check_folder, open_storage
    from hawsweep.study.study import load_study

    storage = open_storage(place)
    studies = [load_study(storage, each) for each in (name, other) if each is not None]
    for each in studies:
        check_folder(each, place)
        fetch_files(each, place, *(trials or (None,)))
    if other is not None:
        compared = compare_studies(studies[0], studies[1], place)
    else:
        first, second = (None, *trials)[-2:] if trials else (None, None)
        compared = compare_trials.compare(studies[0], place, first, second)
    if as_json:
        print_json(asdict(compared))
        return
    if as_csv:
        print_csv(item_records(compared))
        return
    from hawsweep.views.terminal.verdict import comparison_picture

    make_console().print(comparison_picture(compared, items))
