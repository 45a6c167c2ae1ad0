"""Commands that lead out of a study: export, report, dashboard, diagnosis."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import json_option, make_console, option_that_went, place_options

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
    "--ollama",
    is_flag=True,
    help="Also write a Modelfile for Ollama, and what it needs: the fused model, not quantized.",
)
@click.option(
    "--upload-repo",
    metavar="REPO",
    help="Send the fused model, else the adapter, to this Hugging Face repository. A new one is "
    "public, as by mlx_lm.",
)
@click.option("--private", is_flag=True, help="With --upload-repo: a private repository.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write, instead of the study's folder export.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export, all of it.")
@option_that_went(
    "--gguf",
    "use --fuse --dequantize, then llama.cpp's convert_hf_to_gguf.py on the folder fused",
    is_flag=True,
)
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
    from hawsweep.export.exporting import Request, export_trial
    from hawsweep.export.uploading import check_target
    from hawsweep.study import load_study, open_storage

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
@click.argument("name")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Instead of report.html in the study's folder.",
)
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
@click.option("--markdown", is_flag=True, help="For a pull request; printed without --output.")
@click.option("--force", is_flag=True, help="Replace FILE also where it is no report.")
@place_options
def report(
    name: str, output: Path | None, show: bool, markdown: bool, force: bool, place: "Place"
) -> None:
    """Write what the study NAME found as one page that needs nothing from elsewhere.

    \b
    Example: hawsweep report lr-rank --open
             hawsweep report lr-rank --markdown
    """
    if show and markdown:
        raise click.UsageError("--open shows the page: leave out --markdown.")
    from hawsweep.report.content import make_report
    from hawsweep.report.file import MARKDOWN_MARK, PAGE_MARK, REPORT_FILE, write_report
    from hawsweep.study import load_study, open_storage

    opened = load_study(open_storage(place), name)
    made = make_report(opened, place)
    if markdown:
        from hawsweep.report.pullrequest import report_markdown

        text = report_markdown(made)
        if output is None:
            click.echo(text)
            return
        write_report(output, text, MARKDOWN_MARK, force=force)
    else:
        from hawsweep.report.page import report_page

        output = output or place.study_dir(name) / REPORT_FILE
        write_report(output, report_page(made, opened), PAGE_MARK, force=force)
    click.echo(f"Report  {output}")
    if show:
        from hawsweep.dashboard.browser import open_address

        if not open_address(output.absolute().as_uri()):
            click.echo("It was not opened: there is no screen here to show it on.", err=True)


@click.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="8080 by default, or a free one.")
@option_that_went("--host", "use ssh -L 8080:127.0.0.1:8080 MACHINE where the browser is")
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@place_options
def dashboard(name: str | None, port: int | None, no_browser: bool, place: "Place") -> None:
    """Serve optuna-dashboard over the studies, and open it in the browser, on the study NAME.

    On this machine alone; from another, by ssh -L 8080:127.0.0.1:8080 MACHINE. Notes, files and
    plots of the studies are kept up to date while it runs.

    \b
    Example: hawsweep dashboard lr-rank
    """
    from hawsweep.dashboard.browser import open_address
    from hawsweep.dashboard.serving import serve

    def ready(address: str) -> None:
        click.echo(f"optuna-dashboard: {address}  (Ctrl-C ends it)")
        if not no_browser:
            open_address(address)

    serve(place, port, ready, name=name)


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
