"""``hawsweep show``."""

from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import fetch_files, json_option, place_options, print_json
from hawsweep.cli.completion import study_completion, trial_completion
from hawsweep.study.place import Place
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    import optuna

_BASE = "base"


class _Trial(click.types.IntParamType):
    """A trial's number, or ``base``."""

    name = "trial"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or ``base``."""
        return _BASE if value == _BASE else super().convert(value, param, ctx)


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.argument("trial", type=_Trial(), required=False, shell_complete=trial_completion)
@click.option(
    "--examples",
    is_flag=True,
    help="Also show the training examples that the trial finds hardest and easiest.",
)
@click.option(
    "--tokens",
    "n_tokens",
    metavar="N",
    type=click.IntRange(1),
    help="Also show the N tokens of validation answers that the trial finds hardest.",
)
@json_option
@place_options
def show(
    name: str,
    trial: int | str | None,
    examples: bool,
    n_tokens: int | None,
    place: Place,
    as_json: bool,
) -> None:
    """Show one TRIAL of the study NAME, by default the best: settings, numbers, files,
    translations. With base in its place: the untuned model with each prompt it was tried with.

    \b
    Example: hawsweep show lr-rank 3 --examples
             hawsweep show lr-rank 3 --tokens 10
             hawsweep show lr-rank base
    """
    from hawsweep.results.one_trial import describe_trial
    from hawsweep.study.confirm import chosen_trial
    from hawsweep.study.storage import open_storage
    from hawsweep.study.study import load_study, read_trials

    study = read_trials(load_study(open_storage(place), name))
    if isinstance(trial, str):
        if examples or n_tokens is not None:
            raise click.UsageError("--examples and --tokens are of a trial. Leave them out.")
        _show_base(study, as_json=as_json)
        return
    if trial is None:
        trial = chosen_trial(study, is_complete=False).number
    fetch_files(study, place, trial)
    described = describe_trial(study, place, trial)
    console = make_console(stderr=True)
    if examples:
        from hawsweep.trial.example_losses import hardest_and_easiest

        with console.status("loading the model") as spinner:
            hardest, easiest = hardest_and_easiest(study, place, trial, 5, spinner.update)
        described["hardest_examples"] = [vars(example) for example in hardest]
        described["easiest_examples"] = [vars(example) for example in easiest]
    if n_tokens is not None:
        from hawsweep.trial.token_losses import hardest_tokens

        with console.status("loading the model") as spinner:
            tokens = hardest_tokens(study, place, trial, n_tokens, spinner.update)
        described["hardest_tokens"] = [vars(token) for token in tokens]
    if as_json:
        print_json(described)
        return
    from hawsweep.views.terminal.trial import trial_picture

    console = make_console()
    console.print(trial_picture(described, console.width))


def _show_base(study: "optuna.Study", *, as_json: bool) -> None:
    from hawsweep.results.one_trial import describe_base
    from hawsweep.views.terminal.trial import base_picture

    described = describe_base(study)
    if as_json:
        print_json(described)
    else:
        make_console().print(base_picture(described))
