"""``hawsweep plan``."""

from typing import TYPE_CHECKING, Any

import click

from hawsweep.cli.common import json_option, print_json, settings_option
from hawsweep.cli.completion import sweep_completion
from hawsweep.cli.start import overrides_of
from hawsweep.views.terminal.console import make_console

if TYPE_CHECKING:
    from hawsweep.machine.backend import Device

    from hawsweep.spec.sweep import SweepSpec
    from hawsweep.views.terminal.console import Console


@click.command()
@click.argument("name", shell_complete=sweep_completion)
@click.option(
    "--ram", metavar="SIZE", help="Plan for a machine with this much memory, such as 32GB."
)
@click.option("--model", metavar="REF", help="Plan for this model; it need not be on this machine.")
@click.option("--data", metavar="REF", help="Plan for this data instead of the sweep's.")
@click.option(
    "--data-pairs",
    type=click.IntRange(1, 10**7),
    metavar="N",
    help="Plan for this many examples of up to --max-seq-length tokens.",
)
@click.option("--max-seq-length", type=click.IntRange(8, 2**24), metavar="N", help="Tokens.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "metal", "cuda"]),
    help="The device to plan for; default: this machine's, or metal with --ram.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure the model here first, and compare with the predictions.",
)
@settings_option
@click.option("--all", "show_all", is_flag=True, help="Show each value of each searched key.")
@json_option
def plan(
    name: str,
    ram: str | None,
    data_pairs: int | None,
    max_seq_length: int | None,
    device: "Device | None",
    calibrate: bool,
    settings: tuple[str, ...],
    show_all: bool,
    as_json: bool,
    **given: str | None,
) -> None:
    """Show which settings of the sweep NAME fit into memory, and how long the sweep takes.

    \b
    Example: hawsweep plan lr-rank --ram 32GB --model mlx-community/gemma-3-4b-it-4bit
    """
    from hawsweep.planning.sweep_plan import plan_models
    from hawsweep.planning.sweep_time import plans_to_plain, time_plan
    from hawsweep.spec.read import find_sweep, read_sweep

    overrides = overrides_of(settings, given)
    if max_seq_length is not None:
        overrides["train.max_seq_length"] = max_seq_length
    spec, _ = read_sweep(find_sweep(name), overrides).trained_longest()
    console = make_console(stderr=as_json)
    measured = _calibrate(spec, console) if calibrate else {}
    planned = plan_models(spec, ram=ram, data_pairs=data_pairs, device=device)
    timed = [
        (each, time_plan(each, data_pairs) if each.smallest.plan else None) for each in planned
    ]
    if as_json:
        print_json(plans_to_plain(timed))
        return
    from hawsweep.views.terminal.plan import plans_picture, residuals_table

    for model, residuals in measured.items():
        console.print(*([model] if spec.searches_models else []), residuals_table(residuals), "")
    console.print(plans_picture(timed, show_all=show_all))


def _calibrate(spec: "SweepSpec", console: "Console") -> dict[str, list[Any]]:
    from hawsweep.machine import memory
    from hawsweep.models import resolve
    from hawsweep.planning import calibration

    found = {}
    with console.status("measuring training steps") as spinner:
        budget = memory.find_budget(
            spec.memory.budget, spec.memory.reserve, machine=memory.this_machine()
        )
        for model in spec.models:
            path = resolve.resolve_model(model, spinner.update)
            _, found[model] = calibration.calibrate(
                path, spinner.update, budget_bytes=budget.total_bytes
            )
    return found
