"""Commands that show studies, trials, and what their scores allow to say."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.columns import item_records, system_records, trial_records
from hawsweep.cli.common import (
    csv_option,
    json_option,
    make_console,
    place_options,
    plain_option,
    print_csv,
    print_json,
)
from hawsweep.cli.completing import study_completion, trial_completion

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hawsweep.overview import Onlooker
    from hawsweep.study import Place


@click.command("list")
@json_option
@csv_option
@place_options
def list_studies(place: "Place", as_json: bool, as_csv: bool) -> None:
    """List the studies and the sweeps that can be started.

    \b
    Example: hawsweep list --json
    """
    from hawsweep.leaderboard import list_studies
    from hawsweep.study import open_storage
    from hawsweep.sweepfile import sweep_names

    path = place.database_path
    studies = [] if path is not None and not path.exists() else list_studies(open_storage(place))
    sweeps = {name: str(path) for name, path in sweep_names().items()}
    if as_json:
        print_json({"studies": studies, "sweeps": sweeps})
        return
    if as_csv:
        print_csv(studies)
        return
    from hawsweep.display.tables import studies_table

    console = make_console()
    console.print(
        studies_table(studies) if studies else "No studies yet. Start one: hawsweep start lr-rank"
    )
    console.print(f"Sweeps: {', '.join(sorted(sweeps))}", style="dim")


@click.command()
@click.argument("name", required=False, shell_complete=study_completion)
@click.option("--why", is_flag=True, help="Also which settings mattered.")
@click.option("--groups", "by_group", is_flag=True, help="Also base and winner by group.")
@click.option("--all", "show_all", is_flag=True, help="Every trial, not only the best 30.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks of --watch.",
)
@plain_option
@json_option
@csv_option
@place_options
def status(
    name: str | None,
    why: bool,
    by_group: bool,
    show_all: bool,
    watch: bool,
    interval: float,
    plain: bool,
    place: "Place",
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show the trials of the study NAME, best first, and what is left; of the newest without NAME.

    \b
    Example: hawsweep status lr-rank --why
             hawsweep status --watch
    """
    if watch and (as_json or as_csv):
        raise click.UsageError("--watch shows a picture: leave out --json and --csv.")
    from hawsweep.overview import Onlooker

    onlooker = Onlooker(place, name, why=why, by_group=by_group)
    if as_json:
        print_json(onlooker.look().to_plain())
        return
    if as_csv:
        print_csv(trial_records(onlooker.look().rows))
        return
    console = make_console()
    if watch:
        _watch(console, onlooker, place, interval, plain=plain)
        return
    from hawsweep.display.tables import MOST_ROWS, status_picture

    most = None if show_all else MOST_ROWS
    console.print(status_picture(onlooker.look(), console.width, most))


def _watch(
    console: "Console", onlooker: "Onlooker", place: "Place", interval: float, *, plain: bool
) -> None:
    from hawsweep.display.watching import watch_status, watched_picture
    from hawsweep.doctor import check_readable

    is_screen = console.is_terminal and not plain

    def draw() -> "RenderableType":
        check_readable(place)
        return watched_picture(onlooker.look(), console, is_screen=is_screen)

    watch_status(console, draw, interval, plain=plain)


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.argument("trial", type=int, shell_complete=trial_completion)
@click.option(
    "--examples", is_flag=True, help="Also the training examples with the highest and lowest loss."
)
@json_option
@place_options
def show(name: str, trial: int, examples: bool, place: "Place", as_json: bool) -> None:
    """Show one TRIAL of the study NAME: settings, numbers, files, translations.

    \b
    Example: hawsweep show lr-rank 3 --examples
    """
    from hawsweep import leaderboard, study

    opened = study.read_trials(study.load_study(study.open_storage(place), name))
    described = leaderboard.describe_trial(opened, place, trial)
    if examples:
        from hawsweep.examples import hardest_and_easiest

        hardest, easiest = hardest_and_easiest(opened, place, trial, n_each=5)
        described["hardest_examples"] = [vars(example) for example in hardest]
        described["easiest_examples"] = [vars(example) for example in easiest]
    if as_json:
        print_json(described)
        return
    from hawsweep.display.trial import trial_picture

    console = make_console()
    console.print(trial_picture(described, console.width))


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--trial",
    "trials",
    type=int,
    multiple=True,
    metavar="N",
    shell_complete=trial_completion,
    help="One, or two.",
)
@click.option("--base", is_flag=True, help="Against the base, as without a second --trial.")
@click.option("--items", default=5, show_default=True, help="Items shown at each end.")
@json_option
@csv_option
@place_options
def compare(
    name: str,
    trials: tuple[int, ...],
    base: bool,
    items: int,
    place: "Place",
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show two answers to the same prompts of the study NAME, item by item.

    The best trial against the base; with one --trial that one; with two the second against the
    first.

    \b
    Example: hawsweep compare lr-rank --trial 3 --trial 7
    """
    if len(trials) > 2 or (base and len(trials) > 1):
        raise click.UsageError("Give at most two of --trial and --base.")
    from hawsweep import comparison, study

    opened = study.load_study(study.open_storage(place), name)
    first, second = (None, *trials)[-2:] if trials else (None, None)
    compared = comparison.compare(opened, place, first, second)
    if as_json:
        print_json(compared.to_plain())
        return
    if as_csv:
        print_csv(item_records(compared))
        return
    from hawsweep.display.judging import comparison_picture

    make_console().print(comparison_picture(compared, items))


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--source", metavar="COLUMN", default="source", show_default=True)
@click.option("--reference", metavar="COLUMN", default="reference", show_default=True)
@click.option("--model", metavar="MODEL", help="Instead of a file: let this model answer.")
@click.option("--adapter-path", type=click.Path(path_type=Path), help="With this adapter too.")
@click.option("--data", metavar="DATA", help="What the model answers.")
@click.option(
    "--split", type=click.Choice(["train", "valid", "test"]), default="test", show_default=True
)
@click.option(
    "--checkpoints",
    nargs=2,
    metavar="NAME TRIAL",
    help="Instead of a file: every checkpoint a trial kept.",
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
    place: "Place",
    as_json: bool,
    as_csv: bool,
    **scoring: Any,
) -> None:
    """Score without a sweep: each column of a CSV FILE, a model, or a trial's checkpoints.

    \b
    Example: hawsweep score predictions.csv --source Hawaiian --reference English
             hawsweep score --model smollm2-135m-instruct --data phrasebook
             hawsweep score --checkpoints lr-rank 3
    """
    if sum(each is not None for each in (file, model, checkpoints)) != 1:
        raise click.UsageError("Give one of FILE, --model and --checkpoints.")
    if model is not None and data is None:
        raise click.UsageError("--model needs --data.")
    from hawsweep import study, systems
    from hawsweep.sweepfile import check_scoring

    spec = check_scoring(scoring)
    console = make_console(stderr=as_json or as_csv)
    with console.status("scoring") as spinner:
        if file is not None:
            ranking = systems.score_file(file, source, reference, spec)
        elif checkpoints is not None:
            name, number = checkpoints
            if not number.isdecimal():
                raise click.UsageError(f"--checkpoints: TRIAL is {number!r}, must be a number.")
            opened = study.load_study(study.open_storage(place), name)
            ranking = systems.score_checkpoints(opened, place, int(number), spinner.update)
        else:
            assert model is not None
            assert data is not None
            ranking = systems.score_model(
                model, adapter_path, data, split, spec, progress=spinner.update
            )
    if as_json:
        print_json(ranking.to_plain())
        return
    if as_csv:
        print_csv(system_records(ranking))
        return
    from hawsweep.display.judging import ranking_picture

    console.print(ranking_picture(ranking))
