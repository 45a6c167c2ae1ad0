"""``hawsweep report``."""

from pathlib import Path

import click

from hawsweep.cli.common import fetch_files, place_options
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.text import visible_line


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to FILE instead of report.html in the study's folder.",
)
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
@click.option(
    "--markdown",
    is_flag=True,
    help="Write Markdown for a pull request; without --output it is printed.",
)
@click.option("--force", is_flag=True, help="Replace FILE even if it is not a report.")
@place_options
def report(
    name: str, output: Path | None, show: bool, markdown: bool, force: bool, place: Place
) -> None:
    """Write the results of the study NAME as one page that works without a network.

    \b
    Example: hawsweep report lr-rank --open
             hawsweep report lr-rank --markdown
    """
    if show and markdown:
        raise click.UsageError("--open shows the page: leave out --markdown.")
    from hawsweep.study.storage import check_folder, open_storage
    from hawsweep.study.study import load_study
    from hawsweep.views.report.content import make_report
    from hawsweep.views.report.file import MARKDOWN_MARK, PAGE_MARK, REPORT_FILE, write_report

    study = load_study(open_storage(place), name)
    check_folder(study, place)
    fetch_files(study, place)
    made = make_report(study, place)
    if markdown:
        from hawsweep.views.report.pull_request import report_markdown

        text = report_markdown(made)
        if output is None:
            click.echo(text)
            return
        write_report(output, text, MARKDOWN_MARK, force=force)
    else:
        from hawsweep.views.report.page import report_page

        output = output or place.study_dir(name) / REPORT_FILE
        write_report(output, report_page(made, study), PAGE_MARK, force=force)
    click.echo(visible_line(f"Report  {output}"))
    if show:
        from hawsweep.views.dashboard.browser import open_address

        if not open_address(output.absolute().as_uri()):
            click.echo("The report was not opened: this machine has no screen.", err=True)
