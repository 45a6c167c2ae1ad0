"""The command line: parse, one call into the core, print."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep import __version__
from hawsweep.errors import HawsweepError

if TYPE_CHECKING:
    from hawsweep.backend import Device

    from rich.console import Console, RenderableType

    from hawsweep.spec import SweepSpec
    from hawsweep.study import Place

Command = Callable[..., Any]


class _Group(click.Group):
    """Turns hawsweep's errors into one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HawsweepError as fault:
            click.echo(f"{click.style('Error:', fg='red')} {fault}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hawsweep")
def main() -> None:
    """Sweep the hyperparameters of LoRA fine-tuning with MLX.

    \b
    hawsweep start lr-rank     run a sweep, or go on with it
    hawsweep status lr-rank    its trials, best first
    hawsweep export lr-rank    the best adapter, checked
    """


def _complete_storage(ctx: click.Context, option: click.Parameter, url: str | None) -> str | None:
    if not url:
        return None
    from click.core import ParameterSource

    from hawsweep.credentials import refuse_shown_password, with_password

    if ctx.get_parameter_source(str(option.name)) == ParameterSource.COMMANDLINE:
        refuse_shown_password(url)
    return with_password(url)


def _place_options(command: Command) -> Command:
    @click.option(
        "--studies-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("studies"),
        envvar="HAWSWEEP_STUDIES_DIR",
        show_default=True,
        help="Where studies are kept.",
    )
    @click.option(
        "--storage",
        metavar="URL",
        envvar="HAWSWEEP_STORAGE",
        callback=_complete_storage,
        help="Another database: an Optuna RDB URL, without a password.",
    )
    @wraps(command)
    def with_place(*args: Any, studies_dir: Path, storage: str | None, **kwargs: Any) -> Any:
        from hawsweep.study import Place

        return command(*args, place=Place(studies_dir, storage or None), **kwargs)

    return with_place


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@click.argument("name")
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
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any key of the sweep, such as train.batch_size=2.",
)
@_place_options
def start(
    name: str,
    study_name: str | None,
    settings: tuple[str, ...],
    detach: bool,
    accept_versions: bool,
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
    spec = read_sweep(path, _overrides(settings, given))
    study_name, console = study_name or path.stem, _console()
    if detach:
        command = ["start", name, f"--study={study_name}", f"--studies-dir={place.studies_dir}"]
        command += [f"--{key}={value}" for key, value in given.items() if value is not None]
        command += [f"--set={each}" for each in settings]
        command += ["--accept-versions"] * accept_versions
        _start_detached(console, command, study_name, place)
        return
    with SweepDisplay(console, spec.trials) as display:
        outcome = run_sweep(spec, study_name, place, display, accept_versions=accept_versions)
    _print_end(console, outcome, place)
    if outcome.ended == "interrupted":
        sys.exit(130)


def _start_detached(
    console: "Console", command: list[str], study_name: str, place: "Place"
) -> None:
    from hawsweep.detaching import start_detached

    with console.status("starting"):
        pid, log = start_detached(command, study_name, place)
    console.print(
        f"Study [bold]{study_name}[/bold] runs in the background as process {pid}.\n"
        f"Look in     hawsweep status {study_name} --watch\n"
        f"Stop it     hawsweep stop {study_name}\n"
        f"What it says is in {log}",
        highlight=False,
    )


@main.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="Do not wait for the current evaluation to end.")
@_place_options
def stop(name: str, now: bool, place: "Place") -> None:
    """Stop the study NAME, wherever it was started; `hawsweep start` goes on with it.

    \b
    Example: hawsweep stop lr-rank
    """
    from hawsweep.starting import ask_to_stop

    console = _console()
    with console.status("stopping: trials save what they reached") as spinner:
        was_run = ask_to_stop(name, place, spinner.update, now=now)
    console.print(
        f"Stopped. To go on: hawsweep start {name}"
        if was_run
        else f"Nobody on this machine runs study {name!r}; on others it stops shortly.",
        highlight=False,
    )


@main.command()
@click.argument("name")
@click.option("--workers", type=click.IntRange(1, 64), help="As many as make it faster by default.")
@_place_options
def worker(name: str, workers: int | None, place: "Place") -> None:
    """Run trials of the study NAME here too, beside whoever started it.

    On another machine give the shared database with --storage.

    \b
    Example: hawsweep worker lr-rank --workers 2
    """
    from hawsweep.display.live import SweepDisplay
    from hawsweep.starting import join_sweep
    from hawsweep.study import load_study, open_storage, spec_of

    n_trials = spec_of(load_study(open_storage(place), name)).trials
    with SweepDisplay(_console(), n_trials) as display:
        outcome = join_sweep(name, place, display, workers or "auto")
    if outcome.ended == "interrupted":
        sys.exit(130)


@main.command()
@click.argument("name")
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
@_json_option
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

    spec = read_sweep(find_sweep(name), _overrides(settings, given))
    console = _console(stderr=as_json)
    residuals = _calibrate(spec, console) if calibrate else []
    planned = sweepplan.plan_sweep(
        spec, ram=ram, data_pairs=data_pairs, max_seq_length=max_seq_length, device=device
    )
    if as_json:
        click.echo(json.dumps(sweepplan.to_plain(planned), indent=2))
        return
    from hawsweep.display.plan import plan_picture, residuals_table

    if residuals:
        console.print(residuals_table(residuals), "")
    console.print(plan_picture(planned))


def _overrides(settings: Sequence[str], given: Mapping[str, str | None]) -> dict[str, Any]:
    """What options ask for: names as they are, other values and ``--set`` as YAML."""
    from hawsweep.sweepfile import parse_override

    names = {key: given[key] for key in ("model", "data") if given.get(key) is not None}
    others = (f"{key}={value}" for key, value in given.items() if key not in names and value)
    return {**names, **dict(parse_override(text) for text in (*others, *settings))}


def _calibrate(spec: "SweepSpec", console: "Console") -> list[Any]:
    from hawsweep import calibration, memory, models

    with console.status("measuring training steps") as spinner:
        path = models.resolve_model(spec.model, spinner.update)
        budget = memory.find_budget(
            spec.memory.budget, spec.memory.reserve, machine=memory.this_machine()
        )
        _, residuals = calibration.calibrate(path, spinner.update, budget_bytes=budget.total_bytes)
    return residuals


@main.command("list")
@_json_option
@_place_options
def list_studies(place: "Place", as_json: bool) -> None:
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
        click.echo(json.dumps({"studies": studies, "sweeps": sweeps}, indent=2))
        return
    from hawsweep.display.tables import studies_table

    console = _console()
    console.print(
        studies_table(studies) if studies else "No studies yet. Start one: hawsweep start lr-rank"
    )
    console.print(f"Sweeps: {', '.join(sorted(sweeps))}", style="dim")


@main.command()
@click.argument("name", required=False)
@click.option("--why", is_flag=True, help="Also which settings mattered.")
@click.option("--groups", "by_group", is_flag=True, help="Also base and winner by group.")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks of --watch.",
)
@_json_option
@_place_options
def status(
    name: str | None,
    why: bool,
    by_group: bool,
    watch: bool,
    interval: float,
    place: "Place",
    as_json: bool,
) -> None:
    """Show the trials of the study NAME, best first; of the newest study without NAME.

    \b
    Example: hawsweep status lr-rank --why
             hawsweep status --watch
    """
    if watch and as_json:
        raise click.UsageError("--watch shows a picture: leave out --json.")
    if as_json:
        click.echo(json.dumps(_plain_status(_look_at(name, why, by_group, place)), indent=2))
        return
    from hawsweep.display.tables import status_picture

    console = _console()
    if not watch:
        console.print(status_picture(_look_at(name, why, by_group, place), console.width))
        return
    from hawsweep.display.watching import watch_status
    from hawsweep.doctor import check_readable

    def draw() -> "RenderableType":
        check_readable(place)
        return status_picture(_look_at(name, why, by_group, place), console.width)

    watch_status(console, draw, interval)


def _look_at(name: str | None, why: bool, by_group: bool, place: "Place") -> dict[str, Any]:
    """What ``status_picture`` shows."""
    from hawsweep import leaderboard, study
    from hawsweep.confirm import confirmations
    from hawsweep.importance import find_insight

    storage = study.open_storage(place)
    try:
        opened = study.load_study(storage, name or study.newest(storage))
        return {
            "study": opened.study_name,
            **{key: opened.user_attrs.get(key) for key in ("description", "test", "self_check")},
            "rows": leaderboard.leaderboard(opened),
            "verdict": leaderboard.judge_study(opened, place),
            "confirmed": confirmations(opened),
            "insight": find_insight(opened) if why else None,
            "groups": leaderboard.groups(opened, place) if by_group else None,
        }
    finally:  # who looks every two seconds must not keep a connection each time
        storage.remove_session()
        storage.engine.dispose()


def _plain_status(found: dict[str, Any]) -> dict[str, Any]:
    verdict, insight, groups = found["verdict"], found["insight"], found["groups"]
    return {
        **{key: found[key] for key in ("study", "test", "self_check")},
        "verdict": None if verdict is None else asdict(verdict),
        "confirmed": [asdict(each) for each in found["confirmed"]],
        **({} if insight is None else {"why": asdict(insight)}),
        **({} if groups is None else {"groups": [asdict(row) for row in groups]}),
        "trials": [vars(row) for row in found["rows"]],
    }


@main.command()
@click.argument("name")
@click.argument("trial", type=int)
@click.option(
    "--examples", is_flag=True, help="Also the training examples with the highest and lowest loss."
)
@_json_option
@_place_options
def show(name: str, trial: int, examples: bool, place: "Place", as_json: bool) -> None:
    """Show one TRIAL of the study NAME: settings, numbers, files, translations.

    \b
    Example: hawsweep show lr-rank 3 --examples
    """
    from hawsweep import leaderboard, study

    opened = study.load_study(study.open_storage(place), name)
    described = leaderboard.describe_trial(opened, place, trial)
    if examples:
        from hawsweep.examples import hardest_and_easiest

        hardest, easiest = hardest_and_easiest(opened, place, trial, n_each=5)
        described["hardest_examples"] = [vars(example) for example in hardest]
        described["easiest_examples"] = [vars(example) for example in easiest]
    if as_json:
        click.echo(json.dumps(described, indent=2, ensure_ascii=False))
        return
    from hawsweep.display.tables import trial_picture

    _console().print(trial_picture(described))


@main.command()
@click.argument("name")
@click.option("--trial", "trials", type=int, multiple=True, metavar="N", help="One, or two.")
@click.option("--base", is_flag=True, help="Against the base, as without a second --trial.")
@click.option("--items", default=5, show_default=True, help="Items shown at each end.")
@_json_option
@_place_options
def compare(
    name: str, trials: tuple[int, ...], base: bool, items: int, place: "Place", as_json: bool
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
        click.echo(json.dumps(compared.to_plain(), indent=2, ensure_ascii=False))
        return
    from hawsweep.display.judging import comparison_picture

    _console().print(comparison_picture(compared, items))


@main.command()
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
@_json_option
@_place_options
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
    console = _console(stderr=as_json)
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
        click.echo(json.dumps(ranking.to_plain(), indent=2, ensure_ascii=False))
        return
    from hawsweep.display.judging import ranking_picture

    console.print(ranking_picture(ranking))


@main.command()
@click.argument("name")
@click.option("--trial", "trial_number", type=int, metavar="N", help="Instead of the best trial.")
@click.option("--fuse", is_flag=True, help="Also write the fused model.")
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@_json_option
@_place_options
def export(
    name: str, trial_number: int | None, fuse: bool, force: bool, place: "Place", as_json: bool
) -> None:
    """Write the best adapter of the study NAME, checked by its translations.

    \b
    Example: hawsweep export lr-rank --fuse
    """
    from hawsweep.export import export_trial
    from hawsweep.study import load_study, open_storage

    console = _console(stderr=as_json)
    with console.status("exporting") as spinner:
        opened = load_study(open_storage(place), name)
        exported = export_trial(
            opened,
            place,
            trial_number=trial_number,
            fuse=fuse,
            force=force,
            progress=spinner.update,
        )
    if as_json:
        click.echo(json.dumps({**vars(exported), "folder": str(exported.folder)}, indent=2))
        return
    from hawsweep.display.tables import export_text

    console.print(export_text(exported, opened.user_attrs["spec"]["model"]), soft_wrap=True)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where others reach it, it asks for a token: HAWSWEEP_DASHBOARD_TOKEN or a new one.",
)
@click.option("--no-token", is_flag=True, help="Let everybody in who reaches HOST.")
@_place_options
def dashboard(port: int | None, host: str, no_token: bool, place: "Place") -> None:
    """Serve optuna-dashboard over the studies, on this machine only without --host.

    \b
    Example: hawsweep dashboard --port 8081
    """
    from hawsweep.dashboard import choose_token, is_loopback, serve

    if no_token and not is_loopback(host):
        click.echo(
            f"Warning: without a token anybody on the network who reaches {host} can change and "
            "delete the studies.",
            err=True,
        )
    token = None if no_token else choose_token(host)
    serve(
        place,
        host,
        port,
        token,
        lambda address: click.echo(f"optuna-dashboard: {address}  (Ctrl-C ends it)"),
    )


@main.command()
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make a new database out of the studies' folders, beside one that is lost.",
)
@_json_option
@_place_options
def doctor(rebuild: bool, place: "Place", as_json: bool) -> None:
    """Examine the database, and say what the studies' folders could give back.

    Exit code 1 where something is wrong.

    \b
    Example: hawsweep doctor --rebuild
    """
    from hawsweep import doctor

    found = doctor.examine_and_rebuild(place) if rebuild else doctor.examine(place)
    if as_json:
        click.echo(json.dumps(found.to_plain(), indent=2))
    else:
        from hawsweep.display.diagnosis import diagnosis_picture

        _console().print(diagnosis_picture(found), soft_wrap=True)
    if not (found.is_fine or found.rebuilt):
        sys.exit(1)


def _print_end(console: "Console", outcome: Any, place: "Place") -> None:
    from hawsweep.display.tables import end_picture
    from hawsweep.leaderboard import end_of_study

    console.print(end_picture(end_of_study(outcome.study, place), outcome.ended, console.width))


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    # Without a terminal there is no width: tables must not be cut in a log.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    return Console(stderr=stderr, width=width)


if __name__ == "__main__":
    main()
