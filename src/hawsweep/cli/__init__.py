"""The command line: parse, one call into the core, print."""

import click

from hawsweep.cli.common import ErrorGroup
from hawsweep.cli.compare import compare
from hawsweep.cli.completion import completion, schema
from hawsweep.cli.dashboard import dashboard
from hawsweep.cli.doctor import doctor
from hawsweep.cli.explain import explain
from hawsweep.cli.export import export
from hawsweep.cli.init import init
from hawsweep.cli.list import list_studies
from hawsweep.cli.plan import plan
from hawsweep.cli.preview import preview
from hawsweep.cli.report import report
from hawsweep.cli.score import score
from hawsweep.cli.show import show
from hawsweep.cli.start import start
from hawsweep.cli.status import status
from hawsweep.cli.stop import stop
from hawsweep.cli.validate import validate
from hawsweep.cli.worker import worker
from hawsweep.machine.output import make_output_visible
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


for _command in (
    init,
    explain,
    preview,
    validate,
    start,
    stop,
    worker,
    plan,
    list_studies,
    status,
    show,
    compare,
    score,
    export,
    report,
    dashboard,
    doctor,
    completion,
    schema,
):
    main.add_command(_command)


def run() -> None:
    """Run the command line as the program ``hawsweep``."""
    keep_torch_out()
    make_output_visible()
    main()
