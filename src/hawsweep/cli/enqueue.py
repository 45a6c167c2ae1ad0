"""``hawsweep enqueue``."""

from dataclasses import asdict

import click

from hawsweep.cli.common import json_option, place_options, print_json
from hawsweep.cli.completion import study_completion
from hawsweep.study.place import Place
from hawsweep.text import settings_text
from hawsweep.views.terminal.console import make_console


@click.command()
@click.argument("name", shell_complete=study_completion)
@click.argument("settings", metavar="KEY=VALUE...", nargs=-1, required=True)
@json_option
@place_options
def enqueue(name: str, settings: tuple[str, ...], place: Place, as_json: bool) -> None:
    """Let the study NAME try a setting next, before it proposes others.

    It must be of the search space, and not tried yet. A key that is left out gets a value by
    chance.

    \b
    Example: hawsweep enqueue lr-rank learning_rate=2e-4 lora_parameters.rank=16
    """
    from hawsweep.running.steer import enqueue as queue
    from hawsweep.spec.read import parse_override

    queued = queue(name, place, dict(parse_override(text, "") for text in settings))
    if as_json:
        print_json(asdict(queued))
        return
    lines = [f"Queued as trial {queued.trial}: {settings_text(queued.settings)}"]
    if not queued.may_begin:
        more = place.command("extend", name, "--trials=+1")
        lines.append(f"The sweep has no trial left for it: {more}")
    if queued.command:
        lines.append(f"To go on: {queued.command}")
    console = make_console()
    for line in lines:
        console.say(line, soft_wrap=True)
