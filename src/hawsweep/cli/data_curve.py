"""``hawsweep data-curve``."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hawsweep.cli.common import json_option, place_options, print_json
from hawsweep.cli.companion import run_companion
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:  # their import takes a second
    from optuna import Study

    from hawsweep.results.data_curve import Source


@click.command("data-curve")
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--sizes",
    metavar="SIZES",
    help="Numbers of training examples, such as 20,90,400; all are added. Default: up to five.",
)
@click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each size."
)
@click.option(
    "--sources",
    is_flag=True,
    help="Train on each data set of `data` alone too, and say what its records are worth.",
)
@click.option(
    "--trial",
    type=int,
    metavar="N",
    shell_complete=trial_completion,
    help="Train this trial's settings instead of the best one's.",
)
@click.option(
    "--study", "study_name", metavar="NAME", help="Name of the runs' study; default: NAME-sizes-N."
)
@click.option("--plain", is_flag=True, help="Print lines instead of a live picture.")
@json_option
@place_options
def data_curve(
    name: str,
    sizes: str | None,
    seeds: int,
    sources: bool,
    trial: int | None,
    study_name: str | None,
    plain: bool,
    place: Place,
    as_json: bool,
) -> None:
    """Train the best settings of the study NAME on parts of its data, and say how much is enough.

    The runs are trials of another study, NAME-sizes-N for the settings of trial N. The same command
    goes on with it, and shows the curve once they are done. The test split stays closed.

    \b
    Example: hawsweep data-curve lr-rank
             hawsweep data-curve lr-rank --sizes 20,90,400 --seeds 2
             hawsweep data-curve pairs --sources
    """
    from hawsweep.results.data_curve import (
        curve_name,
        curve_spec,
        n_measured,
        read_curve,
        sizes_of,
    )
    from hawsweep.results.data_sources import read_sources, sources_of
    from hawsweep.study.confirm import chosen_trial
    from hawsweep.study.storage import open_storage, study_names
    from hawsweep.study.study import load_study, spec_of
    from hawsweep.views.terminal.data_curve import curve_picture, sources_picture

    storage = open_storage(place)
    study = load_study(storage, name)
    chosen, asked = chosen_trial(study, trial), _sizes(sizes)
    study_name = study_name or curve_name(name, chosen.number)
    again = [name, f"--trial={chosen.number}", f"--seeds={seeds}", f"--study={study_name}"]
    again += ["--sources"] * sources
    data = spec_of(study, place=place).data

    def run(its_name: str, source: "Source | None" = None) -> "Study":
        known = asked is None and its_name in study_names(storage)
        sizes = sizes_of(load_study(storage, its_name)) if known else asked
        return run_companion(
            curve_spec(study, chosen, place, sizes, seeds, source),
            its_name,
            place,
            plain=plain,
            as_json=as_json,
            differs=f"Study {its_name!r} has other sizes or settings. Leave --sizes out to go on "
            "with it, or give the runs another study, --study NAME.",
            again=place.command("data-curve", *again),
        )

    found = sources_of(data, name) if sources else []
    for source in found:  # refused before anything is trained
        curve_spec(study, chosen, place, asked, seeds, source)
    whole = run(study_name)
    curve = read_curve(whole, name, chosen.number)
    told = None
    if sources:
        n_valid = n_measured(whole, place)
        runs = [
            run(f"{study_name}-{at}", replace(source, n_valid=n_valid))
            for at, source in enumerate(found, 1)
        ]
        counts = [source.n for source in found]
        told = read_sources(runs, whole, data, counts, name, chosen.number)
    if as_json:
        of_them = None if told is None else told.to_plain()
        print_json({**curve.to_plain(), "sources": of_them})
        return
    make_console().print(curve_picture(curve))
    if told is not None:
        make_console().print(sources_picture(told))


def _sizes(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise click.UsageError(f"--sizes is {text!r}, must be whole numbers such as 20,90,400.")
    return [int(part) for part in parts]
