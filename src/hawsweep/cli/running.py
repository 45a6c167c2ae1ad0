"""Commands that run a sweep, or say what it would take."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import (
    json_option,
    make_console,
    place_options,
    plain_option,
    print_json,
)
from hawsweep.cli.completing import study_completion, sweep_completion

if TYPE_CHECKING:
    from hawsweep.backend import Device

    from rich.console import Console

    from hawsweep.spec import SweepSpec
    from hawsweep.starting import Outcome
    from hawsweep.study import Place


@click.command()
@click.argument("name", shell_complete=sweep_completion)
@click.option(
    "--model",
    metavar="REF",
    help="Instead of the sweep's model: a name, folder or Hugging Face repository.",
)
@click.option(
    "--data",
    metavar="REF",
    help="Instead of the sweep's data: a name, folder, CSV or Hugging Face data set.",
)
@click.option("--trials", metavar="N", help="Trials to finish, counting those finished before.")
@click.option("--timeout", metavar="TIME", help="Start no trial after this time: 90s, 20m, 8h.")
@click.option("--seed", metavar="N", help="Seed of the sampler and of the validation subset.")
@click.option("--workers", metavar="N", help="Processes that train at the same time.")
@click.option(
    "--study", "study_name", metavar="NAME", help="Name of the study; the sweep's by default."
)
@click.option("--detach", is_flag=True, help="Go on in the background, also after logging out.")
@click.option(
    "--accept-versions", is_flag=True, help="Go on with a study that other versions made."
)
@click.option(
    "--notify",
    metavar="ADDRESS",
    multiple=True,
    help="An apprise URL such as ntfy://TOPIC, or a command, instead of HAWSWEEP_NOTIFY.",
)
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the sweep, such as train.batch_size=2.",
)
@plain_option
@place_options
def start(
    name: str,
    study_name: str | None,
    settings: tuple[str, ...],
    notify: tuple[str, ...],
    detach: bool,
    accept_versions: bool,
    plain: bool,
    place: "Place",
    **given: str | None,
) -> None:
    """Run the sweep NAME, or go on with it.

    NAME is a file in sweeps/, a sweep that comes with hawsweep, or a path.

    \b
    Example: hawsweep start lr-rank --trials 20 --timeout 8h
    """
    from hawsweep.display.live import SweepDisplay
    from hawsweep.starting import run_sweep
    from hawsweep.sweepfile import find_sweep, read_sweep

    path = find_sweep(name)
    spec = read_sweep(path, overrides_of(settings, given))
    study_name, console = study_name or path.stem, make_console()
    if detach:
        command = ["start", name, f"--study={study_name}", f"--studies-dir={place.studies_dir}"]
        command += [f"--{key}={value}" for key, value in given.items() if value is not None]
        command += [f"--set={each}" for each in settings]
        command += ["--accept-versions"] * accept_versions
        _start_detached(console, command, study_name, place, notify)
        return
    with SweepDisplay(console, spec.trials, plain=plain) as display:
        outcome = run_sweep(
            spec,
            study_name,
            studies_dir=place.studies_dir,
            storage=place.storage_url,
            on_event=display,
            notify=notify or None,
            accept_versions=accept_versions,
        )
    _print_end(console, outcome)
    if outcome.ended == "interrupted":
        sys.exit(130)


def _start_detached(
    console: "Console",
    command: list[str],
    study_name: str,
    place: "Place",
    notify: Sequence[str],
) -> None:
    from hawsweep.detaching import start_detached

    with console.status("starting"):
        pid, log = start_detached(command, study_name, place, notify)
    console.print(
        f"Study [bold]{study_name}[/bold] runs in the background as process {pid}.\n"
        f"Look in     hawsweep status {study_name} --watch\n"
        f"Stop it     hawsweep stop {study_name}\n"
        f"What it says is in {log}",
        highlight=False,
    )


def _print_end(console: "Console", outcome: "Outcome") -> None:
    from hawsweep.display.tables import end_picture
    from hawsweep.leaderboard import end_of_study

    end = end_of_study(outcome.study, outcome.place)
    console.print(end_picture(end, outcome.ended, console.width))


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--now", is_flag=True, help="Do not wait for the current evaluation to end.")
@place_options
def stop(name: str, now: bool, place: "Place") -> None:
    """Stop the study NAME, wherever it was started; `hawsweep start` goes on with it.

    \b
    Example: hawsweep stop lr-rank
    """
    from hawsweep.starting import ask_to_stop

    console = make_console()
    with console.status("stopping: trials save what they reached") as spinner:
        was_run = ask_to_stop(name, place, spinner.update, now=now)
    console.print(
        f"Stopped. To go on: hawsweep start {name}"
        if was_run
        else f"Nobody on this machine runs study {name!r}; on others it stops shortly.",
        highlight=False,
    )


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option("--workers", type=click.IntRange(1, 64), help="As many as make it faster by default.")
@plain_option
@place_options
def worker(name: str, workers: int | None, plain: bool, place: "Place") -> None:
    """Run trials of the study NAME here too, beside whoever started it.

    On another machine give the shared database with --storage.

    \b
    Example: hawsweep worker lr-rank --workers 2
    """
    from hawsweep.display.live import SweepDisplay
    from hawsweep.starting import join_sweep
    from hawsweep.study import load_study, open_storage, spec_of

    n_trials = spec_of(load_study(open_storage(place), name)).trials
    with SweepDisplay(make_console(), n_trials, plain=plain) as display:
        outcome = join_sweep(name, place, display, workers or "auto")
    if outcome.ended == "interrupted":
        sys.exit(130)


@click.command()
@click.argument("name", shell_complete=sweep_completion)
@click.option("--ram", metavar="SIZE", help="Plan for another machine with so much memory: 32GB.")
@click.option("--model", metavar="REF", help="Instead of the sweep's model; it need not be here.")
@click.option("--data", metavar="REF", help="Instead of the sweep's data.")
@click.option(
    "--data-pairs",
    type=click.IntRange(1, 10**7),
    metavar="N",
    help="Plan for so many examples, all as long as --max-seq-length.",
)
@click.option("--max-seq-length", type=click.IntRange(8, 2**24), metavar="N", help="In tokens.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "metal", "cuda"]),
    help="What it would run on; this machine's by default, metal with --ram.",
)
@click.option(
    "--calibrate", is_flag=True, help="Measure the model here first, and show how well it fits."
)
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any key of the sweep.")
@json_option
def plan(
    name: str,
    ram: str | None,
    data_pairs: int | None,
    max_seq_length: int | None,
    device: "Device | None",
    calibrate: bool,
    settings: tuple[str, ...],
    as_json: bool,
    **given: str | None,
) -> None:
    """Show what of the sweep NAME fits into memory, how, and how long it takes.

    \b
    Example: hawsweep plan lr-rank --ram 32GB --model mlx-community/gemma-3-4b-it-4bit
    """
    from hawsweep import sweepplan
    from hawsweep.sweepfile import find_sweep, read_sweep
    from hawsweep.timing import plans_to_plain, time_plan

    spec = read_sweep(find_sweep(name), overrides_of(settings, given))
    console = make_console(stderr=as_json)
    measured = _calibrate(spec, console) if calibrate else {}
    planned = sweepplan.plan_models(
        spec, ram=ram, data_pairs=data_pairs, max_seq_length=max_seq_length, device=device
    )
    timed = [(each, time_plan(each, data_pairs) if each.fits else None) for each in planned]
    if as_json:
        print_json(plans_to_plain(timed))
        return
    from hawsweep.display.plan import plans_picture, residuals_table

    for model, residuals in measured.items():
        console.print(*([model] if spec.searches_models else []), residuals_table(residuals), "")
    console.print(plans_picture(timed))


def overrides_of(settings: Sequence[str], given: Mapping[str, str | None]) -> dict[str, Any]:
    """What options ask for: names as they are, other values and ``--set`` as YAML."""
    from hawsweep.sweepfile import parse_override

    names = {key: given[key] for key in ("model", "data") if given.get(key) is not None}
    others = (f"{key}={value}" for key, value in given.items() if key not in names and value)
    return {**names, **dict(parse_override(text) for text in (*others, *settings))}


def _calibrate(spec: "SweepSpec", console: "Console") -> dict[str, list[Any]]:
    from hawsweep import calibration, memory, models

    found = {}
    with console.status("measuring training steps") as spinner:
        budget = memory.find_budget(
            spec.memory.budget, spec.memory.reserve, machine=memory.this_machine()
        )
        for model in spec.models:
            path = models.resolve_model(model, spinner.update)
            _, found[model] = calibration.calibrate(
                path, spinner.update, budget_bytes=budget.total_bytes
            )
    return found
