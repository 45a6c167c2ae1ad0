"""Commands that lead out of a study: the export, the dashboard, the diagnosis."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import json_option, make_console, place_options

if TYPE_CHECKING:
    from hawsweep.study import Place


@click.command()
@click.argument("name")
@click.option("--trial", "trial_number", type=int, metavar="N", help="Instead of the best trial.")
@click.option(
    "--checkpoint",
    type=click.IntRange(min=1),
    metavar="I",
    help="Of a trial that kept checkpoints, the adapter of iteration I.",
)
@click.option("--fuse", is_flag=True, help="Also write the fused model, quantized as its base is.")
@click.option("--dequantize", is_flag=True, help="Write it fused and not quantized.")
@click.option(
    "--gguf",
    is_flag=True,
    help="Also write it fused as GGUF in 16 bits, for llama.cpp: of llama and mistral.",
)
@click.option(
    "--ollama",
    is_flag=True,
    help="Also write a Modelfile for Ollama, and what it needs: the GGUF, or else the fused model.",
)
@click.option(
    "--upload-repo",
    metavar="REPO",
    help="Send the fused model, else the adapter, and the GGUF, to this Hugging Face repository. "
    "A new one is public, as by mlx_lm.",
)
@click.option("--private", is_flag=True, help="With --upload-repo: a private repository.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write, instead of the study's folder export.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export, all of it.")
@json_option
@place_options
def export(
    name: str,
    upload_repo: str | None,
    private: bool,
    place: "Place",
    as_json: bool,
    **asked: Any,
) -> None:
    """Write the best adapter of the study NAME, checked by its translations.

    What is asked for later is added to what is there of the same trial.

    \b
    Example: hawsweep export lr-rank --fuse
             hawsweep export lr-rank --ollama
    """
    if private and upload_repo is None:
        raise click.UsageError("--private is for --upload-repo.")
    from hawsweep.export import Request, export_trial
    from hawsweep.study import load_study, open_storage
    from hawsweep.uploading import check_target

    console = make_console(stderr=as_json)
    with console.status("exporting") as spinner:
        opened = load_study(open_storage(place), name)
        target = None if upload_repo is None else check_target(upload_repo, private=private)
        exported = export_trial(opened, place, Request(**asked, target=target), spinner.update)
    from hawsweep.display.exporting import export_picture, next_commands

    commands = next_commands(exported, exported.example)
    if as_json:
        content = {**asdict(exported), "folder": str(exported.folder), "next": commands}
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console.print(export_picture(exported, commands), soft_wrap=True)


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Where others reach it, it asks for a token: HAWSWEEP_DASHBOARD_TOKEN or a new one.",
)
@click.option("--no-token", is_flag=True, help="Let everybody in who reaches HOST.")
@place_options
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


@click.command()
@click.option(
    "--rebuild",
    is_flag=True,
    help="Make a new database out of the studies' folders, beside one that is lost.",
)
@click.option("--quick", is_flag=True, help="Measure nothing, and train nothing.")
@json_option
@place_options
def doctor(rebuild: bool, quick: bool, place: "Place", as_json: bool) -> None:
    """Examine this machine, the installation and the database, and train a few steps.

    Says what the studies' folders could give back of the database. Exit code 1 where something is
    wrong, not for warnings.

    \b
    Example: hawsweep doctor --quick
             hawsweep doctor --rebuild
    """
    from hawsweep import doctor
    from hawsweep.findings import Finding, worst

    found = doctor.examine_and_rebuild(place) if rebuild else doctor.examine(place)
    machine: list[Finding] = []
    console = make_console()
    if not rebuild:
        from hawsweep.examination import examine_machine

        with make_console(stderr=True).status("looking") as spinner:
            made_with = doctor.versions_of_studies(place, found.database)
            machine = examine_machine(place, made_with, quick=quick, progress=spinner.update)
    is_fine = worst(machine) != "fault" and (found.is_fine or bool(found.rebuilt))
    if as_json:
        examined = [each.to_plain() for each in machine]
        click.echo(json.dumps({**found.to_plain(), "machine": examined}, indent=2))
    else:
        from hawsweep.display.diagnosis import diagnosis_picture, machine_picture

        console.print(diagnosis_picture(found), soft_wrap=True)
        if machine:
            console.print(machine_picture(machine))
    if not is_fine:
        sys.exit(1)
