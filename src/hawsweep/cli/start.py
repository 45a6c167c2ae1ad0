"""``hawsweep start``."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import place_options, plain_option, print_json_line
from hawsweep.cli.completion import sweep_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.running.start import Outcome
    from hawsweep.views.event_stream import EventStream
    from hawsweep.views.terminal.console import Console

study_option = click.option(
    "--study", "study_name", metavar="NAME", help="Name of the study; default: the sweep's."
)
events_option = click.option(
    "--json", "as_events", is_flag=True, help="Print a JSON object for each event, a line each."
)


@click.command()
@click.argument("name", shell_complete=sweep_completion)
@click.option(
    "--model",
    metavar="REF",
    help="Another model than the sweep's: a name, folder or Hugging Face repository.",
)
@click.option(
    "--data",
    metavar="REF",
    help="Other data than the sweep's: a name, folder, file or Hugging Face data set.",
)
@click.option(
    "--trials", metavar="N", help="Trials to finish, including earlier ones of the study."
)
@click.option("--timeout", metavar="TIME", help="Start no trial after this time: 90s, 20m, 8h.")
@click.option("--seed", metavar="N", help="Seed of the sampler and of the validation subset.")
@click.option("--workers", metavar="N", help="Processes that train at the same time.")
@study_option
@click.option(
    "--hosts",
    metavar="HOSTS",
    help="Run trials on these machines too, by ssh: names with commas between, or hosts.json.",
)
@click.option("--detach", is_flag=True, help="Run in the background, also after you log out.")
@click.option(
    "--accept-versions",
    is_flag=True,
    help="Go on with a study that other versions of libraries made.",
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
    help="Set any key of the sweep, such as train.batch_size=2.",
)
@plain_option
@events_option
@place_options
def start(
    name: str,
    study_name: str | None,
    settings: tuple[str, ...],
    notify: tuple[str, ...],
    hosts: str | None,
    detach: bool,
    accept_versions: bool,
    plain: bool,
    place: Place,
    as_events: bool,
    **given: str | None,
) -> None:
    """Run the sweep NAME, or go on with it.

    NAME is a file in sweeps/, a sweep that comes with hawsweep, or a path.

    \b
    Example: hawsweep start lr-rank --trials 20 --timeout 8h
    """
    if detach and as_events:
        raise click.UsageError("--json prints the events here: leave out --detach.")
    from hawsweep.running.hosts import read_hosts
    from hawsweep.running.start import run_sweep
    from hawsweep.spec.read import find_sweep, read_sweep, study_name_of

    path = find_sweep(name)
    spec = read_sweep(path, overrides_of(settings, given))
    study_name, console = study_name or study_name_of(path), make_console()
    known_hosts = read_hosts(hosts) if hosts else ()
    if detach:
        command = ["start", name, f"--study={study_name}", f"--studies-dir={place.studies_dir}"]
        command += asked_again(settings, given)
        command += ["--accept-versions"] * accept_versions
        command += [f"--hosts={hosts}"] * bool(hosts)
        _start_detached(console, command, study_name, place, notify)
        return
    run = partial(
        run_sweep,
        spec,
        study_name,
        studies_dir=place.studies_dir,
        storage=place.storage_url,
        notify=notify or None,
        accept_versions=accept_versions,
        hosts=known_hosts,
    )
    if as_events:
        with events_on_stdout(study_name) as stream:
            outcome = run(on_event=stream)
            stream.end(outcome)
    else:
        from hawsweep.views.terminal.live import SweepDisplay

        with SweepDisplay(console, spec.trials, plain=plain) as display:
            outcome = run(on_event=display)
        _print_end(console, outcome)
    if outcome.ended == "interrupted":
        sys.exit(130)


@contextmanager
def events_on_stdout(study_name: str) -> Iterator["EventStream"]:
    """Print events as JSON; all else that is printed meanwhile goes to standard error."""
    from hawsweep.errors import HawsweepError
    from hawsweep.views.event_stream import EventStream

    stream = EventStream(partial(print_json_line, file=sys.stdout))
    with redirect_stdout(sys.stderr):
        stream.begin(study_name)
        try:
            yield stream
        except HawsweepError as fault:
            stream.tell("error", message=str(fault))
            raise


def _start_detached(
    console: "Console",
    command: list[str],
    study_name: str,
    place: Place,
    notify: Sequence[str],
) -> None:
    from hawsweep.running.background import start_detached

    with console.status("starting"):
        pid, log = start_detached(command, study_name, place, notify)
    for line in (
        f"Study {study_name} runs in the background as process {pid}.",
        f"Watch it    {place.command('status', study_name, '--watch')}",
        f"Stop it     {place.command('stop', study_name)}",
        f"Its output is in {log}",
    ):
        console.say(line, soft_wrap=True)


def _print_end(console: "Console", outcome: "Outcome") -> None:
    from hawsweep.results.study_results import end_of_study
    from hawsweep.views.terminal.tables import end_picture

    with outcome.presence.noticed():
        end = end_of_study(outcome.study, outcome.place)
    console.print(end_picture(end, outcome.ended, console.width))


def asked_again(settings: Sequence[str], given: Mapping[str, str | None]) -> list[str]:
    """The options of a command that have these overrides."""
    options = [f"--{key}={value}" for key, value in given.items() if value is not None]
    return options + [f"--set={each}" for each in settings]


def overrides_of(settings: Sequence[str], given: Mapping[str, str | None]) -> dict[str, Any]:
    """The keys that options set. Names are taken as they are; all other values are YAML."""
    from hawsweep.spec.read import parse_override

    names = {key: given[key] for key in ("model", "data") if given.get(key) is not None}
    others = (f"{key}={value}" for key, value in given.items() if key not in names and value)
    return {**names, **dict(parse_override(text) for text in (*others, *settings))}
