"""The command line: parse, one call into the core, print."""

import ast
import inspect
import sys
import textwrap
from contextlib import suppress
from typing import Any

import click

from hawsweep.cli.common import ErrorGroup
from hawsweep.cli.compare import compare
from hawsweep.cli.completion import completion, schema
from hawsweep.cli.curate import curate
from hawsweep.cli.dashboard import dashboard
from hawsweep.cli.data_curve import data_curve
from hawsweep.cli.doctor import doctor
from hawsweep.cli.enqueue import enqueue
from hawsweep.cli.explain import explain
from hawsweep.cli.export import export
from hawsweep.cli.extend import extend
from hawsweep.cli.init import init
from hawsweep.cli.list import list_studies
from hawsweep.cli.mcp import mcp
from hawsweep.cli.plan import plan
from hawsweep.cli.preview import preview
from hawsweep.cli.report import report
from hawsweep.cli.review import review
from hawsweep.cli.score import score
from hawsweep.cli.show import show
from hawsweep.cli.start import start
from hawsweep.cli.status import status
from hawsweep.cli.stop import stop
from hawsweep.cli.try_ import try_
from hawsweep.cli.validate import validate
from hawsweep.cli.worker import worker
from hawsweep.machine.output import (
    OutputError,
    discard_output,
    make_output_visible,
    open_missing_streams,
)
from hawsweep.machine.without_torch import keep_torch_out


@click.group(cls=ErrorGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hawsweep")
def main() -> None:
    """Sweep the hyperparameters of LoRA fine-tuning with MLX.

    \b
    hawsweep init --data D --model M    a sweep for your data, done in time
    hawsweep start lr-rank              run a sweep, or go on with it
    hawsweep status lr-rank             its trials, best first
    hawsweep export lr-rank             the best adapter, checked
    """


main.add("Prepare", init, preview, validate, explain, plan, doctor)
main.add("Run", start, stop, enqueue, extend, data_curve, curate, worker)
main.add("Look", status, list_studies, show, compare, review, dashboard, report)
main.add("Use", try_, export, score, mcp, completion, schema)


def _read_help(command: click.Command) -> None:
    """Give a command the docstring of its source: ``python -OO`` takes it from the function."""
    if command.callback is not None:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(command.callback)))
        # Not ast.parse, which leaves docstrings out under -OO from Python 3.14 on.
        parsed: Any = compile(source, "", "exec", ast.PyCF_ONLY_AST, optimize=0)
        function = parsed.body[0]
        command.help = ast.get_docstring(function) if isinstance(function, ast.FunctionDef) else ""


if sys.flags.optimize > 1:
    for _command in (main, *main.commands.values()):
        _read_help(_command)


def run() -> None:
    """Run the command line as the program ``hawsweep``."""
    open_missing_streams()
    keep_torch_out()
    make_output_visible()
    try:
        main()
    except OutputError as fault:
        with suppress(OSError):
            click.echo(f"Error: The output cannot be written: {fault.strerror}.", err=True)
        discard_output()
        sys.exit(1)
