"""The command line: parse, one call into the core, print."""

import click

from hawsweep import __version__
from hawsweep.cli import beginning, completing, leaving, looking, running
from hawsweep.cli.common import ErrorGroup
from hawsweep.without_torch import keep_torch_out


@click.group(cls=ErrorGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hawsweep")
def main() -> None:
    """Sweep the hyperparameters of LoRA fine-tuning with MLX.

    \b
    hawsweep init --data D --model M    a sweep for your data, done in time
    hawsweep start lr-rank              run a sweep, or go on with it
    hawsweep status lr-rank             its trials, best first
    hawsweep export lr-rank             the best adapter, checked
    """


for _command in (
    beginning.init,
    beginning.explain,
    beginning.validate,
    running.start,
    running.stop,
    running.worker,
    running.plan,
    looking.list_studies,
    looking.status,
    looking.show,
    looking.compare,
    looking.score,
    leaving.export,
    leaving.report,
    leaving.dashboard,
    leaving.doctor,
    completing.completion,
    completing.schema,
):
    main.add_command(_command)


def run() -> None:
    """Run the command line in a process of its own."""
    keep_torch_out()
    main()
